"""Tensors as bytes: a strict reader and a canonical writer of safetensors files.

The format (https://huggingface.co/docs/safetensors, "Format"): 8 bytes with the header's length as an unsigned
little-endian integer, that many bytes of JSON (``{name: {dtype, shape, data_offsets}}`` and optionally
``__metadata__``, strings only), then the tensors' data without gaps. Nothing in it can be executed.

Bytes come from peers, so the reader allocates nothing because a header says so, accepts only what it fully
understands, and refuses with a machine word and what was seen. The writer makes one file of the same tensors and
metadata, byte for byte. Models are `F32` and `F64`; integer, half and boolean tensors (counters, for example) stay with
the client, because their mean is not a value of their type.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn, TypeAlias

import numpy as np

from fedjob_protocol.errors import Refusal, Word, quote
from fedjob_protocol.manifest import (
    Array,
    DType,
    Manifest,
    Placement,
    TensorSpec,
    compare_manifest,
    wrong_dtype,
)

__all__ = [
    "Array",
    "DType",
    "Header",
    "Manifest",
    "Placement",
    "Readable",
    "TensorSpec",
    "compare_manifest",
    "decode",
    "encode",
    "encode_chunks",
    "encoded_bytes",
    "header_bytes",
    "header_end",
    "parse_header",
    "read_header",
]

LENGTH_BYTES: Final = 8
"""The header's length comes first, in this many bytes."""
ALIGNMENT: Final = 8
"""The data starts at a multiple of this, so that every tensor is aligned in memory."""
MAX_HEADER_BYTES: Final = 4 << 20
"""Longest header that is parsed unless the caller expects a longer one; room for some 30,000 tensors."""
MAX_TENSORS: Final = 32_768
MAX_RANK: Final = 32
MAX_NAME_CHARACTERS: Final = 1024
MAX_TENSOR_BYTES: Final = 1 << 60
"""A shape whose product is larger is refused whatever the file's length, so no product can overflow elsewhere."""
BLOCK_BYTES: Final = 1 << 20

METADATA_KEY: Final = "__metadata__"
OTHER_DTYPES: Final = frozenset(
    {"BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64", "F16", "BF16", "C64", "F4"}
    | {"F6_E2M3", "F6_E3M2", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"}
)
"""What the format knows beyond `DType`; refused as `Word.WRONG_DTYPE` rather than as malformed."""

Readable: TypeAlias = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A checked header: the data section is tiled by `placements` exactly."""

    manifest: Manifest
    placements: tuple[Placement, ...]
    """In the order of the data."""
    metadata: Mapping[str, str]
    data_begin: int
    """Where the data section starts in the file."""
    total_bytes: int
    """Length of the file."""


# Reading


def header_end(prefix: Readable, total_bytes: int, *, max_header_bytes: int = MAX_HEADER_BYTES) -> int:
    """Return where the header ends, from the first bytes of a file.

    Args:
        prefix: At least the first 8 bytes of the file (all of it, if it is shorter).
        total_bytes: Length of the whole file.
        max_header_bytes: Longest header to accept.

    Raises:
        Refusal: ``malformed-weights`` when the header would not fit into the file, ``too-large`` when it is longer than
            ``max_header_bytes``.
    """
    if total_bytes < LENGTH_BYTES + 2 or len(prefix) < LENGTH_BYTES:
        raise _malformed(f"a safetensors file has at least {LENGTH_BYTES + 2} bytes, this one has {total_bytes}")
    length = int.from_bytes(prefix[:LENGTH_BYTES], "little")
    if length > total_bytes - LENGTH_BYTES:
        raise _malformed(
            f"the first 8 bytes announce a header of {length} bytes, but the file has only {total_bytes}; "
            "updates and models are safetensors files, nothing else"
        )
    if length > max_header_bytes:
        raise Refusal(Word.TOO_LARGE, f"the header has {length} bytes, at most {max_header_bytes} are accepted")
    return LENGTH_BYTES + length


def parse_header(header: Readable, total_bytes: int) -> Header:
    """Check a header against the length of its file.

    Args:
        header: The file's first bytes, exactly up to the end of the header (see `header_end`).
        total_bytes: Length of the whole file.

    Raises:
        Refusal: ``malformed-weights``, ``wrong-dtype`` or ``too-large``, with what was seen.
    """
    text = bytes(header[LENGTH_BYTES:])
    entries = _load_json(text)
    metadata = _metadata(entries.pop(METADATA_KEY, {}))
    if len(entries) > MAX_TENSORS:
        raise Refusal(Word.TOO_LARGE, f"the file has {len(entries)} tensors, at most {MAX_TENSORS} are accepted")
    placements = sorted(
        (_placement(name, entry) for name, entry in entries.items()), key=lambda place: (place.begin, place.end)
    )
    _check_tiling(placements, total_bytes - len(header))
    return Header(
        manifest=Manifest.of(place.spec for place in placements),
        placements=tuple(placements),
        metadata=metadata,
        data_begin=len(header),
        total_bytes=total_bytes,
    )


def read_header(buffer: Readable, *, max_header_bytes: int = MAX_HEADER_BYTES) -> Header:
    """Check the header of a whole file in memory.

    Raises:
        Refusal: As `header_end` and `parse_header`.
    """
    view = memoryview(buffer)
    return parse_header(view[: header_end(view, len(view), max_header_bytes=max_header_bytes)], len(view))


def decode(buffer: Readable, *, max_header_bytes: int = MAX_HEADER_BYTES) -> tuple[dict[str, Array], Mapping[str, str]]:
    """Read a whole file in memory.

    Args:
        buffer: The file; it must stay unchanged while the arrays are used.
        max_header_bytes: Longest header to accept.

    Returns:
        The arrays by name, ordered by name: read-only views of the buffer, not copies; and the metadata.

    Raises:
        Refusal: As `header_end` and `parse_header`. Values are not looked at: they may be infinite or NaN.
    """
    view = memoryview(buffer).toreadonly()
    header = read_header(view, max_header_bytes=max_header_bytes)
    arrays: dict[str, Array] = {}
    for place in sorted(header.placements, key=lambda place: place.spec.name):
        data = view[header.data_begin + place.begin : header.data_begin + place.end]
        arrays[place.spec.name] = np.frombuffer(data, dtype=place.spec.dtype.numpy).reshape(place.spec.shape)
    return arrays, header.metadata


# Writing


def header_bytes(manifest: Manifest, metadata: Mapping[str, str] | None = None) -> bytes:
    """The canonical first bytes of a file: length, header, padding with spaces to 8 bytes.

    The same manifest and metadata always give the same bytes; the data follow in the order of `Manifest.placements`.

    Raises:
        Refusal: ``malformed-weights``: a name is too long, not UTF-8 or ``__metadata__``.
    """
    entries: dict[str, Any] = {}
    if metadata:
        entries[METADATA_KEY] = dict(sorted(metadata.items()))
    for place in manifest.placements:
        _check_name(place.spec.name)
        entries[place.spec.name] = {
            "dtype": place.spec.dtype.value,
            "shape": list(place.spec.shape),
            "data_offsets": [place.begin, place.end],
        }
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


def encoded_bytes(manifest: Manifest, metadata: Mapping[str, str] | None = None) -> int:
    """Length of the whole canonical file."""
    return len(header_bytes(manifest, metadata)) + manifest.total_bytes


def encode_chunks(
    arrays: Mapping[str, Array], metadata: Mapping[str, str] | None = None, *, block_bytes: int = BLOCK_BYTES
) -> Iterator[memoryview]:
    """Write the canonical file block by block, without copying arrays that are contiguous and little-endian.

    Args:
        arrays: Float32 and float64 arrays by name; they must stay unchanged until the last block was used.
        metadata: Strings by name.
        block_bytes: Largest block, in bytes.

    Raises:
        Refusal: ``wrong-dtype``: an array is neither float32 nor float64; ``malformed-weights`` as `header_bytes`.
    """
    manifest = Manifest.of_arrays(arrays)
    yield memoryview(header_bytes(manifest, metadata))
    for place in manifest.placements:
        data = np.ascontiguousarray(arrays[place.spec.name], dtype=place.spec.dtype.numpy)
        view = data.reshape(-1).view(np.uint8).data.toreadonly()
        for begin in range(0, len(view), block_bytes):
            yield view[begin : begin + block_bytes]


def encode(arrays: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> bytes:
    """The canonical file as one piece of memory.

    Raises:
        Refusal: ``wrong-dtype``: an array is neither float32 nor float64; ``malformed-weights`` as `header_bytes`.
    """
    return b"".join(encode_chunks(arrays, metadata))


# Parts of the reader


def _load_json(text: bytes) -> dict[str, Any]:
    if not text.startswith(b"{"):
        raise _malformed(f"the header starts with {text[:16]!r}, not with an opening brace")
    try:
        entries = json.loads(
            text.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_no_constant
        )
    except (ValueError, RecursionError) as error:
        raise _malformed(f"the header is not JSON: {str(error)[:200]}") from error
    assert isinstance(entries, dict)  # it starts with a brace
    return entries


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise _malformed("the header has a key twice in one object")
    return entries


def _no_constant(text: str) -> NoReturn:
    raise _malformed(f"the header has the number {text[:40]}, only whole numbers are allowed")


def _metadata(value: Any) -> Mapping[str, str]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise _malformed(f"{METADATA_KEY} must map strings to strings")
    if not all(_is_text(key) and _is_text(item) for key, item in value.items()):
        raise _malformed(f"{METADATA_KEY} has text that is not UTF-8")
    return value


def _check_name(name: str) -> None:
    if name == METADATA_KEY or len(name) > MAX_NAME_CHARACTERS or not _is_text(name):
        raise _malformed(
            f"tensor name {quote(name)} is reserved, longer than {MAX_NAME_CHARACTERS} characters or not UTF-8"
        )


def _placement(name: str, entry: Any) -> Placement:
    _check_name(name)
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise _malformed(f"tensor {quote(name)} must have exactly dtype, shape and data_offsets")
    dtype, shape = _dtype(name, entry["dtype"]), _shape(name, entry["shape"])
    spec = TensorSpec(name=name, dtype=dtype, shape=shape)
    offsets = entry["data_offsets"]
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[1] - offsets[0] != spec.nbytes:
        raise _malformed(
            f"tensor {quote(name)}: data_offsets {quote(offsets)} are not those of {dtype} {list(shape)}, "
            f"which has {spec.nbytes} bytes"
        )
    return Placement(spec=spec, begin=offsets[0], end=offsets[1])


def _dtype(name: str, value: Any) -> DType:
    if value == DType.F32:
        return DType.F32
    if value == DType.F64:
        return DType.F64
    if isinstance(value, str) and value in OTHER_DTYPES:
        raise wrong_dtype(name, value)
    raise _malformed(f"tensor {quote(name)} has the unknown dtype {quote(value)}")


def _shape(name: str, value: Any) -> tuple[int, ...]:
    if not _are_counts(value) or len(value) > MAX_RANK:
        raise _malformed(f"tensor {quote(name)}: shape {quote(value)} is not a list of at most {MAX_RANK} sizes")
    size = 8
    for length in value:
        size *= max(length, 1)
        if size > MAX_TENSOR_BYTES:
            raise _malformed(f"tensor {quote(name)}: shape {quote(value)} is larger than any file")
    return tuple(value)


def _are_counts(value: Any) -> bool:
    """Whether it is a list of integers from 0; JSON's true and false are integers in Python, but not here."""
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _check_tiling(placements: list[Placement], data_bytes: int) -> None:
    position = 0
    for place in placements:
        if place.begin != position:
            kind = "overlaps the one before" if place.begin < position else "leaves a gap"
            raise _malformed(
                f"tensor {quote(place.spec.name)} begins at {quote(place.begin)}, not at {position}: it {kind}"
            )
        position = place.end
    if position != data_bytes:
        raise _malformed(f"the header describes {position} bytes of data, the file has {data_bytes}")


def _is_text(name: str) -> bool:
    """Whether a name can be written as UTF-8: JSON can escape half a surrogate pair."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _malformed(detail: str) -> Refusal:
    return Refusal(Word.MALFORMED_WEIGHTS, detail)
