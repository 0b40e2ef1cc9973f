"""How the updates of a round are taken in, and how the next model is made of them: summed up, or spooled to disk.

Used by the writer alone, one step at a time.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import IO, Final, Protocol

import numpy as np
import numpy.typing as npt

from fedjob_aggregator.aggregation.accumulator import Accumulator, flat_begins, runs
from fedjob_aggregator.aggregation.backends import KernelChoice
from fedjob_aggregator.aggregation.clipping import PIECE_ELEMENTS, clip_factor, update_norm
from fedjob_aggregator.checkpoints import CheckpointStore, NewState, file_header
from fedjob_aggregator.events import Attempt
from fedjob_aggregator.nextmodel import (
    Mean,
    MeanSource,
    RobustSource,
    StrategyError,
    next_data,
    read_slot,
    state_data,
    state_manifest,
)
from fedjob_aggregator.spool import Spool, SpooledUpdates
from fedjob_aggregator.staging import Staged
from fedjob_aggregator.strategy import Finding, Floats, MeanStrategy, RobustStrategy, Strategy
from fedjob_protocol.messages import CheckpointInfo, Verdict
from fedjob_protocol.weights import Header, Manifest

PARALLEL_ELEMENTS: Final = 1 << 20
"""From this size on a piece of an update is folded by several threads."""
MOST_FOLDERS: Final = 4
"""So many of them use up the bandwidth of the memory."""

Values = npt.NDArray[np.float32]
Fold = Callable[[int, Values], None]
"""Adds values to the sums from an index on."""
NextModel = tuple[Iterator[memoryview], NewState | None]
"""Data of the next checkpoint, and what the strategy remembers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedUpload:
    """An upload that may be taken in."""

    header: Header
    staged: Staged


def pieces(upload: VerifiedUpload, begins: Mapping[str, int]) -> Iterator[tuple[int, Values]]:
    """The values of an update, each piece with the index of its first element; it is valid until the next is taken.

    Args:
        upload: The update.
        begins: As of `flat_begins`, of the model's tensors.

    Raises:
        OSError: It cannot be read.
    """
    for run in runs(upload.header, begins):
        begin = run.begin
        for block in upload.staged.blocks(run.file_begin, run.file_begin + 4 * run.elements):
            values = np.frombuffer(block, dtype="<f4")
            yield begin, values
            begin += values.size


class Gathering(Protocol):
    """Takes in the updates of one attempt after the other."""

    manifest: Manifest

    def start(self, strategy: Strategy) -> None:
        """Begin an attempt: nothing is gathered.

        Raises:
            OSError: There is no room on disk.
        """

    def add(self, upload: VerifiedUpload, *, client: int, weight: int, scale_bits: int) -> None:
        """Take an update in.

        Raises:
            OSError: It cannot be read or kept; what was gathered is of no use any more.
        """

    @contextmanager
    def next_model(self, attempt: Attempt, base: CheckpointInfo) -> Iterator[NextModel]:
        """Make the next model of what was gathered; may be asked for again after a failure.

        Raises:
            OSError: What it is made of cannot be read.
            StrategyError: The strategy broke its contract.
        """

    def findings(self) -> Mapping[int, Finding]:
        """What is to be said of updates, by client; complete once the data of the next model were taken."""

    def release(self) -> None:
        """Give back what only a round that was committed needed."""

    def stop(self) -> None:
        """It is not used any more."""


class Folding:
    """Adds updates to exact sums: `Gathering` of strategies that begin with the mean.

    Args:
        store: The folder.
        manifest: Tensors of the model.
        kernels: Loops of the fold.
    """

    def __init__(self, store: CheckpointStore, manifest: Manifest, kernels: KernelChoice) -> None:
        self.manifest = manifest
        self._store = store
        self._kernels = kernels
        self._begins = flat_begins(manifest)
        self._accumulator = Accumulator(manifest)
        self._folders_count = min(MOST_FOLDERS, os.cpu_count() or 1)
        self._folders = ThreadPoolExecutor(max_workers=self._folders_count, thread_name_prefix="fold")
        self._strategy: MeanStrategy | None = None
        self._clipped: dict[int, Finding] = {}

    def start(self, strategy: Strategy) -> None:
        """As `Gathering.start`."""
        assert isinstance(strategy, MeanStrategy)
        if self._strategy is not None:
            self._accumulator.reset()
        self._strategy = strategy
        self._clipped = {}

    def add(self, upload: VerifiedUpload, *, client: int, weight: int, scale_bits: int) -> None:
        """As `Gathering.add`."""
        fold = partial(self._accumulator.fold, self._kernels.current, scale_bits=scale_bits, weight=weight)
        factor = self._clip(upload, client)
        for begin, values in pieces(upload, self._begins):
            if factor < 1.0:
                _fold_scaled(fold, begin, values, factor)
            elif values.size < PARALLEL_ELEMENTS:
                fold(begin, values)
            else:
                self._fold_in_parallel(fold, begin, values)

    def _fold_in_parallel(self, fold: Fold, begin: int, values: Values) -> None:
        """Integers, and each sum is one thread's: the result does not depend on how many there are."""
        part = -(-values.size // self._folders_count)
        begins = range(0, values.size, part)
        parts = [values[at : at + part] for at in begins]
        deque(self._folders.map(fold, [begin + at for at in begins], parts), maxlen=0)

    def _clip(self, upload: VerifiedUpload, client: int) -> float:
        limit = None if self._strategy is None else self._strategy.clip_norm
        if limit is None:
            return 1.0
        norm = update_norm(upload.header, upload.staged)
        factor = clip_factor(norm, limit)
        if factor < 1.0:
            self._clipped[client] = Finding(verdict=Verdict.CLIPPED, evidence={"norm": norm, "limit": limit})
        return factor

    @contextmanager
    def next_model(self, attempt: Attempt, base: CheckpointInfo) -> Iterator[NextModel]:
        """As `Gathering.next_model`."""
        assert self._strategy is not None
        mean = Mean(accumulator=self._accumulator, total_weight=attempt.weight, scale_bits=attempt.spec.scale_bits)
        with ExitStack() as opened:
            model = opened.enter_context(self._store.open(base))
            header = file_header(model, base.bytes)
            state = self._next_state(mean, base, opened) if self._strategy.slots else None
            slots = _NewSlots(self._store, attempt.round, state.tensors, opened) if state else None
            yield next_data(MeanSource(mean, self._strategy, slots), model, header), state

    def _next_state(self, mean: Mean, base: CheckpointInfo, opened: ExitStack) -> NewState:
        assert self._strategy is not None
        tensors = state_manifest(self.manifest, self._strategy.slots)
        info = self._store.state_of(base)
        before: tuple[IO[bytes], Header] | None = None
        if info is not None:
            file = opened.enter_context(self._store.open_state(info.round))
            before = file, file_header(file, info.bytes)
            if before[1].manifest != tensors:
                raise StrategyError(f"round {info.round} was committed with other slots than the strategy has now")
        return NewState(tensors, state_data(mean, self._strategy, tensors, before))

    def findings(self) -> Mapping[int, Finding]:
        """As `Gathering.findings`."""
        return self._clipped

    def release(self) -> None:
        """As `Gathering.release`: the sums are kept for the next round."""

    def stop(self) -> None:
        """As `Gathering.stop`."""
        self._folders.shutdown(wait=False, cancel_futures=True)


def _fold_scaled(fold: Fold, begin: int, values: Values, factor: float) -> None:
    """Fold values that are scaled and rounded to float32 first, a piece at a time."""
    for at in range(0, values.size, PIECE_ELEMENTS):
        scaled = values[at : at + PIECE_ELEMENTS].astype(np.float64) * factor
        fold(begin + at, scaled.astype(np.float32))


class _NewSlots:
    """Reads what the strategy is going to remember, once it is written."""

    def __init__(self, store: CheckpointStore, round_number: int, tensors: Manifest, opened: ExitStack) -> None:
        self._store = store
        self._round = round_number
        self._tensors = tensors
        self._opened = opened
        self._state: tuple[IO[bytes], Header] | None = None

    def __call__(self, begin: int, count: int) -> Mapping[str, Floats]:
        if self._state is None:
            file = self._opened.enter_context(self._store.open_state(self._round))
            self._state = file, file_header(file, os.fstat(file.fileno()).st_size)
        return {spec.name: read_slot(*self._state, spec.name, begin, count) for spec in self._tensors.tensors}


class Spooling:
    """Keeps all updates on disk: `Gathering` of strategies that look at all of them.

    Args:
        store: The folder.
        manifest: Tensors of the model.
        kernels: Not used.
    """

    def __init__(self, store: CheckpointStore, manifest: Manifest, kernels: KernelChoice) -> None:  # noqa: ARG002 - as of `Folding`
        self.manifest = manifest
        self._store = store
        self._begins = flat_begins(manifest)
        self._strategy: RobustStrategy | None = None
        self._spool: Spool | None = None
        self._source: RobustSource | None = None

    def start(self, strategy: Strategy) -> None:
        """As `Gathering.start`."""
        assert isinstance(strategy, RobustStrategy)
        self.release()
        self._strategy = strategy
        self._spool = Spool(self._store.staging_folder, self.manifest.elements)

    def add(self, upload: VerifiedUpload, *, client: int, weight: int, scale_bits: int) -> None:  # noqa: ARG002 - each update counts the same
        """As `Gathering.add`."""
        assert self._spool is not None
        self._spool.add(client, pieces(upload, self._begins))

    @contextmanager
    def next_model(self, attempt: Attempt, base: CheckpointInfo) -> Iterator[NextModel]:
        """As `Gathering.next_model`."""
        assert self._spool is not None
        assert self._strategy is not None
        examples = {client: item.examples for client, item in attempt.folded.items()}
        updates = SpooledUpdates(self._spool, examples, self.manifest.elements)
        self._source = RobustSource(updates, self._strategy)
        with self._store.open(base) as model:
            yield next_data(self._source, model, file_header(model, base.bytes)), None

    def findings(self) -> Mapping[int, Finding]:
        """As `Gathering.findings`."""
        return {} if self._source is None else self._source.findings()

    def release(self) -> None:
        """As `Gathering.release`: the disk space goes back."""
        if self._spool is not None:
            self._spool.close()
        self._spool = self._source = None

    def stop(self) -> None:
        """As `Gathering.stop`."""
        self.release()
