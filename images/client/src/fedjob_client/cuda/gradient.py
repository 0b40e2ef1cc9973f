"""The gradient of a regression over examples that lie on a GPU; see `kernels` for how it is computed.

**Bound.** With u = 2⁻²⁴, n examples, d features and r the examples that a thread sums in float32 (at most 64 with one
score and up to 32 features, else the threads of a block, at most 128), each component differs from the exact gradient
of the mean loss by at most ``K · u · 1/n · Σ |x_ij| m_i`` with ``K = d + r + 16``. There m_i bounds what an example's
derivative is made of: ``2 (|y_i| + Σ|x_ik w_k| + |b|)`` for linear, ``1 + Σ|x_ik w_kc| + |b_c|`` (its largest over the
classes) for logistic and softmax regression. It covers the rounding of x, y and the parameters to float32. The NumPy
reference is within its own, smaller bound (linear, float64) or one like this (float32).
"""

from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numba import cuda

from fedjob_client.cuda.buffers import Buffers, Part
from fedjob_client.cuda.faults import named
from fedjob_client.cuda.kernels import gradient_kernel, reduction_kernel
from fedjob_client.cuda.plan import METRICS, Shape, most_tiles, tiling_of
from fedjob_client.data.dataset import Split
from fedjob_client.errors import DataError, GpuOutOfMemoryError
from fedjob_client.models.model import Sums
from fedjob_client.trainer import Array, Params

FACTORS: Final = MappingProxyType({"linear": 2.0, "logistic": 1.0, "softmax": 1.0})
"""What the derivative of an example's loss has in front, by the name of the model."""
SMALL_OUTPUTS: Final = 64
"""Up to so many outputs the tiles are added by few blocks of many lanes."""


class GpuGradient:
    """Gradients of a model over the examples of one client.

    The examples are copied to the GPU once and stay there. Where they do not fit, or memory runs out later, they are
    streamed through a smaller and smaller part of it; the results keep their bits (see `plan`).

    Args:
        link: ``linear``, ``logistic`` or ``softmax``.
        split: Examples, rows of features; labels are classes except for ``linear``.
        shape: What the kernels are compiled for.
        capacity: At most so many examples on the GPU at a time; default all.

    Raises:
        DataError: A value does not fit into float32, or a label is no class.
        GpuOutOfMemoryError: Not even one tile of examples fits.
        GpuFailedError: A kernel or the GPU failed.
    """

    def __init__(self, link: str, split: Split, shape: Shape, *, capacity: int | None = None) -> None:
        classes = max(shape.classes, 2)
        if link != "linear" and len(split) and (split.y.min() < 0 or split.y.max() >= classes):
            raise DataError(
                f"the data have labels from {split.y.min()} to {split.y.max()}, the model {classes} classes"
            )
        self._link, self._split, self._shape = link, split, shape
        self._smallest = tiling_of(shape, len(split)).rows_per_tile
        self._capacity = self._whole_tiles(capacity or len(split))
        self._held: _Held | None = None

    @property
    def capacity(self) -> int:
        """Examples that are on the GPU at a time."""
        return self._capacity

    @property
    def is_resident(self) -> bool:
        """Whether all examples stay on the GPU."""
        return self._capacity >= len(self._split)

    def __call__(self, params: Params, out: Params, rows: Array | None = None) -> Sums:
        """Write the gradient of the mean loss to ``out``.

        Args:
            params: ``w`` and ``b``.
            out: Arrays like ``params``; overwritten.
            rows: Row numbers of a batch; ``None`` is all examples.

        Returns:
            Sums of loss and right answers at ``params``.

        Raises:
            GpuOutOfMemoryError: Not even one tile of examples fits.
            GpuFailedError: A kernel or the GPU failed.
        """
        totals = self._totals(params, rows)
        count = len(self._split) if rows is None else len(rows)
        found = totals[:-METRICS].reshape(self._shape.features + 1, self._shape.classes) * (FACTORS[self._link] / count)
        out["w"][...] = found[:-1].reshape(out["w"].shape)
        out["b"][...] = found[-1]
        right = totals[-1]
        return Sums(float(totals[-2]), int(right) if np.isfinite(right) else 0)

    def _totals(self, params: Params, rows: Array | None) -> Array:
        while True:
            try:
                with named(f"training {self._link} regression on the GPU"):
                    if self._held is None:
                        self._held = _Held(self._link, self._split, self._shape, self._capacity)
                    found: Array = self._held.totals(params, rows)
                    return found
            except GpuOutOfMemoryError as error:
                self._held = None
                self._shrink(error)

    def _shrink(self, error: GpuOutOfMemoryError) -> None:
        """Hold half as much on the GPU; raises if that would be nothing."""
        if self._capacity <= self._smallest:
            needed = self._smallest * (self._shape.features + 1) * 4 * 2
            raise GpuOutOfMemoryError(
                f"the GPU has no room for {self._smallest} examples at a time ({needed} bytes beside what the kernels "
                "need): other programs fill it; give the client a GPU of its own, or fewer features"
            ) from error
        self._capacity = self._whole_tiles(self._capacity // 2)

    def _whole_tiles(self, rows: int) -> int:
        """At least one tile, and no part of one unless it is everything."""
        if rows >= len(self._split):
            return len(self._split)
        return max(rows // self._smallest, 1) * self._smallest


class _Held:
    """What lies on the GPU between two gradients, and the launches that use it."""

    def __init__(self, link: str, split: Split, shape: Shape, capacity: int) -> None:
        self._link, self._shape, self._examples = link, shape, len(split)
        label_type = np.int32 if link == "softmax" else np.float32
        tiles = most_tiles(shape, len(split))
        self._partials = cuda.device_array((tiles, shape.outputs), dtype=np.float64)
        self._totals = cuda.device_array(shape.outputs, dtype=np.float64)
        self._params = cuda.device_array((shape.features + 1, shape.classes), dtype=np.float32)
        self._no_order = cuda.device_array(1, dtype=np.int32)
        self._params_staged = cuda.pinned_array((shape.features + 1, shape.classes), dtype=np.float32)
        self._totals_staged = cuda.pinned_array(shape.outputs, dtype=np.float64)
        self._buffers = Buffers(shape, split, label_type, capacity)

    def totals(self, params: Params, rows: Array | None) -> Any:
        """Sums over examples, before any factor; valid until the next call."""
        stream = self._buffers.compute
        tiling = tiling_of(self._shape, self._examples if rows is None else len(rows))
        self._params_staged[:-1] = params["w"].reshape(self._shape.features, self._shape.classes)
        self._params_staged[-1] = params["b"]
        self._params.copy_to_device(self._params_staged, stream=stream)
        tile = 0
        for part in self._buffers.parts(rows, tiling.rows_per_tile):
            tile += self._launch(part, tiling.rows_per_tile, tile)
        self._add_tiles(tile)
        self._totals.copy_to_host(self._totals_staged, stream=stream)
        stream.synchronize()
        return self._totals_staged

    def _launch(self, part: Part, rows_per_tile: int, first_tile: int) -> int:
        """Launch the kernel over a part; returns how many tiles it fills."""
        kernel = gradient_kernel(self._link, self._shape, gathers=part.order is not None)
        order: Any = self._no_order if part.order is None else part.order
        tiles = -(-part.count // rows_per_tile)
        kernel[tiles, self._shape.threads, self._buffers.compute](
            part.examples, part.labels, order, self._params, self._partials, part.count, rows_per_tile, first_tile
        )
        return tiles

    def _add_tiles(self, tiles: int) -> None:
        outputs = self._shape.outputs
        width, lanes = (16, 64) if outputs <= SMALL_OUTPUTS else (32, 8)
        if self._shape.threads < 32:  # on a simulator a thread is dear
            width, lanes = min(width, outputs, 8), 2
        reduce = reduction_kernel(width, lanes)
        reduce[-(-outputs // width), (width, lanes), self._buffers.compute](self._partials, tiles, self._totals)
