"""Examples on a GPU: all of them for as long as the client lives, or piece by piece where they do not fit.

Copies go through page-locked memory on a stream of their own: while one piece is on its way, the next is being
converted to float32, and where examples are streamed a kernel works on the piece before.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numba import cuda

from fedjob_client.cuda.plan import Shape
from fedjob_client.data.dataset import Split
from fedjob_client.errors import DataError
from fedjob_client.trainer import Array

STAGED_BYTES: Final = 32 * 2**20
"""Page-locked memory for one piece; there are two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Examples that lie on the device: the arguments of a launch."""

    examples: Any
    """``(features, n)`` if the shape is narrow, else ``(n, features)``; float32."""
    labels: Any
    order: Any
    """Row numbers to gather, on the device; ``None``: the rows as they lie."""
    count: int


class _Slot:
    """Room for so many examples on the device."""

    def __init__(self, shape: Shape, rows: int, label_type: Any) -> None:
        size = (shape.features, rows) if shape.is_narrow else (rows, shape.features)
        self.examples = cuda.device_array(size, dtype=np.float32)
        self.labels = cuda.device_array(rows, dtype=label_type)
        self.filled = cuda.event()
        self.used = cuda.event()


class _Stage:
    """Page-locked memory for one piece on its way to the device."""

    def __init__(self, shape: Shape, rows: int, label_type: Any) -> None:
        size = (shape.features, rows) if shape.is_narrow else (rows, shape.features)
        self.examples = cuda.pinned_array(size, dtype=np.float32)
        self.labels = cuda.pinned_array(rows, dtype=label_type)
        self.sent = cuda.event()


class Buffers:
    """The examples of one client, and the streams that work on them.

    Args:
        shape: What the kernels are compiled for.
        split: The examples.
        label_type: float32, or int32 for classes.
        capacity: Examples on the device at a time; all of them, or half of what is streamed through.
    """

    def __init__(self, shape: Shape, split: Split, label_type: Any, capacity: int) -> None:
        self.compute = cuda.stream()
        """Where kernels run."""
        self._copy = cuda.stream()
        self._shape, self._split, self._capacity = shape, split, capacity
        self.is_resident = capacity >= len(split)
        """Whether all examples stay on the device."""
        self._slots = [_Slot(shape, capacity, label_type) for _ in range(1 if self.is_resident else 2)]
        self._piece = max(1, min(capacity, STAGED_BYTES // (4 * (shape.features + 1))))
        self._stages = itertools.cycle([_Stage(shape, self._piece, label_type) for _ in range(2)])
        self._order_sent = cuda.event()
        self._order: Any = None
        self._order_staged: Any = None
        if self.is_resident:
            self._fill(self._slots[0], slice(0, len(split)), len(split))
            self._copy.synchronize()
            self._stages = itertools.cycle(())  # the page-locked memory is given back

    def parts(self, rows: Array | None, rows_per_tile: int) -> Iterator[Part]:
        """Have examples on the device, part by part; launch what uses a part on `compute` before asking for the next.

        Args:
            rows: Row numbers; ``None`` is all rows in their order.
            rows_per_tile: All parts but the last are a multiple of it.
        """
        count = len(self._split) if rows is None else len(rows)
        if self.is_resident:
            slot = self._slots[0]
            order = None if rows is None else self._ordered(rows)
            yield Part(examples=slot.examples, labels=slot.labels, order=order, count=count)
            return
        step = self._capacity // rows_per_tile * rows_per_tile
        for begin, slot in zip(range(0, count, step), itertools.cycle(self._slots), strict=False):
            end = min(begin + step, count)
            self._fill(slot, slice(begin, end) if rows is None else rows[begin:end], end - begin)
            slot.filled.wait(self.compute)
            yield Part(examples=slot.examples, labels=slot.labels, order=None, count=end - begin)
            slot.used.record(self.compute)

    def _ordered(self, rows: Array) -> Any:
        """Row numbers on the device; the memory is that of the largest batch so far."""
        if self._order is None or self._order.shape[0] < len(rows):
            self._order = cuda.device_array(len(rows), dtype=np.int32)
            self._order_staged = cuda.pinned_array(len(rows), dtype=np.int32)
        self._order_sent.synchronize()
        self._order_staged[: len(rows)] = rows
        self._order[: len(rows)].copy_to_device(self._order_staged[: len(rows)], stream=self.compute)
        self._order_sent.record(self.compute)
        return self._order

    def _fill(self, slot: _Slot, rows: Any, count: int) -> None:
        """Copy examples into a slot once whatever used it is done.

        Raises:
            DataError: A value does not fit into float32.
        """
        slot.used.wait(self._copy)
        x, y = self._split.x, self._split.y
        for begin in range(0, count, self._piece):
            size = min(self._piece, count - begin)
            stage = next(self._stages)
            stage.sent.synchronize()
            if isinstance(rows, slice):
                chosen: Any = slice(rows.start + begin, rows.start + begin + size)
            else:
                chosen = rows[begin : begin + size]
            try:
                with np.errstate(over="raise"):
                    if self._shape.is_narrow:
                        stage.examples[:, :size] = x[chosen].T
                    else:
                        stage.examples[:size] = x[chosen]
                    stage.labels[:size] = y[chosen]
            except FloatingPointError:
                raise DataError(
                    "the data have values beyond float32, which a GPU computes in: use device CPU"
                ) from None
            self._send(slot, stage, begin, size)
        slot.filled.record(self._copy)

    def _send(self, slot: _Slot, stage: _Stage, begin: int, size: int) -> None:
        end = begin + size
        if self._shape.is_narrow:
            for j in range(self._shape.features):
                slot.examples[j, begin:end].copy_to_device(stage.examples[j, :size], stream=self._copy)
        else:
            slot.examples[begin:end].copy_to_device(stage.examples[:size], stream=self._copy)
        slot.labels[begin:end].copy_to_device(stage.labels[:size], stream=self._copy)
        stage.sent.record(self._copy)
