"""The sums of one round: a 64-bit integer per element of the model. Used by one thread at a time."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from fedjob_aggregator.aggregation.backends import Kernels
from fedjob_aggregator.aggregation.fixed_point import divisor
from fedjob_protocol.weights import Header, Manifest, TensorSpec

BLOCK_ELEMENTS: Final = 1 << 17
"""Elements of the mean that are computed at a time: 1 MiB of float64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Elements that are consecutive in an update's file as well as over the tensors in order of names."""

    file_begin: int
    """Offset in the file, in bytes."""
    begin: int
    """Index of the first element, over the tensors in order of names."""
    elements: int


def flat_begins(manifest: Manifest) -> dict[str, int]:
    """Index of the first element of each tensor, counted over the tensors in order of names."""
    begins, begin = {}, 0
    for spec in manifest.tensors:
        begins[spec.name] = begin
        begin += spec.elements
    return begins


def runs(header: Header, begins: Mapping[str, int]) -> Iterator[Run]:
    """The longest runs of an update's file that can be taken at once; one for a file in canonical order.

    Args:
        header: Of an update with exactly the tensors of the model, in float32.
        begins: As of `flat_begins`.
    """
    file_begin = flat_begin = elements = 0
    for place in header.placements:
        begin = begins[place.spec.name]
        if elements and begin == flat_begin + elements:
            elements += place.spec.elements
            continue
        if elements:
            yield Run(file_begin=file_begin, begin=flat_begin, elements=elements)
        file_begin, flat_begin, elements = header.data_begin + place.begin, begin, place.spec.elements
    if elements:
        yield Run(file_begin=file_begin, begin=flat_begin, elements=elements)


class Accumulator:
    """Exact weighted sums of the updates of a round.

    The sums lie in the order of the model's tensors by name. Memory: 8 bytes per element, whatever the number of
    updates.

    Args:
        manifest: Tensors of the model.
    """

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self._begins = flat_begins(manifest)
        self._sums = np.empty(manifest.elements, dtype=np.int64)
        self.reset()  # touches the memory now, while clients train, not when the first update is folded

    def reset(self) -> None:
        """Start over at zero."""
        self._sums.fill(0)

    def fold(
        self, kernels: Kernels, begin: int, values: npt.NDArray[np.float32], *, scale_bits: int, weight: int
    ) -> None:
        """Add weight * rint(value * 2^scaleBits) to the sums from index ``begin`` on.

        Args:
            kernels: Who does it.
            begin: Index of the first sum.
            values: Part of an update that passed `fixed_point.check_range`; contiguous, may be read-only.
            scale_bits: Fixed-point scale of the round.
            weight: Weight of the update.
        """
        kernels.fold(self._sums[begin : begin + values.size], values, scale_bits, weight)

    def sums(self, spec: TensorSpec) -> npt.NDArray[np.int64]:
        """The sums of one tensor as a flat view."""
        begin = self._begins[spec.name]
        return self._sums[begin : begin + spec.elements]

    def quotients(self, begin: int, count: int, *, total_weight: int, scale_bits: int) -> npt.NDArray[np.float64]:
        """The mean of some consecutive elements: sum / (total weight * 2^scaleBits), as in `reference.mean`.

        Args:
            begin: Index of the first sum.
            count: How many.
            total_weight: Sum of the weights of the updates that were folded, at least 1.
            scale_bits: Fixed-point scale of the round.
        """
        quotients = self._sums[begin : begin + count].astype(np.float64)
        quotients /= divisor(total_weight, scale_bits)
        return quotients
