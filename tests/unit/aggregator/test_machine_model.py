"""Random histories of the machine with a writer, a disk and crashes: every round once, in order, no fold lost."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fedjob_aggregator.events import (
    Cancel,
    Commit,
    CommitFailed,
    Committed,
    Fold,
    Folded,
    KeepRecord,
    RecordClosed,
    StartAttempt,
    State,
    SumsLost,
)
from fedjob_aggregator.machine import WRONG_IN_ITSELF
from fedjob_aggregator.views import restored
from fedjob_protocol.errors import Refusal
from fedjob_protocol.messages import Base
from fedjob_protocol.round import RoundState
from tests.unit.aggregator.builders import Driver, a_record, xxh

CLIENTS = st.integers(0, 4)


class Rounds(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.driver = Driver(State(boot_id="boot-0"))
        self.boots = 0
        self.queue = []  # what the writer still has to do
        self.sums = None  # clients in the writer's sums
        self.disk = []  # committed records
        self.log = []  # closed records
        self.term = 0
        self.attempts = {}

    def apply(self, action, *arguments, **keywords):
        before = self.driver.state
        try:
            commands = action(*arguments, **keywords)
        except Refusal:
            # A refused request changes nothing, beyond the term that was claimed before it was looked at.
            after = self.driver.state
            assert (after.last, after.current) == (before.last, before.current)
            return
        self.queue += [
            command for command in commands if isinstance(command, StartAttempt | Fold | Commit | KeepRecord)
        ]

    # Requests

    @rule(
        ahead=st.integers(0, 1),
        new_term=st.booleans(),
        new_attempt=st.booleans(),
        per_round=st.integers(1, 4),
        least=st.integers(1, 4),
        evaluated=st.booleans(),
        wrong_base=st.sampled_from([False, False, False, True]),
    )
    def open(self, ahead, new_term, new_attempt, per_round, least, evaluated, wrong_base):
        self.term += new_term or not self.term
        number = len(self.disk) + ahead
        base = Base(round=number - 1, digest=self.disk[-1].digest) if self.disk and not ahead else None
        attempt = self.attempts.get(number, 1) + new_attempt
        self.attempts[number] = attempt
        clients = 1 if number == 0 else 5
        per_round = min(per_round, clients)
        self.apply(
            self.driver.open,
            number,
            term=self.term,
            attempt=attempt,
            clients=clients,
            clients_per_round=per_round,
            min_reports=min(least, per_round),
            expects_evaluation=evaluated,
            base=None if wrong_base else base,
        )

    @precondition(lambda self: self.driver.current is not None)
    @rule(client=CLIENTS, late=st.sampled_from([0, 0, 0, 1]), examples=st.integers(0, 3), digest=st.integers(0, 1))
    def offer(self, client, late, examples, digest):
        current = self.driver.current
        attempt = current.spec.attempt - late
        if client < len(current.participants) and attempt:
            self.apply(self.driver.offer, client, attempt=attempt, examples=examples, digest=xxh(client + 100 * digest))

    @precondition(lambda self: self.driver.current is not None)
    @rule(client=CLIENTS, word=st.sampled_from(sorted(WRONG_IN_ITSELF)))
    def refuse(self, client, word):
        self.apply(self.driver.refuse, client, word, attempt=self.driver.current.spec.attempt)

    @precondition(lambda self: self.driver.current is not None)
    @rule(client=CLIENTS)
    def fail(self, client):
        spec = self.driver.current.spec
        boot_id = self.driver.state.boot_id
        self.apply(self.driver.fail, client, term=spec.term, attempt=spec.attempt, boot_id=boot_id)

    @precondition(lambda self: self.driver.current is not None)
    @rule()
    def deadline(self):
        self.apply(self.driver.deadline, attempt=self.driver.current.spec.attempt)

    @precondition(lambda self: self.driver.current is not None)
    @rule()
    def cancel(self):
        current = self.driver.current
        self.apply(self.driver.apply, Cancel(round=current.round, attempt=current.spec.attempt))

    @precondition(lambda self: self.disk)
    @rule(value=st.integers(0, 2))
    def evaluate(self, value):
        last = self.disk[-1]
        self.apply(self.driver.evaluate, last.round, metrics={"value": value}, digest=last.digest)

    # The writer

    @precondition(lambda self: self.queue)
    @rule(fails=st.sampled_from([False, False, False, True]))
    def write(self, fails):
        command = self.queue.pop(0)
        match command:
            case StartAttempt():
                self.sums = (command.attempt.round, command.attempt.spec.attempt, set())
            case Fold():
                key = {"round": command.round, "attempt": command.attempt}
                if fails:
                    self.apply(self.driver.apply, SumsLost(**key, message="broken"))
                    return
                assert (command.round, command.attempt) == self.sums[:2]
                assert command.client not in self.sums[2], "folded twice"
                self.sums[2].add(command.client)
                self.apply(self.driver.apply, Folded(**key, client=command.client, now=1.0))
            case Commit():
                self.commit(command.attempt, fails=fails)
            case KeepRecord():
                if fails:
                    return
                if len(self.log) == command.record.round:
                    self.log.append(command.record)
                self.apply(self.driver.apply, RecordClosed(record=self.log[command.record.round]))

    def commit(self, attempt, *, fails):
        if fails:
            failed = CommitFailed(round=attempt.round, attempt=attempt.spec.attempt, message="disk full")
            self.apply(self.driver.apply, failed)
            return
        record = a_record(attempt)
        if self.disk and len(self.log) < len(self.disk):
            self.log.append(self.disk[-1])  # the store logs a pending record before it lets it go
        assert record.round == len(self.disk), "the compare-and-set of the store"
        assert (record.round, record.attempt) == self.sums[:2]
        assert {contribution.client for contribution in record.contributors} == self.sums[2], "lost or foreign fold"
        assert len(record.contributors) >= attempt.spec.min_reports
        assert len(record.contributors) <= attempt.spec.clients_per_round
        self.disk.append(record)
        self.apply(self.driver.apply, Committed(record=record))

    @rule()
    def crash(self):
        self.boots += 1
        self.queue, self.sums = [], None
        record = self.disk[-1] if self.disk else None
        if record is not None and len(self.log) < len(self.disk) and not record.expects_evaluation:
            self.log.append(record)
        closed = len(self.log) == len(self.disk)
        self.driver.state = restored(
            boot_id=f"boot-{self.boots}",
            job_uid=self.driver.state.job_uid,
            term=self.driver.state.term,
            record=self.log[-1] if closed and record is not None else record,
            is_closed=closed,
        )

    # What always holds

    @invariant()
    def every_round_once_and_in_order(self):
        assert [record.round for record in self.disk] == list(range(len(self.disk)))
        assert [record.round for record in self.log] == list(range(len(self.log)))
        assert len(self.disk) - len(self.log) in {0, 1}
        assert self.driver.state.committed == len(self.disk) - 1

    @invariant()
    def a_chain(self):
        for parent, record in zip([None, *self.disk], self.disk, strict=False):
            assert record.parent == (None if parent is None else parent.digest)

    @invariant()
    def nothing_is_being_folded_while_committing(self):
        current = self.driver.current
        if current is not None and current.state is RoundState.COMMITTING:
            assert not current.folding
            assert sum(isinstance(command, Commit) for command in self.queue) == 1

    @invariant()
    def an_open_round_is_the_next(self):
        current = self.driver.current
        assert current is None or current.round == len(self.disk)
        last = self.driver.state.last
        if current is not None and last is not None:
            assert last.state is RoundState.EVALUATED, "opened before the record was closed"


Rounds.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestRounds = Rounds.TestCase
