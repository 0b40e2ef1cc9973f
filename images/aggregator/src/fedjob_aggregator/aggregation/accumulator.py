"""The sums of one round: a 64-bit integer per element of the model. Used by one thread at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fedjob_aggregator.aggregation.backends import Kernels
from fedjob_aggregator.aggregation.fixed_point import divisor
from fedjob_protocol.errors import FedJobError
from fedjob_protocol.weights import Header, Manifest, TensorSpec

BLOCK_ELEMENTS: Final = 1 << 17
"""Elements of the mean that are computed at a time: 1 MiB of float64."""


class NonFiniteMeanError(FedJobError):
    """A mean is infinite or NaN in the model's type; the model cannot be committed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Elements that are consecutive in an update's file as well as in the sums."""

    file_begin: int
    """Offset in the file, in bytes."""
    sums_begin: int
    """Index of the first sum."""
    elements: int


class Accumulator:
    """Exact weighted sums of the updates of a round.

    The sums lie in the order of the model's tensors by name. Memory: 8 bytes per element, whatever the number of
    updates.

    Args:
        manifest: Tensors of the model.
    """

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self._begins: dict[str, int] = {}
        begin = 0
        for spec in manifest.tensors:
            self._begins[spec.name] = begin
            begin += spec.elements
        self._sums = np.empty(begin, dtype=np.int64)
        self.reset()  # touches the memory now, while clients train, not when the first update is folded

    def reset(self) -> None:
        """Start over at zero."""
        self._sums.fill(0)

    def runs(self, header: Header) -> Iterator[Run]:
        """The longest runs of an update's file that can be folded at once; one for a file in canonical order.

        Args:
            header: Of an update with exactly the tensors of the model, in float32.
        """
        file_begin = sums_begin = elements = 0
        for place in header.placements:
            begin = self._begins[place.spec.name]
            if elements and begin == sums_begin + elements:
                elements += place.spec.elements
                continue
            if elements:
                yield Run(file_begin=file_begin, sums_begin=sums_begin, elements=elements)
            file_begin, sums_begin, elements = header.data_begin + place.begin, begin, place.spec.elements
        if elements:
            yield Run(file_begin=file_begin, sums_begin=sums_begin, elements=elements)

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

    def mean(
        self, spec: TensorSpec, begin: int, base: npt.NDArray[Any], *, total_weight: int, scale_bits: int
    ) -> npt.NDArray[Any]:
        """Part of the next value of one tensor: base + sum / (total weight * 2^scaleBits), as `reference.mean`.

        Args:
            spec: The tensor.
            begin: Index of the part's first element in the flat tensor.
            base: The part in the model that the round started from, flat, in the tensor's type.
            total_weight: Sum of the weights of the updates that were folded, at least 1.
            scale_bits: Fixed-point scale of the round.

        Raises:
            NonFiniteMeanError: The result is not finite in the tensor's type.
        """
        quotient = self.sums(spec)[begin : begin + base.size].astype(np.float64)
        quotient /= divisor(total_weight, scale_bits)
        quotient += base
        with np.errstate(over="ignore"):  # judged below, by name
            result = quotient.astype(spec.dtype.numpy)
        if not np.isfinite(result).all():
            raise NonFiniteMeanError(f"the mean of tensor {spec.name!r} is not finite in {spec.dtype}")
        return result
