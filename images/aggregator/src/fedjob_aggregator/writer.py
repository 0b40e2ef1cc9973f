"""The only one who touches sums, spool and folder: one step after the other, in the order in which they are asked for.

Steps on the sums of a small model run at once on the event loop, where they take less time than the way to a thread;
what waits for the disk and the steps of a large model run in one thread. Called on the event loop only.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import TypeVar

from fedjob_aggregator.aggregation.backends import SMALL_MODEL_BYTES, KernelChoice
from fedjob_aggregator.checkpoints import CheckpointStore
from fedjob_aggregator.events import Attempt, Fold
from fedjob_aggregator.gathering import Folding, Gathering, Spooling, VerifiedUpload
from fedjob_aggregator.nextmodel import initial_data
from fedjob_aggregator.strategies import Strategies
from fedjob_aggregator.strategy import RobustStrategy, Strategy
from fedjob_aggregator.views import make_record
from fedjob_protocol.messages import CheckpointInfo, RoundRecord, RoundSpec

T = TypeVar("T")


class Writer:
    """Performs folds and commits. Every method has its place in the order when it is called, not when it is awaited.

    Args:
        store: The folder.
        kernels: Loops of the fold.
        fingerprint: What the bits may depend on, for the records.
        wall_clock: The time of day, for the records.
        strategies: Those that there are; ``None``: the installed ones.
    """

    def __init__(
        self,
        store: CheckpointStore,
        kernels: KernelChoice,
        *,
        fingerprint: dict[str, str],
        wall_clock: Callable[[], datetime],
        strategies: Strategies | None = None,
    ) -> None:
        self._store = store
        self._kernels = kernels
        self._fingerprint = fingerprint
        self._wall_clock = wall_clock
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer")
        self._strategies = strategies or Strategies()
        self._gathering: Gathering | None = None
        self._initial: VerifiedUpload | None = None
        self._releasing: asyncio.Future[None] | None = None
        self._waiting = 0

    def strategy(self, spec: RoundSpec) -> Strategy:
        """The strategy of a round.

        Raises:
            Refusal: ``bad-request``: there is none of this name, or it cannot be used so.
        """
        return self._strategies.of_round(spec)

    def start_attempt(self, spec: RoundSpec) -> "asyncio.Future[None]":
        """Drop what was gathered in the attempt before.

        Raises (when awaited):
            MemoryError: There is no room for the sums.
            OSError: There is no room for the spool.
        """
        self.drop_initial()
        strategy = self.strategy(spec)
        return self._soon(lambda: self._reset(strategy))

    def fold(self, upload: VerifiedUpload, fold: Fold, *, scale_bits: int) -> "asyncio.Future[None]":
        """Take an upload in, as the strategy wants it; in round 0, keep it as the initial model.

        Raises (when awaited):
            OSError: It cannot be read or kept; what was gathered is of no use any more.
        """
        if fold.round == 0:
            self._initial = upload
            return _done(None)
        return self._soon(lambda: self._add(upload, fold, scale_bits))

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

    def release(self) -> None:
        """Give back, in its turn, what only a round that is committed or given up needed."""
        self._releasing = self._soon(self._release)

    def stop(self) -> None:
        """Start nothing further; what is under way goes on."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        if self._gathering is not None:
            self._gathering.stop()

    def _soon(self, action: Callable[[], None]) -> "asyncio.Future[None]":
        """A step on what is gathered: at once, if it is short and nothing is under way."""
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

    def _reset(self, strategy: Strategy) -> None:
        tensors = self._store.tensors
        if tensors is None:
            return
        kind = Spooling if isinstance(strategy, RobustStrategy) else Folding
        if self._gathering is not None and not (type(self._gathering) is kind and self._gathering.manifest == tensors):
            self._gathering.stop()
            self._gathering = None
        if self._gathering is None:
            self._gathering = kind(self._store, tensors, self._kernels)
        self._gathering.start(strategy)

    def _add(self, upload: VerifiedUpload, fold: Fold, scale_bits: int) -> None:
        assert self._gathering is not None
        self._gathering.add(upload, client=fold.client, weight=fold.weight, scale_bits=scale_bits)

    def _release(self) -> None:
        if self._gathering is not None:
            self._gathering.release()

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
                findings={} if self._gathering is None or attempt.round == 0 else self._gathering.findings(),
            )

        header, spec = self._store.header, attempt.spec
        if header is None:
            assert self._initial is not None
            data = initial_data(self._initial.staged, self._initial.header)
            return self._store.commit(attempt.round, self._initial.header.manifest, data, record, term=term)
        base = None if spec.base is None else self._store.base(spec.base)
        assert base is not None
        assert self._gathering is not None
        with self._gathering.next_model(attempt, base) as (data, state):
            return self._store.commit(
                attempt.round, header.manifest, data, record, term=term, state=state, base=spec.base
            )


def _done(result: T) -> "asyncio.Future[T]":
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    future.set_result(result)
    return future


def _failed(error: Exception) -> "asyncio.Future[None]":
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.set_exception(error)
    return future
