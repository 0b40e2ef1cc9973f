"""The only one who touches the sums and the folder: one step after the other, in the order in which they are asked for.

Steps on the sums of a small model run at once on the event loop, where they take less time than the way to a thread;
what waits for the disk and the steps of a large model run in one thread. Called on the event loop only.
"""

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final, TypeVar

import numpy as np

from fedjob_aggregator.aggregation.accumulator import Accumulator
from fedjob_aggregator.aggregation.backends import SMALL_MODEL_BYTES, KernelChoice
from fedjob_aggregator.checkpoints import CheckpointStore
from fedjob_aggregator.events import Attempt
from fedjob_aggregator.nextmodel import initial_data, mean_data
from fedjob_aggregator.staging import Staged
from fedjob_aggregator.views import make_record
from fedjob_protocol.messages import CheckpointInfo, RoundRecord
from fedjob_protocol.weights import Header, Manifest

T = TypeVar("T")

PARALLEL_ELEMENTS: Final = 1 << 20
"""From this size on a piece of an update is folded by several threads."""
MOST_FOLDERS: Final = 4
"""So many of them use up the bandwidth of the memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedUpload:
    """An upload that may be folded."""

    header: Header
    staged: Staged


class Writer:
    """Performs folds and commits. Every method has its place in the order when it is called, not when it is awaited.

    Args:
        store: The folder.
        kernels: Loops of the fold.
        fingerprint: What the bits may depend on, for the records.
        wall_clock: The time of day, for the records.
    """

    def __init__(
        self,
        store: CheckpointStore,
        kernels: KernelChoice,
        *,
        fingerprint: dict[str, str],
        wall_clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._kernels = kernels
        self._fingerprint = fingerprint
        self._wall_clock = wall_clock
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer")
        self._folders_count = min(MOST_FOLDERS, os.cpu_count() or 1)
        self._folders = ThreadPoolExecutor(max_workers=self._folders_count, thread_name_prefix="fold")
        self._accumulator: Accumulator | None = None
        self._initial: VerifiedUpload | None = None
        self._waiting = 0

    def start_attempt(self) -> "asyncio.Future[None]":
        """Drop the sums of the attempt before.

        Raises (when awaited):
            MemoryError: There is no room for the sums.
        """
        self.drop_initial()
        return self._soon(self._reset)

    def fold(
        self, upload: VerifiedUpload, *, round_number: int, scale_bits: int, weight: int
    ) -> "asyncio.Future[None]":
        """Add an upload to the sums; in round 0, keep it as the initial model.

        Raises (when awaited):
            OSError: What was staged on disk cannot be read; the sums are of no use any more.
        """
        if round_number == 0:
            self._initial = upload
            return _done(None)
        return self._soon(lambda: self._fold(upload, scale_bits, weight))

    def commit(self, attempt: Attempt, *, term: int | None = None) -> "asyncio.Future[RoundRecord]":
        """Write the next checkpoint and its record.

        Args:
            attempt: What is committed.
            term: As of `CheckpointStore.commit`.

        Raises (when awaited):
            OSError: The storage refuses; may be tried again.
            FedJobError: The model cannot be committed.
        """
        return self._later(lambda: self._commit(attempt, term))

    def perform(self, action: Callable[[], T]) -> "asyncio.Future[T]":
        """Do something with the folder in its turn.

        Raises (when awaited):
            Exception: What the action raises.
        """
        return self._later(action)

    def keep(self, record: RoundRecord) -> "asyncio.Future[None]":
        """Close the record of the last round.

        Raises (when awaited):
            OSError: The storage refuses; may be tried again.
        """
        return self._later(lambda: self._store.keep(record))

    def claim(self, job_uid: str, term: int) -> "asyncio.Future[None]":
        """Remember job and term durably.

        Raises (when awaited):
            OSError: The storage refuses; may be tried again.
        """
        return self._later(lambda: self._store.claim(job_uid, term))

    def drop_initial(self) -> None:
        """Give back what the initial model was staged in."""
        if self._initial is not None:
            self._initial.staged.close()
            self._initial = None

    def stop(self) -> None:
        """Start nothing further; what is under way goes on."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._folders.shutdown(wait=False, cancel_futures=True)

    def _soon(self, action: Callable[[], None]) -> "asyncio.Future[None]":
        """A step on the sums: at once, if it is short and nothing is under way."""
        tensors = self._store.tensors
        if self._waiting or (tensors is not None and 4 * tensors.elements >= SMALL_MODEL_BYTES):
            return self._later(action)
        try:
            action()
        except (OSError, MemoryError) as error:
            return _failed(error)
        return _done(None)

    def _later(self, action: Callable[[], T]) -> "asyncio.Future[T]":
        self._waiting += 1
        future = asyncio.get_running_loop().run_in_executor(self._thread, action)
        future.add_done_callback(self._finished)
        return future

    def _finished(self, _future: object) -> None:
        self._waiting -= 1

    # In the thread, or on the event loop while the thread has nothing to do

    def _reset(self) -> None:
        tensors = self._store.tensors
        if tensors is None:
            return
        if self._accumulator is None or self._accumulator.manifest != tensors:
            self._accumulator = Accumulator(tensors)
        else:
            self._accumulator.reset()

    def _fold(self, upload: VerifiedUpload, scale_bits: int, weight: int) -> None:
        accumulator = self._accumulator
        assert accumulator is not None
        fold = partial(accumulator.fold, self._kernels.current, scale_bits=scale_bits, weight=weight)
        for run in accumulator.runs(upload.header):
            begin = run.sums_begin
            for block in upload.staged.blocks(run.file_begin, run.file_begin + 4 * run.elements):
                values = np.frombuffer(block, dtype="<f4")
                if values.size < PARALLEL_ELEMENTS:
                    fold(begin, values)
                else:  # integers, and each sum is one thread's: the result does not depend on how many there are
                    part = -(-values.size // self._folders_count)
                    begins = range(0, values.size, part)
                    parts = [values[at : at + part] for at in begins]
                    deque(self._folders.map(fold, [begin + at for at in begins], parts), maxlen=0)
                begin += values.size

    def _commit(self, attempt: Attempt, term: int | None) -> RoundRecord:
        started = time.monotonic()

        def record(info: CheckpointInfo) -> RoundRecord:
            return make_record(
                attempt,
                digest=info.digest,
                parent=info.parent,
                model_bytes=info.bytes,
                committed_at=self._wall_clock(),
                commit_seconds=time.monotonic() - started,
                fingerprint=self._fingerprint,
            )

        with ExitStack() as opened:
            tensors, data = self._next_model(attempt, opened)
            return self._store.commit(attempt.round, tensors, data, record, term=term)

    def _next_model(self, attempt: Attempt, opened: ExitStack) -> tuple[Manifest, Iterator[memoryview]]:
        header, committed = self._store.header, self._store.manifest.committed
        if header is None or committed is None:
            assert self._initial is not None
            return self._initial.header.manifest, initial_data(self._initial.staged, self._initial.header)
        assert self._accumulator is not None
        base = opened.enter_context(self._store.open(committed))
        data = mean_data(
            self._accumulator, base, header, total_weight=attempt.weight, scale_bits=attempt.spec.scale_bits
        )
        return header.manifest, data


def _done(result: T) -> "asyncio.Future[T]":
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    future.set_result(result)
    return future


def _failed(error: Exception) -> "asyncio.Future[None]":
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.set_exception(error)
    return future
