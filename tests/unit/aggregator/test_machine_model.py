"""Random histories of the machine with a writer, a disk and crashes: every round once, in order, no fold lost.

A history is a seed, so that a failure can be repeated: ``History(seed).run()``.
"""

import random
from collections import Counter

import pytest

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
from fedjob_aggregator.views import restored
from fedjob_protocol.errors import WRONG_IN_ITSELF, Refusal
from fedjob_protocol.messages import Base
from fedjob_protocol.round import RoundState
from tests.unit.aggregator.builders import Driver, a_record, xxh

STEPS = 150
HISTORIES = 120
CLIENTS = 5


class History:
    """One history: an operator that makes mistakes, clients that repeat themselves, a writer that is slow and fails."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.driver = Driver(State(boot_id="boot-0"))
        self.boots = 0
        self.queue = []  # what the writer still has to do
        self.sums = None  # round, attempt and clients of the writer's sums
        self.disk = []  # committed records
        self.log = []  # closed records
        self.term = 1
        self.attempt = 1
        self.seen = Counter()

    def run(self):
        actions = {
            self.open: 6,
            self.offer: 14,
            self.write: 18,
            self.refuse: 1,
            self.fail: 1,
            self.deadline: 2,
            self.cancel: 0.5,
            self.evaluate: 2,
            self.crash: 1,
        }
        for _ in range(STEPS):
            (action,) = self.random.choices(list(actions), list(actions.values()))
            action()
            self.check()

    def rarely(self):
        return self.random.random() < 0.15

    def apply(self, action, *arguments, **keywords):
        before = self.driver.state
        try:
            commands = action(*arguments, **keywords)
        except Refusal as refusal:
            # It changes nothing, beyond the term that was claimed before the request was looked at.
            after = self.driver.state
            assert (after.last, after.current) == (before.last, before.current)
            self.seen[refusal.word.value] += 1
            return
        kept = (StartAttempt, Fold, Commit, KeepRecord)
        self.queue += [command for command in commands if isinstance(command, kept)]

    # Requests

    def open(self):
        self.term += self.rarely()
        number = len(self.disk) + (self.rarely() and self.random.choice([-1, 1]))
        current = self.driver.current
        if current is None or (current.state is not RoundState.OPEN and self.random.random() < 0.8) or self.rarely():
            self.attempt += 1
        clients = 1 if number <= 0 else CLIENTS
        per_round = self.random.randint(1, min(3, clients))
        if current is not None and self.attempt == current.spec.attempt and not self.rarely():
            settings = current.spec.model_copy(update={"term": self.term})
            self.apply(self.driver.open, max(number, 0), spec=settings)
            return
        base = Base(round=number - 1, digest=self.disk[number - 1].digest) if 0 < number <= len(self.disk) else None
        self.apply(
            self.driver.open,
            max(number, 0),
            term=max(1, self.term - self.rarely()),
            attempt=max(1, self.attempt - self.rarely()),
            clients=clients,
            clients_per_round=per_round,
            min_reports=self.random.randint(1, per_round),
            expects_evaluation=self.random.random() < 0.5,
            base=None if self.rarely() else base,
        )

    def offer(self):
        current = self.driver.current
        if current is not None:
            client = self.random.choice(list(current.participants))
            self.apply(
                self.driver.offer,
                client,
                round_number=current.round - self.rarely(),
                attempt=current.spec.attempt - self.rarely(),
                examples=self.random.randint(0, 3),
                digest=xxh(client + 100 * self.rarely()),
            )

    def refuse(self):
        if self.driver.current is not None:
            word = self.random.choice(sorted(WRONG_IN_ITSELF))
            attempt = self.driver.current.spec.attempt
            self.apply(self.driver.refuse, self.random.randrange(CLIENTS + 1), word, attempt=attempt)

    def fail(self):
        if self.driver.current is not None:
            spec, boot_id = self.driver.current.spec, self.driver.state.boot_id
            client = self.random.randrange(CLIENTS + 1)
            self.apply(self.driver.fail, client, term=spec.term, attempt=spec.attempt, boot_id=boot_id)

    def deadline(self):
        if self.driver.current is not None:
            self.apply(self.driver.deadline, attempt=self.driver.current.spec.attempt - self.rarely())

    def cancel(self):
        current = self.driver.current
        if current is not None:
            self.apply(self.driver.apply, Cancel(round=current.round, attempt=current.spec.attempt))

    def evaluate(self):
        if self.disk:
            last = self.disk[-1]
            metrics = {"value": float(self.rarely())}
            self.apply(self.driver.evaluate, last.round, metrics=metrics, digest=last.digest, term=self.term)

    # The writer

    def write(self):
        if not self.queue:
            return
        command = self.queue.pop(0)
        fails = self.random.random() < 0.05
        match command:
            case StartAttempt():
                self.sums = (command.attempt.round, command.attempt.spec.attempt, set())
            case Fold():
                self.fold(command, fails=fails)
            case Commit():
                self.commit(command.attempt, fails=fails)
            case KeepRecord() if not fails:
                if len(self.log) == command.record.round:
                    self.log.append(command.record)
                self.apply(self.driver.apply, RecordClosed(record=self.log[command.record.round]))

    def fold(self, command, *, fails):
        key = {"round": command.round, "attempt": command.attempt}
        if fails:
            self.apply(self.driver.apply, SumsLost(**key, message="broken"))
            return
        assert (command.round, command.attempt) == self.sums[:2], "folded into the sums of another attempt"
        assert command.client not in self.sums[2], "folded twice"
        self.sums[2].add(command.client)
        self.apply(self.driver.apply, Folded(**key, client=command.client, now=1.0))

    def commit(self, attempt, *, fails):
        if fails:
            failed = CommitFailed(round=attempt.round, attempt=attempt.spec.attempt, message="disk full")
            self.apply(self.driver.apply, failed)
            return
        record = a_record(attempt)
        assert record.round == len(self.disk), "the compare-and-set of the store"
        assert (record.round, record.attempt) == self.sums[:2]
        assert {contribution.client for contribution in record.contributors} == self.sums[2], "lost or foreign fold"
        assert attempt.spec.min_reports <= len(record.contributors) <= attempt.spec.clients_per_round
        if self.disk and len(self.log) < len(self.disk):
            assert not self.disk[-1].expects_evaluation, "the record was not closed before the next round"
            self.log.append(self.disk[-1])  # as the store does, before it lets the record go
        self.disk.append(record)
        self.seen["commits"] += 1
        self.apply(self.driver.apply, Committed(record=record))

    def crash(self):
        self.boots += 1
        self.queue, self.sums = [], None
        record = self.disk[-1] if self.disk else None
        if record is not None and len(self.log) < len(self.disk) and not record.expects_evaluation:
            self.log.append(record)
        closed = len(self.log) == len(self.disk)
        self.seen["crashes"] += 1
        self.driver.state = restored(
            boot_id=f"boot-{self.boots}",
            job_uid=self.driver.state.job_uid,
            term=self.driver.state.term,
            record=self.log[-1] if closed and record is not None else record,
            is_closed=closed,
        )

    # What always holds

    def check(self):
        assert [record.round for record in self.disk] == list(range(len(self.disk)))
        assert [record.round for record in self.log] == list(range(len(self.log)))
        assert len(self.disk) - len(self.log) in {0, 1}
        state, current = self.driver.state, self.driver.current
        assert state.committed == len(self.disk) - 1
        for parent, record in zip([None, *self.disk], self.disk, strict=False):
            assert record.parent == (None if parent is None else parent.digest)
        if current is not None:
            assert current.round == len(self.disk)
            assert state.last is None or state.last.state is RoundState.EVALUATED, "opened before the record was closed"
            if current.state is RoundState.COMMITTING:
                assert not current.folding, "committing while something is being folded"
                assert sum(isinstance(command, Commit) for command in self.queue) == 1


@pytest.mark.parametrize("block", range(4))
def test_every_round_is_committed_once_and_in_order_with_what_was_folded(block):
    seen = Counter()
    for seed in range(block * HISTORIES // 4, (block + 1) * HISTORIES // 4):
        history = History(seed)
        history.run()
        seen += history.seen
    # The histories have to be worth something: rounds get to their end, and whatever can be refused is.
    assert seen["commits"] > HISTORIES / 4
    assert seen["crashes"] > HISTORIES / 4
    for word in ("stale-term", "stale-attempt", "wrong-base", "round-conflict", "round-closed", "already-reported"):
        assert seen[word], word
