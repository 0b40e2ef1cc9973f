"""What can be asked of the service; the part of it that changes nothing."""

import asyncio
import time
from contextlib import suppress
from typing import Final

from fedjob_aggregator.checkpoints import CheckpointStore
from fedjob_aggregator.events import State
from fedjob_aggregator.replacements import Replacements
from fedjob_aggregator.views import committed_view, current_view, overview
from fedjob_protocol.errors import Refusal, Word
from fedjob_protocol.messages import AggregatorState, CheckpointInfo, RoundView
from fedjob_protocol.round import RoundState

LONGEST_WAIT_SECONDS: Final = 60.0
_CHANGING: Final = frozenset({RoundState.OPEN, RoundState.COMMITTING})


class Reading:
    """Answers questions about the state.

    Args:
        store: The folder, open.
        state: What is known at first.
        replacements: Clients that somebody had replaced.
    """

    def __init__(self, store: CheckpointStore, state: State, replacements: Replacements) -> None:
        self.store = store
        self.replacements = replacements
        self._state = state
        self._changed = asyncio.Event()
        self._stopping = False

    @property
    def state(self) -> State:
        """The machine's state; frozen."""
        return self._state

    def view(self, round_number: int) -> RoundView:
        """Where a round is.

        Raises:
            Refusal: ``not-found``.
        """
        view, replaced = self._view(round_number), self.replacements.listed().clients
        return view.model_copy(update={"replaced": replaced}) if replaced else view

    def _view(self, round_number: int) -> RoundView:
        state, last = self._state, self._state.last
        if state.current is not None and state.current.round == round_number:
            return current_view(state, state.current, time.monotonic())
        if last is not None and last.record.round == round_number:
            return committed_view(state.boot_id, last.record, last.state)
        record = self.store.log.record(round_number)
        if record is None:
            raise Refusal(Word.NOT_FOUND, f"round {round_number} is neither open nor committed")
        return committed_view(state.boot_id, record, RoundState.EVALUATED)

    async def wait(self, round_number: int, wait_seconds: float, settled: int | None = None) -> RoundView:
        """Where a round is, as soon as it is neither open nor being committed, or when the time is over.

        Args:
            round_number: The round.
            wait_seconds: Longest wait.
            settled: Wait also no longer than so many participants have reported or failed, no more and no fewer.

        Raises:
            Refusal: ``not-found``.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(min(wait_seconds, LONGEST_WAIT_SECONDS)):
                while self._is_changing(round_number, settled) and not self._stopping:
                    await self._changed.wait()
        return self.view(round_number)

    def records(self, since: int, limit: int) -> tuple[list[bytes], bool]:
        """Complete records as JSON, from round ``since`` on, at most ``limit``; and whether there are further ones."""
        lines, more = self.store.log.page(since, limit)
        last = self._state.last
        if more or last is None or last.record.round != since + len(lines) or not last.is_complete:
            return lines, more
        # It is on its way into the log, and in the manifest already: it was answered for as committed.
        if len(lines) >= limit:
            return lines, True
        return [*lines, last.record.model_dump_json(by_alias=True).encode()], False

    def find(self, which: str) -> CheckpointInfo | None:
        """A model by ``latest``, ``best`` or a round's number; ``None`` if it is not kept."""
        return self.store.find(which)

    def overview(self) -> AggregatorState:
        """Everything about this aggregator."""
        manifest = self.store.manifest
        return overview(
            self._state,
            committed=manifest.committed,
            previous=manifest.previous,
            best=manifest.best,
            tensors=self.store.tensors,
            now=time.monotonic(),
        )

    def _is_changing(self, round_number: int, settled: int | None) -> bool:
        current = self._state.current
        if current is None or current.round != round_number or current.state not in _CHANGING:
            return False
        return settled is None or len(current.folded) + len(current.failed) == settled

    def _wake(self) -> None:
        """Let those who wait look again."""
        self._changed.set()
        self._changed = asyncio.Event()
