"""One of several aggregators, with the real rules of who leads and what counts."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fedjob_aggregator.admission import Credentials
from fedjob_aggregator.events import Claim, Committed, RecordClosed
from fedjob_aggregator.leadership import (
    Standing,
    appointed,
    check_leads,
    heard_from,
    holders,
    is_acknowledged,
    needed,
    standbys,
)
from fedjob_aggregator.views import overview, restored
from fedjob_protocol.errors import Refusal, Word
from fedjob_protocol.messages import (
    AggregatorState,
    CheckpointInfo,
    Evaluation,
    FailureReport,
    RoundRecord,
    RoundSpec,
    RoundView,
)
from fedjob_protocol.replicas import Commit, ReplicationView, ReplicaView
from fedjob_protocol.replication import Leadership, Progress
from fedjob_protocol.round import RoundState
from tests.support.world.aggregator import Disk, SimulatedAggregator, best_of
from tests.support.world.network import Network, Reply

HEARTBEAT_SECONDS = 2.0
PAUSE_SECONDS = 0.5
COPY_SECONDS = 1.0
"""Longest time that a copy takes."""


@dataclass(slots=True)
class ReplicaDisk(Disk):
    """What survives of one of several aggregators."""

    stamp: int = 0

    @property
    def newest(self) -> Commit | None:
        """The newest checkpoint."""
        if not self.records:
            return None
        last = self.records[-1]
        return Commit(round=last.round, digest=last.digest, parent=last.parent, term=self.stamp)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The rules of several aggregators; a test may break them."""

    appointed: Callable[..., Standing] = appointed
    check_leads: Callable[..., None] = check_leads
    heard_from: Callable[..., Standing] = heard_from
    is_acknowledged: Callable[..., bool] = is_acknowledged
    writes_in: Callable[[int | None, int], bool] = lambda term, highest: term == highest
    """Whether a leader of a term may commit, given the highest that its disk has seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """What a leader holds."""

    term: int
    boot_id: str
    records: tuple[RoundRecord, ...]
    closed: int
    stamp: int


class SimulatedReplica(SimulatedAggregator):
    """One run of the program of one of several aggregators.

    Args:
        simulation: As of `SimulatedAggregator`.
        faults: As of `SimulatedAggregator`.
        disk: What earlier runs left.
        name: Its own.
        network: Where the others are.
        rules: Who leads and what counts.
        options: As of `SimulatedAggregator`.
    """

    _disk: ReplicaDisk

    def __init__(self, simulation, faults, disk: ReplicaDisk, *, name: str, network: Network, rules: Rules, **options):
        super().__init__(simulation, faults, disk, **options)
        self._network = network
        self._rules = rules
        self._standing = Standing(name=name, boot_id=options["boot_id"])
        self._has_led = False
        self._session = 0
        self._durable_at = 0.0
        self._waiting_standbys: list[tuple[Progress, Reply]] = []

    # Who leads

    def appoint(self, leadership: Leadership, reply: Reply) -> None:
        """``PUT /v1/leadership``."""
        self._try(reply, lambda: self._appoint(leadership))

    def _appoint(self, leadership: Leadership) -> AggregatorState:
        self._machine(self._state, Claim(job_uid=leadership.job_uid, term=leadership.term))
        now = self._simulation.seconds
        standing = self._rules.appointed(self._standing, leadership, leadership.term, now)
        if standing != self._standing or self._state.term < leadership.term:
            self._session += 1
            self._claim(leadership.job_uid, leadership.term)
            if standing.is_leader and not self._has_led:
                self._take_over(leadership)
            elif standing.is_leader and self._disk.records:
                self._disk.stamp = leadership.term
            elif not standing.is_leader and leadership.leader is not None:
                self._has_led = False
                self._restore(self._disk.records, self._disk.closed)
                self._ask(leadership, self._session)
            self._standing = standing
            self._stir()
        return self._overview()

    def _take_over(self, leadership: Leadership) -> None:
        newest, base = self._disk.newest, leadership.committed
        parts = (-1, None) if base is None else (base.round, base.digest)
        held = (-1, None) if newest is None else (newest.round, newest.digest)
        if held != parts and (newest is None or (newest.round - 1, newest.parent) != parts):
            raise Refusal(Word.WRONG_BASE, f"{held} is held, {parts} is committed")
        self._has_led = True
        if newest is None:
            self._restore([], 0)
            return
        self._disk.stamp = leadership.term
        self._durable_at = self._simulation.seconds
        is_ahead = held != parts
        self._restore(self._disk.records[:-1] if is_ahead else self._disk.records, self._disk.closed)

    def _restore(self, records: list[RoundRecord], closed: int) -> None:
        self._state = restored(
            boot_id=self._state.boot_id,
            job_uid=self._state.job_uid,
            term=self._state.term,
            record=records[-1] if records else None,
            is_closed=closed >= len(records),
            best=best_of(records),
        )

    def _check(self) -> None:
        self._rules.check_leads(self._standing, self._state.term)

    # Copying

    def _ask(self, leadership: Leadership, session: int) -> None:
        """Say what is held, and copy what the leader holds."""
        if not self.alive or session != self._session:
            return
        disk = self._disk
        progress = Progress(
            job_uid=leadership.job_uid,
            term=leadership.term,
            boot_id=leadership.leader_boot_id or "-",
            newest=disk.newest,
            closed=disk.closed - 1,
        )

        def answered(copy: Copy) -> None:
            self._later(COPY_SECONDS, lambda: self._copy(leadership, session, copy))

        def failed(_word: str | None, _message: str) -> None:
            self._simulation.later(PAUSE_SECONDS, lambda: self._ask(leadership, session))

        name = self._standing.name
        self._network.call(
            leadership.leader_url or "",
            lambda leader, reply: leader.hear(name, progress, reply),
            answered=answered,
            failed=failed,
        )

    def _copy(self, leadership: Leadership, session: int, copy: Copy) -> None:
        if session != self._session:
            return
        if (copy.term, copy.boot_id) == (leadership.term, leadership.leader_boot_id):
            self._disk.records, self._disk.closed = list(copy.records), copy.closed
            self._disk.stamp = copy.stamp
            self._restore(self._disk.records, self._disk.closed)
        self._ask(leadership, session)

    def hear(self, name: str, progress: Progress, reply: Reply) -> None:
        """``PUT /v1/replication/standbys/{name}?wait=``."""
        try:
            now = self._simulation.seconds
            self._standing = self._rules.heard_from(self._standing, name, progress, now, self._state.term)
        except Refusal as refusal:
            reply(refusal)
            return
        waiting = (progress, reply)
        self._waiting_standbys.append(waiting)
        self._simulation.later(HEARTBEAT_SECONDS, lambda: self._answer(waiting))
        self._stir()

    def _answer(self, waiting: tuple[Progress, Reply]) -> None:
        if self.alive and waiting in self._waiting_standbys:
            self._waiting_standbys.remove(waiting)
            self._try(waiting[1], self._holdings)

    def _holdings(self) -> Copy:
        self._check()
        disk = self._disk
        return Copy(
            term=self._state.term,
            boot_id=self._state.boot_id,
            records=tuple(disk.records),
            closed=disk.closed,
            stamp=disk.stamp,
        )

    # What counts

    def _stir(self) -> None:
        """Something is held by somebody: look what counts, and who has to be told."""
        hidden = self._hidden()
        if hidden is not None and self._counts():
            record = self._disk.records[-1]
            self._report(record)
            self._apply(Committed(record=record))
            if self._disk.closed == len(self._disk.records):
                self._apply(RecordClosed(record=record))
        for waiting in list(self._waiting_standbys):
            held = (waiting[0].newest, waiting[0].closed)
            if held != (self._disk.newest, self._disk.closed - 1):
                self._answer(waiting)
        self._answer_watchers()

    def _counts(self, *, closed: bool = False) -> bool:
        newest = self._disk.newest
        return newest is not None and self._rules.is_acknowledged(
            self._standing, newest, self._state.term, closed=closed
        )

    def _hidden(self) -> Commit | None:
        newest = self._disk.newest
        return newest if self._has_led and newest is not None and newest.round > self._state.committed else None

    def _commit(self, attempt) -> None:
        leadership = self._standing.leadership
        term = leadership.term if leadership is not None and self._standing.is_leader else None
        if self._has_led and self._rules.writes_in(term, self._disk.term):
            super()._commit(attempt)
        elif self._has_led:
            self._later(0.5, lambda: self._commit(attempt))

    def _made_durable(self, record: RoundRecord) -> None:
        self._disk.stamp = self._disk.term
        self._durable_at = self._simulation.seconds
        self._stir()

    def _keep(self, record: RoundRecord) -> None:
        super()._keep(record)
        self._stir()

    def _is_closed_everywhere(self) -> bool:
        last, newest = self._state.last, self._disk.newest
        if last is None or newest is None or newest.round != last.record.round or not last.record.expects_evaluation:
            return True
        return self._counts(closed=True)

    # What it answers

    def open_round(self, number: int, spec: RoundSpec, reply: Reply) -> None:
        """``PUT /v1/rounds/{r}``."""

        def perform() -> RoundView:
            self._check()
            self._claim(spec.job_uid, spec.term)
            self._check()
            hidden = self._hidden()
            return self._view(number) if hidden and hidden.round == number else self._open(number, spec)

        self._try(reply, perform)

    def report_failure(self, number: int, client: int, report: FailureReport, reply: Reply) -> None:
        """``PUT /v1/rounds/{r}/failures/{client}``."""
        self._if_leading(reply, lambda: super(SimulatedReplica, self).report_failure(number, client, report, reply))

    def record_evaluation(self, number: int, evaluation: Evaluation, reply: Reply) -> None:
        """``PUT /v1/rounds/{r}/evaluation``."""
        self._durable_at = self._simulation.seconds
        self._if_leading(reply, lambda: super(SimulatedReplica, self).record_evaluation(number, evaluation, reply))

    def upload(self, number: int, client: int, credentials: Credentials, word, examples: int, reply: Reply) -> None:
        """``PUT /v1/rounds/{r}/updates/{client}``."""
        self._if_leading(
            reply, lambda: super(SimulatedReplica, self).upload(number, client, credentials, word, examples, reply)
        )

    def _if_leading(self, reply: Reply, perform: Callable[[], None]) -> None:
        try:
            self._check()
        except Refusal as refusal:
            reply(refusal)
        else:
            perform()

    def read_state(self, reply: Reply) -> None:
        """``GET /v1/state``."""
        reply(self._overview())

    def _overview(self) -> AggregatorState:
        visible = self._state.last.record if self._state.last else None
        info = None
        if visible is not None:
            info = CheckpointInfo(round=visible.round, digest=visible.digest, parent=visible.parent, bytes=1000)
        base: dict[str, Any] = {"committed": info, "previous": None, "best": None, "tensors": None}
        said = overview(self._state, now=self._simulation.seconds, **base)
        leadership, hidden = self._standing.leadership, self._hidden()
        replica = ReplicaView(
            name=self._standing.name,
            role=self._standing.role(self._state.term),
            leader=leadership.leader if leadership else None,
            term=leadership.term if leadership else 0,
            newest=self._disk.newest,
            closed=self._disk.closed - 1,
            standbys=standbys(self._standing, self._simulation.seconds),
        )
        update: dict[str, Any] = {"replica": replica}
        if hidden is not None:
            update["current"] = self._view(hidden.round)
        return said.model_copy(update=update)

    def _view(self, number: int) -> RoundView:
        hidden, state = self._hidden(), self._state
        others = standbys(self._standing, self._simulation.seconds)
        if hidden is not None and hidden.round == number:
            record = self._disk.records[-1]
            view = RoundView(
                round=number,
                state=RoundState.COMMITTING,
                term=state.term,
                attempt=record.attempt,
                boot_id=state.boot_id,
            )
            return view.model_copy(update={"replication": self._waiting(), "standbys": others})
        view = super()._view(number)
        is_last = state.last is not None and state.last.record.round == number and self._has_led
        update: dict[str, Any] = {"standbys": others}
        if is_last and view.state is RoundState.EVALUATED and not self._is_closed_everywhere():
            update |= {"state": RoundState.COMMITTED, "replication": self._waiting(closed=True)}
        return view.model_copy(update=update)

    def _waiting(self, *, closed: bool = False) -> ReplicationView:
        newest = self._disk.newest
        count = holders(self._standing, newest, closed=closed) if newest else 0
        seconds = self._simulation.seconds - self._durable_at
        return ReplicationView(holders=count, needed=needed(self._standing), seconds=seconds)

    def _is_watched(self, number: int) -> bool:
        hidden = self._hidden()
        is_last = self._state.last is not None and self._state.last.record.round == number
        return (
            (hidden is not None and hidden.round == number)
            or (self._has_led and is_last and not self._is_closed_everywhere() and self._disk.closed > number)
            or super()._is_watched(number)
        )
