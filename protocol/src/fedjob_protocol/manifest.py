"""The tensors of a model by name, type and shape, and where the canonical file has them. No values."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from itertools import pairwise
from math import prod
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fedjob_protocol.errors import Refusal, Word, quote

Array: TypeAlias = npt.NDArray[np.float32] | npt.NDArray[np.float64]


class DType(StrEnum):
    """Types of tensors that can be averaged."""

    F32 = "F32"
    F64 = "F64"

    @property
    def numpy(self) -> np.dtype[Any]:
        """The little-endian NumPy type."""
        return np.dtype("<f4") if self is DType.F32 else np.dtype("<f8")

    @property
    def bytes(self) -> int:
        """Size of one element."""
        return 4 if self is DType.F32 else 8


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """Name, type and shape of one tensor."""

    name: str
    dtype: DType
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Number of elements; 1 for a scalar."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size of the data."""
        return self.elements * self.dtype.bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where one tensor lies in the data section: bytes ``begin`` to ``end``."""

    spec: TensorSpec
    begin: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The tensors of a model or a delta, ordered by name.

    Raises:
        ValueError: The names are not ordered or not unique; `Manifest.of` orders them.
    """

    tensors: tuple[TensorSpec, ...]

    def __post_init__(self) -> None:
        names = [tensor.name for tensor in self.tensors]
        if any(first >= second for first, second in pairwise(names)):
            raise ValueError("manifest: names must be unique and in order")

    @classmethod
    def of(cls, tensors: Iterable[TensorSpec]) -> "Manifest":
        """Manifest of tensors in any order."""
        return cls(tensors=tuple(sorted(tensors, key=lambda tensor: tensor.name)))

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, Array]) -> "Manifest":
        """Manifest of arrays in memory.

        Raises:
            Refusal: ``wrong-dtype``: an array is neither float32 nor float64.
        """
        return cls.of(
            TensorSpec(name=name, dtype=_dtype_of(name, array), shape=tuple(array.shape))
            for name, array in arrays.items()
        )

    @cached_property
    def elements(self) -> int:
        """Number of elements of all tensors."""
        return sum(tensor.elements for tensor in self.tensors)

    @cached_property
    def total_bytes(self) -> int:
        """Size of the data of all tensors, without the header."""
        return sum(tensor.nbytes for tensor in self.tensors)

    @cached_property
    def placements(self) -> tuple[Placement, ...]:
        """Where the canonical writer puts the data: wide types first, so that all are aligned, then by name."""
        placements, begin = [], 0
        for spec in sorted(self.tensors, key=lambda tensor: (-tensor.dtype.bytes, tensor.name)):
            placements.append(Placement(spec=spec, begin=begin, end=begin + spec.nbytes))
            begin += spec.nbytes
        return tuple(placements)

    def as_delta(self) -> "Manifest":
        """The manifest of an update of this model: the same tensors, all in float32."""
        return Manifest(
            tensors=tuple(TensorSpec(name=spec.name, dtype=DType.F32, shape=spec.shape) for spec in self.tensors)
        )


def compare_manifest(expected: Manifest, got: Manifest) -> None:
    """Check that a file has exactly the expected tensors.

    Raises:
        Refusal: ``wrong-names``, ``wrong-dtype`` or ``wrong-shape``, naming the first tensor that differs.
    """
    if expected == got:
        return
    wanted = {tensor.name: tensor for tensor in expected.tensors}
    seen = {tensor.name for tensor in got.tensors}
    missing = [name for name in wanted if name not in seen]
    unknown = [name for name in seen if name not in wanted]
    if missing or unknown:
        raise Refusal(
            Word.WRONG_NAMES,
            f"{len(missing)} tensors are missing{_examples(missing)}, "
            f"{len(unknown)} are not in the model{_examples(sorted(unknown))}",
        )
    for tensor in got.tensors:
        want = wanted[tensor.name]
        if tensor.dtype is not want.dtype:
            raise Refusal(Word.WRONG_DTYPE, f"tensor {quote(tensor.name)} is {tensor.dtype}, {want.dtype} is expected")
        if tensor.shape != want.shape:
            raise Refusal(
                Word.WRONG_SHAPE,
                f"tensor {quote(tensor.name)} has shape {list(tensor.shape)}, {list(want.shape)} is expected",
            )


def wrong_dtype(name: str, seen: str) -> Refusal:
    """The refusal of a tensor that cannot be averaged."""
    return Refusal(
        Word.WRONG_DTYPE,
        f"tensor {quote(name)} is {seen}; models are F32 or F64: keep integer, half and boolean tensors, "
        "such as counters, in the client, or convert them to F32",
    )


def _dtype_of(name: str, array: Array) -> DType:
    if array.dtype.kind == "f" and array.dtype.itemsize in {4, 8}:
        return DType.F32 if array.dtype.itemsize == 4 else DType.F64
    raise wrong_dtype(name, str(array.dtype))


def _examples(names: list[str]) -> str:
    return f" (such as {', '.join(quote(name) for name in names[:3])})" if names else ""
