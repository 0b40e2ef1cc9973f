"""The aggregator's real round machine over a disk that survives it."""

from collections.abc import Callable
from dataclasses import dataclass, field

from fedjob_aggregator.admission import Credentials, admit
from fedjob_aggregator.events import (
    Attempt,
    Claim,
    Command,
    Commit,
    CommitFailed,
    Committed,
    DeadlinePassed,
    Evaluate,
    Event,
    Fold,
    Folded,
    KeepRecord,
    Offer,
    Open,
    RecordClosed,
    ReportFailure,
    StartAttempt,
    State,
    Step,
    StopUploads,
    Update,
    UploadRefused,
)
from fedjob_aggregator.machine import step as real_step
from fedjob_aggregator.views import committed_view, current_view, make_record, overview, restored
from fedjob_protocol.errors import Refusal, Word
from fedjob_protocol.messages import (
    CheckpointInfo,
    Evaluation,
    FailureReport,
    RefusedUpdate,
    RoundRecord,
    RoundSpec,
    RoundView,
)
from fedjob_protocol.round import RoundState
from tests.support.builders import XXH3, model_digest
from tests.support.world.network import Reply
from tests.support.world.simulation import Faults, Simulation

Machine = Callable[[State, Event], Step]
WATCH_SECONDS = 5.0


@dataclass(slots=True)
class Disk:
    """What survives: committed rounds, and how many of their records are closed."""

    job_uid: str | None = None
    term: int = 0
    records: list[RoundRecord] = field(default_factory=list)
    closed: int = 0


class SimulatedAggregator:
    """One run of the program.

    Args:
        simulation: Time.
        faults: What goes wrong.
        disk: What earlier runs left.
        boot_id: Identity of this run.
        committed: Told of every record that became durable.
        admitted: Told of the term of every upload that may start.
        machine: The rules; a test may break them.
    """

    def __init__(
        self,
        simulation: Simulation,
        faults: Faults,
        disk: Disk,
        *,
        boot_id: str,
        committed: Callable[[RoundRecord], None],
        admitted: Callable[[int], None],
        machine: Machine = real_step,
    ) -> None:
        self.alive = True
        self._simulation = simulation
        self._faults = faults
        self._disk = disk
        self._report = committed
        self._admitted = admitted
        self._machine = machine
        self._watchers: list[tuple[int, Reply]] = []
        self._state = restored(
            boot_id=boot_id,
            job_uid=disk.job_uid,
            term=disk.term,
            record=disk.records[-1] if disk.records else None,
            is_closed=disk.closed == len(disk.records),
            best=best_of(disk.records),
        )

    # What it answers

    def read_state(self, reply: Reply) -> None:
        """``GET /v1/state``."""
        committed = _checkpoint(self._disk.records[-1]) if self._disk.records else None
        reply(
            overview(
                self._state,
                committed=committed,
                previous=None,
                best=None,
                tensors=None,
                now=self._simulation.seconds,
            )
        )

    def open_round(self, number: int, spec: RoundSpec, reply: Reply) -> None:
        """``PUT /v1/rounds/{r}``."""
        self._try(reply, lambda: self._open(number, spec))

    def _open(self, number: int, spec: RoundSpec) -> RoundView:
        self._claim(spec.job_uid, spec.term)
        event = Open(round=number, spec=spec, now=self._simulation.seconds, at=self._simulation.now)
        commands = self._apply(event)
        if any(isinstance(command, KeepRecord) for command in commands):
            self._check_closed()
            self._apply(event)
        return self._view(number)

    def _check_closed(self) -> None:
        if self._disk.closed < len(self._disk.records):
            raise Refusal(Word.STORAGE_FULL, "the record cannot be written; try again")

    def watch_round(self, number: int, reply: Reply) -> None:
        """``GET /v1/rounds/{r}?wait=…``."""
        if not self._is_watched(number):
            self._try(reply, lambda: self._view(number))
            return
        waiting = (number, reply)
        self._watchers.append(waiting)
        self._simulation.later(WATCH_SECONDS, lambda: self._stop_watching(waiting))

    def report_failure(self, number: int, client: int, report: FailureReport, reply: Reply) -> None:
        """``PUT /v1/rounds/{r}/failures/{client}``."""

        def perform() -> RoundView:
            self._apply(ReportFailure(round=number, client=client, report=report))
            return self._view(number)

        self._try(reply, perform)

    def record_evaluation(self, number: int, evaluation: Evaluation, reply: Reply) -> None:
        """``PUT /v1/rounds/{r}/evaluation``."""

        def perform() -> RoundView:
            self._claim(evaluation.job_uid, evaluation.term)
            self._apply(Evaluate(round=number, evaluation=evaluation))
            self._check_closed()
            return self._view(number)

        self._try(reply, perform)

    def serve_model(self, number: int, reply: Reply) -> None:
        """``GET /v1/models/{r}``."""
        if number >= len(self._disk.records):
            reply(Refusal(Word.NOT_FOUND, f"there is no model {number}"))
        else:
            reply(self._disk.records[number].digest)

    def upload(
        self, number: int, client: int, credentials: Credentials, word: Word | None, examples: int, reply: Reply
    ) -> None:
        """``PUT /v1/rounds/{r}/updates/{client}``; ``word`` is what is wrong with the update."""
        try:
            admitted = admit(self._state, number, client, credentials, XXH3)
        except Refusal as refusal:
            reply(refusal)
            return
        if isinstance(admitted, Update):
            reply(None)
            return
        self._admitted(credentials.term)
        update = Update(
            client=client,
            examples=examples,
            bytes=100,
            digest=XXH3,
            transfer_seconds=0.1,
            train_seconds=None,
            metrics={},
        )
        self._later(0.1, lambda: self._received(number, credentials.attempt, update, word, reply))

    def _received(self, number: int, attempt: int, update: Update, word: Word | None, reply: Reply) -> None:
        if word is None:
            self._try(reply, lambda: self._apply(Offer(round=number, attempt=attempt, update=update)))
            return
        refused = RefusedUpdate(client=update.client, word=word, detail="it is bad", bytes=100, attempt=attempt)
        self._apply(UploadRefused(round=number, refused=refused))
        reply(Refusal(word, "it is bad"))

    def kill(self) -> None:
        """SIGKILL: memory is gone, who waits for an answer gets none."""
        self.alive = False
        for _, reply in self._watchers:
            reply(None)

    # How it works

    def _claim(self, job_uid: str, term: int) -> None:
        self._apply(Claim(job_uid=job_uid, term=term))
        self._disk.job_uid, self._disk.term = job_uid, term

    def _try(self, reply: Reply, perform: Callable[[], object]) -> None:
        try:
            reply(perform())
        except Refusal as refusal:
            reply(refusal)

    def _apply(self, event: Event) -> tuple[Command, ...]:
        step = self._machine(self._state, event)
        self._state = step.state
        for command in step.commands:
            self._perform(command)
        self._answer_watchers()
        return step.commands

    def _perform(self, command: Command) -> None:
        match command:
            case StartAttempt():
                self._watch_deadline(command.attempt)
            case Fold():
                event = Folded(
                    round=command.round,
                    attempt=command.attempt,
                    client=command.client,
                    now=self._simulation.seconds,
                )
                self._later(0.01, lambda: self._apply(event))
            case Commit():
                self._later(0.05, lambda: self._commit(command.attempt), after=command.after_seconds)
            case KeepRecord():
                self._keep(command.record)
            case StopUploads():
                pass  # the machine refuses their offers

    def _watch_deadline(self, attempt: Attempt) -> None:
        event = DeadlinePassed(round=attempt.round, attempt=attempt.spec.attempt)
        self._later(0.0, lambda: self._apply(event), after=attempt.spec.deadline_seconds)

    def _later(self, most: float, effect: Callable[[], object], *, after: float = 0.0) -> None:
        self._simulation.later(after + self._simulation.rng.random() * most, lambda: effect() if self.alive else None)

    def _commit(self, attempt: Attempt) -> None:
        if self._state.current is None or self._state.current.spec.attempt != attempt.spec.attempt:
            return
        if self._faults.strikes("storage full"):
            self._apply(CommitFailed(round=attempt.round, attempt=attempt.spec.attempt, message="No space left"))
            return
        parent = self._disk.records[-1].digest if self._disk.records else None
        record = make_record(
            attempt,
            digest=model_digest(parent, attempt.folded if attempt.round else ()),
            parent=parent,
            model_bytes=1000,
            committed_at=self._simulation.now,
            commit_seconds=0.0,
            fingerprint={},
        )
        self._disk.records.append(record)
        self._made_durable(record)

    def _made_durable(self, record: RoundRecord) -> None:
        self._report(record)
        self._apply(Committed(record=record))

    def _keep(self, record: RoundRecord) -> None:
        if self._faults.strikes("storage full"):
            return  # closed at the latest when the next round opens
        self._disk.records[-1] = record
        self._disk.closed = len(self._disk.records)
        self._apply(RecordClosed(record=record))

    def _view(self, number: int) -> RoundView:
        state = self._state
        if number <= state.committed:
            assert state.last is not None
            is_last = number == state.last.record.round
            return committed_view(
                state.boot_id,
                self._disk.records[number],
                state.last.state if is_last else RoundState.EVALUATED,
            )
        if state.current is None or state.current.round != number:
            raise Refusal(Word.NOT_FOUND, f"round {number} is neither open nor committed")
        return current_view(state, state.current, self._simulation.seconds)

    def _answer_watchers(self) -> None:
        for waiting in list(self._watchers):
            if not self._is_watched(waiting[0]):
                self._stop_watching(waiting)

    def _is_watched(self, number: int) -> bool:
        """Whether a round is open or being committed."""
        current = self._state.current
        return current is not None and current.round == number and current.state in _WATCHED

    def _stop_watching(self, waiting: tuple[int, Reply]) -> None:
        if self.alive and waiting in self._watchers:
            self._watchers.remove(waiting)
            number, reply = waiting
            self._try(reply, lambda: self._view(number))


_WATCHED = frozenset({RoundState.OPEN, RoundState.COMMITTING})


def best_of(records: list[RoundRecord]) -> CheckpointInfo | None:
    """The checkpoint that was marked as the best last."""
    return next((_checkpoint(record) for record in reversed(records) if record.best), None)


def _checkpoint(record: RoundRecord) -> CheckpointInfo:
    return CheckpointInfo(round=record.round, digest=record.digest, parent=record.parent, bytes=record.model_bytes)
