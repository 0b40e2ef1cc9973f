"""Whether an upload is what it has to be: digest, tensors, finite values. Pure but for its own progress; no I/O.

A `Verifier` is fed the body block by block while the rest is still on its way, in a worker thread.
"""

from collections.abc import Callable
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from fedjob_aggregator.aggregation.backends import INFINITY_BITS, Kernels
from fedjob_protocol.digests import Xxh3
from fedjob_protocol.errors import Refusal, Word, quote
from fedjob_protocol.weights import (
    DType,
    Header,
    Manifest,
    Placement,
    compare_manifest,
    header_bytes,
    header_end,
    parse_header,
)

LENGTH_BYTES: Final = 8
ALIGNMENT: Final = 8
"""Blocks, headers and tensors begin at multiples of this or of their element's size."""
PIECE_BYTES: Final = 512 << 10
"""Digested and then scanned while it is still in the cache."""
HEADER_SLACK_BYTES: Final = 64 << 10
"""How much longer than the canonical one a header of an update may be: padding, metadata, spaces."""
INITIAL_HEADER_BYTES: Final = 4 << 20
"""Longest header of an initial model."""


class Check(Protocol):
    """What a `Verifier` demands of the header and of the values."""

    max_header_bytes: int

    def header(self, header: Header) -> None:
        """Refuse tensors that are not as expected."""

    def values(self, header: Header, begin: int, data: memoryview) -> None:
        """Refuse values that are not as expected; ``begin`` counts from the start of the data section."""

    def whole(self) -> None:
        """Refuse what can only be seen when all values were."""


def most_header_bytes(delta: Manifest) -> int:
    """Longest header of an update: twice the canonical one, and some room for metadata and spaces."""
    return 2 * len(header_bytes(delta)) + HEADER_SLACK_BYTES


class DeltaCheck:
    """An update has the model's tensors in float32, and all its values are finite.

    Args:
        delta: What is expected (`Manifest.as_delta`).
        kernels: Who scans the values.
        fits: Refuses a largest absolute value that could make the sums overflow (`fixed_point.check_range`).
    """

    def __init__(self, delta: Manifest, kernels: Kernels, fits: Callable[[float], None]) -> None:
        self.max_header_bytes = most_header_bytes(delta)
        self._expected = delta
        self._kernels = kernels
        self._fits = fits
        self._largest_bits = 0

    def header(self, header: Header) -> None:
        """As `Check.header`."""
        compare_manifest(self._expected, header.manifest)

    def values(self, header: Header, begin: int, data: memoryview) -> None:
        """As `Check.values`."""
        values = np.frombuffer(data, dtype="<f4")
        bits = self._kernels.scan(values)
        if bits >= INFINITY_BITS:
            element = int(np.flatnonzero(~np.isfinite(values))[0])
            raise _non_finite(header, begin + 4 * element, values[element])
        self._largest_bits = max(self._largest_bits, bits)

    def whole(self) -> None:
        """As `Check.whole`."""
        self._fits(float(np.array(self._largest_bits, dtype=np.uint32).view(np.float32)))


class InitialCheck:
    """An initial model has at least one value, and all its values are finite."""

    max_header_bytes = INITIAL_HEADER_BYTES

    def header(self, header: Header) -> None:
        """As `Check.header`."""
        if header.manifest.elements == 0:
            raise Refusal(Word.MALFORMED_WEIGHTS, "the initial model has no values")
        for place in header.placements:
            if place.begin % place.spec.dtype.bytes:
                raise Refusal(
                    Word.MALFORMED_WEIGHTS,
                    f"tensor {quote(place.spec.name)} begins at byte {place.begin}, not at a multiple of its element's "
                    "size; put the F64 tensors first",
                )

    def values(self, header: Header, begin: int, data: memoryview) -> None:
        """As `Check.values`."""
        end = begin + len(data)
        for place in header.placements:
            first, last = max(begin, place.begin), min(end, place.end)
            if first < last:
                values = _floats(place.spec.dtype, data[first - begin : last - begin])
                finite = np.isfinite(values)
                if not finite.all():
                    element = int(np.flatnonzero(~finite)[0])
                    raise _non_finite(header, first + place.spec.dtype.bytes * element, values[element])

    def whole(self) -> None:
        """As `Check.whole`: any finite values will do."""


class Verifier:
    """Checks one body as it comes.

    What is wrong with the content is said only at the end, and only if the digest is right: otherwise a bit that was
    flipped on the way could look like a NaN of the client's, and the client would count as failed.

    Args:
        check: What is expected.
        total_bytes: Length of the body.
    """

    def __init__(self, check: Check, total_bytes: int) -> None:
        self._check = check
        self._total_bytes = total_bytes
        self._digest = Xxh3()
        self._head = bytearray()
        self._header: Header | None = None
        self._position = 0
        self._refusal: Refusal | None = None

    def feed(self, block: memoryview) -> None:
        """Take the next bytes; all blocks but the last have a length that is a multiple of 8."""
        for begin in range(0, len(block), PIECE_BYTES):
            piece = block[begin : begin + PIECE_BYTES]
            self._digest.update(piece)
            if self._refusal is None:
                try:
                    self._look_at(piece)
                except Refusal as refusal:
                    self._refusal = refusal

    def finish(self, announced: str) -> Header:
        """Judge the body, when everything was fed.

        Args:
            announced: ``xxh3-128:<hex>`` as the sender announced it.

        Returns:
            The header of the body.

        Raises:
            Refusal: ``digest-mismatch``, otherwise what is wrong with the header or the values.
        """
        computed = self._digest.digest()
        if announced != computed:
            raise Refusal(
                Word.DIGEST_MISMATCH,
                f"the body has digest {computed}, {quote(announced)} was announced: it was damaged on the way; "
                "send it again",
            )
        if self._refusal is not None:
            raise self._refusal
        if self._header is None:
            raise Refusal(Word.MALFORMED_WEIGHTS, f"a body of {self._total_bytes} bytes is no safetensors file")
        self._check.whole()
        return self._header

    def _look_at(self, block: memoryview) -> None:
        if self._header is None:
            block = self._take_head(block)
        if self._header is not None and block:
            self._check.values(self._header, self._position, block)
            self._position += len(block)

    def _take_head(self, block: memoryview) -> memoryview:
        """Gather the header; return what of the block comes after it."""
        before, limit = len(self._head), self._check.max_header_bytes
        self._head += block[: LENGTH_BYTES + limit - before]
        if len(self._head) < min(LENGTH_BYTES, self._total_bytes):
            return block[:0]
        end = header_end(self._head, self._total_bytes, max_header_bytes=limit)
        if end % ALIGNMENT:
            raise Refusal(
                Word.MALFORMED_WEIGHTS, f"the header ends at byte {end}: pad it with spaces to a multiple of 8"
            )
        if len(self._head) < end:
            return block[:0]
        header = parse_header(memoryview(self._head)[:end], self._total_bytes)
        self._check.header(header)
        self._header = header
        self._head = bytearray()
        return block[end - before :]


def _floats(dtype: DType, data: memoryview) -> npt.NDArray[Any]:
    return np.frombuffer(data, dtype=dtype.numpy)


def _non_finite(header: Header, position: int, value: float) -> Refusal:
    place = next(place for place in header.placements if place.begin <= position < place.end)
    return Refusal(
        Word.NON_FINITE, f"tensor {quote(place.spec.name)} has the value {value} at {_index(place, position)}"
    )


def _index(place: Placement, position: int) -> list[int]:
    element = (position - place.begin) // place.spec.dtype.bytes
    return [int(part) for part in np.unravel_index(element, place.spec.shape)] if place.spec.shape else []
