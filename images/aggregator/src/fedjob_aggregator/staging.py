"""Where uploads wait until they are verified: memory within a budget, otherwise a file without a name.

A `Sink` is filled on the event loop and emptied, block by block, by one worker thread at a time; `Staged` is what is
left when it is full: bytes that can be read again, once, by the thread that folds.
"""

import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import IO, Final, Protocol

import numpy as np

MEMORY_BLOCK_BYTES: Final = 4 << 20
"""Bytes that are verified at a time while the rest is still arriving."""
DISK_BLOCK_BYTES: Final = 1 << 20
"""Two blocks of this size are the memory that an upload needs when it is staged on disk."""
READ_BLOCK_BYTES: Final = 4 << 20
MINIMUM_BUDGET_BYTES: Final = 64 << 20
"""Budget while no model is known, and for small models: twenty tiny updates at once shall not go to disk."""
MAPPED_AHEAD_BYTES: Final = 16 << 20
"""From this size on it matters how long memory takes to be mapped, and how much of it there is."""
WORD_BYTES: Final = 8
"""Blocks are cut at multiples of this, so that no value lies across two."""


class Staged(Protocol):
    """A body that arrived completely."""

    total_bytes: int

    def blocks(self, begin: int, end: int) -> Iterator[memoryview]:
        """The bytes from ``begin`` to ``end``; each block is valid until the next one is taken."""

    def close(self) -> None:
        """Give memory or disk space back; may be called twice."""


class Sink(Staged, Protocol):
    """A body that is arriving."""

    def space(self) -> memoryview:
        """Where the next bytes go; empty while all blocks are full."""

    def advance(self, count: int) -> None:
        """The next ``count`` bytes were written to `space`."""

    def take(self) -> memoryview | None:
        """The next block to work on, if one is full; `store` and `release` it before the next is taken."""

    def store(self, block: memoryview) -> None:
        """Keep a block that was taken; called in a worker thread.

        Raises:
            OSError: The disk is full, for example.
        """

    def release(self) -> None:
        """The block that was taken last may be written over."""


class HeldBytes:
    """A small body in one piece, received before it is looked at."""

    def __init__(self, body: bytes) -> None:
        self.total_bytes = len(body)
        self._body = memoryview(body)

    def blocks(self, begin: int, end: int) -> Iterator[memoryview]:
        """As `Staged.blocks`."""
        yield self._body[begin:end]

    def close(self) -> None:
        """As `Staged.close`."""


class MemorySink:
    """A body in one piece of memory that goes back to its area."""

    def __init__(self, area: "StagingArea", memory: memoryview, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self._area: StagingArea | None = area
        self._memory = memory
        self._received = 0
        self._taken = 0

    def space(self) -> memoryview:
        """As `Sink.space`."""
        return self._memory[self._received : self.total_bytes]

    def advance(self, count: int) -> None:
        """As `Sink.advance`."""
        self._received += count

    def take(self) -> memoryview | None:
        """As `Sink.take`."""
        waiting = self._received - self._taken
        if self._received < self.total_bytes:
            if waiting < MEMORY_BLOCK_BYTES:
                return None
            waiting -= waiting % WORD_BYTES
        elif not waiting:
            return None
        block = self._memory[self._taken : self._taken + waiting]
        self._taken += waiting
        return block

    def store(self, block: memoryview) -> None:
        """As `Sink.store`: it is where it belongs already."""

    def release(self) -> None:
        """As `Sink.release`."""

    def blocks(self, begin: int, end: int) -> Iterator[memoryview]:
        """As `Staged.blocks`."""
        yield self._memory[begin:end]

    def close(self) -> None:
        """As `Staged.close`."""
        if self._area is not None:
            self._area.give_back(self._memory)
            self._area = None


class DiskSink:
    """A body on its way through two blocks of memory into a file that has no name, so that no crash leaves it behind.

    Raises:
        OSError: The file cannot be made.
    """

    def __init__(self, folder: Path, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - closed by `close`
        self._free = deque(memoryview(bytearray(min(DISK_BLOCK_BYTES, total_bytes))) for _ in range(2))
        self._full: deque[tuple[memoryview, int]] = deque()
        self._taken: memoryview | None = None
        self._filled = 0
        self._received = 0

    def space(self) -> memoryview:
        """As `Sink.space`."""
        if not self._free:
            return memoryview(b"")
        return self._free[0][self._filled : self._filled + self.total_bytes - self._received]

    def advance(self, count: int) -> None:
        """As `Sink.advance`."""
        self._filled += count
        self._received += count
        if self._filled == len(self._free[0]) or self._received == self.total_bytes:
            self._full.append((self._free.popleft(), self._filled))
            self._filled = 0

    def take(self) -> memoryview | None:
        """As `Sink.take`."""
        if not self._full:
            return None
        self._taken, filled = self._full.popleft()
        return self._taken[:filled]

    def store(self, block: memoryview) -> None:
        """As `Sink.store`."""
        while block:
            block = block[self._file.write(block) :]

    def release(self) -> None:
        """As `Sink.release`."""
        if self._taken is not None:
            self._free.append(self._taken)
            self._taken = None

    def blocks(self, begin: int, end: int) -> Iterator[memoryview]:
        """As `Staged.blocks`.

        Raises:
            OSError: The file cannot be read.
        """
        yield from read_blocks(self._file, begin, end)

    def close(self) -> None:
        """As `Staged.close`."""
        self._file.close()


class StagingArea:
    """Hands out sinks: in memory as long as the budget lasts, on disk beyond. Used on the event loop only.

    One piece of memory is mapped ahead and kept for the next upload, as the first touch of fresh memory costs as much
    as receiving into it.

    Args:
        folder: Where files go; beside the checkpoints, so that there is room for a model.
        budget_bytes: Memory for bodies on their way; ``None``: one update of the model, at least 64 MiB.
    """

    def __init__(self, folder: Path, budget_bytes: int | None) -> None:
        self._folder = folder
        self._fixed_budget = budget_bytes
        self._budget = MINIMUM_BUDGET_BYTES if budget_bytes is None else budget_bytes
        self._used = 0
        self._spare: memoryview | None = None
        self._mapping: Future[memoryview] | None = None

    def expect(self, update_bytes: int) -> Callable[[], None]:
        """The size of updates became known.

        Args:
            update_bytes: Longest update.

        Returns:
            Maps memory for the first update; to be called in another thread, once. Until then no large update is staged
            in memory, so that its caller decides when the memory may be taken.
        """
        if self._fixed_budget is None:
            self._budget = max(MINIMUM_BUDGET_BYTES, update_bytes)
        if not MAPPED_AHEAD_BYTES <= update_bytes <= self._budget or self._used:
            return lambda: None
        mapping: Future[memoryview] = Future()
        self._spare, self._mapping = None, mapping
        return lambda: mapping.set_result(_mapped_memory(update_bytes))

    def open(self, total_bytes: int) -> MemorySink | DiskSink:
        """A sink for a body of this length.

        Raises:
            OSError: It does not fit into memory, and the file cannot be made.
        """
        self._collect()
        if self._spare is not None and len(self._spare) >= total_bytes:
            memory, self._spare = self._spare, None
        elif self._mapping is None and self._used + total_bytes <= self._budget:
            self._spare = None
            memory = np.empty(total_bytes, dtype=np.uint8).data
        else:
            return DiskSink(self._folder, total_bytes)
        self._used += len(memory)
        return MemorySink(self, memory, total_bytes)

    def give_back(self, memory: memoryview) -> None:
        """The memory of a sink is free again."""
        self._used -= len(memory)
        if self._spare is None or len(self._spare) < len(memory):
            self._spare = memory

    def _collect(self) -> None:
        """Take the memory that was mapped ahead; until it is there, it counts as used."""
        if self._mapping is not None and self._mapping.done():
            self._spare, self._mapping = self._mapping.result(), None


def _mapped_memory(total_bytes: int) -> memoryview:
    memory = np.empty(total_bytes, dtype=np.uint8)
    memory.fill(0)
    return memory.data


def read_blocks(file: IO[bytes], begin: int, end: int, block_bytes: int = READ_BLOCK_BYTES) -> Iterator[memoryview]:
    """Read part of a file block by block; each block is valid until the next one is taken.

    Raises:
        OSError: The file cannot be read, or is shorter.
    """
    memory = memoryview(bytearray(min(block_bytes, end - begin)))
    file.seek(begin)
    while begin < end:
        block = memory[: min(len(memory), end - begin)]
        filled = 0
        while filled < len(block):
            count = file.readinto(block[filled:])  # type: ignore[attr-defined]  # raw and buffered files have it
            if not count:
                raise OSError(f"the file ends at byte {begin + filled}, {end} were expected")
            filled += count
        yield block
        begin += len(block)
