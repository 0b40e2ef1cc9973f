"""Specs, updates and states for tests of the aggregator, with sensible values where a test does not care."""

from dataclasses import replace
from datetime import UTC, datetime

from fedjob_aggregator.admission import Credentials
from fedjob_aggregator.events import (
    Claim,
    Commit,
    Committed,
    DeadlinePassed,
    Evaluate,
    Fold,
    Folded,
    KeepRecord,
    Offer,
    Open,
    RecordClosed,
    ReportFailure,
    State,
    Update,
    UploadRefused,
)
from fedjob_aggregator.machine import step
from fedjob_aggregator.views import make_record
from fedjob_protocol.messages import Base, Evaluation, FailureReport, Participant, RefusedUpdate, RoundSpec

JOB, BOOT = "job-uid", "boot"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def sha(number):
    return f"sha256:{number:064x}"


def xxh(number):
    return f"xxh3-128:{number:032x}"


def a_spec(round_number=1, *, clients=3, base=..., **changes):
    if base is ...:
        base = None if round_number == 0 else Base(round=round_number - 1, digest=sha(round_number - 1))
    values = {
        "job_uid": JOB,
        "term": 1,
        "attempt": 1,
        "base": base,
        "participants": tuple(Participant(client=client, name=f"client-{client}") for client in range(clients)),
        "clients_per_round": clients,
        "min_reports": 1,
        "deadline_seconds": 60,
    }
    return RoundSpec(**(values | changes))


def an_update(client=0, *, examples=10, digest=None):
    return Update(
        client=client,
        examples=examples,
        bytes=100,
        digest=digest or xxh(client),
        transfer_seconds=0.1,
        train_seconds=None,
        metrics={},
    )


def credentials(**changes):
    values = {"job_uid": JOB, "term": 1, "attempt": 1, "boot_id": BOOT}
    return Credentials(**(values | changes))


class Driver:
    """Feeds events to the machine and keeps what it asked for; performs nothing by itself."""

    def __init__(self, state=None):
        self.state = state or State(boot_id=BOOT)
        self.commands = []

    def apply(self, event):
        following = step(self.state, event)
        self.state = following.state
        self.commands = list(following.commands)
        return self.commands

    def asked(self, kind):
        return [command for command in self.commands if isinstance(command, kind)]

    @property
    def current(self):
        return self.state.current

    def claim(self, term=1, job_uid=JOB):
        return self.apply(Claim(job_uid=job_uid, term=term))

    def open(self, round_number=1, *, now=100.0, **changes):
        spec = changes.pop("spec", None) or a_spec(round_number, **changes)
        self.claim(spec.term, spec.job_uid)
        return self.apply(Open(round=round_number, spec=spec, now=now, at=NOON))

    def offer(self, client=0, *, round_number=None, attempt=1, **changes):
        number = self.current.round if round_number is None else round_number
        return self.apply(Offer(round=number, attempt=attempt, update=an_update(client, **changes)))

    def folded(self, client=0, *, attempt=1, now=101.0):
        return self.apply(Folded(round=self.current.round, attempt=attempt, client=client, now=now))

    def report(self, client=0, *, attempt=1, **changes):
        self.offer(client, attempt=attempt, **changes)
        assert self.asked(Fold)
        return self.folded(client, attempt=attempt)

    def refuse(self, client, word, *, attempt=1):
        refused = RefusedUpdate(client=client, word=word, detail="why", bytes=5, attempt=attempt)
        return self.apply(UploadRefused(round=self.current.round, refused=refused))

    def fail(self, client, *, round_number=None, **changes):
        values = {"job_uid": JOB, "term": 1, "attempt": 1, "boot_id": BOOT, "reason": "TrainerError", "message": "oops"}
        report = FailureReport(**(values | changes))
        number = self.current.round if round_number is None else round_number
        return self.apply(ReportFailure(round=number, client=client, report=report))

    def deadline(self, *, attempt=1):
        return self.apply(DeadlinePassed(round=self.current.round, attempt=attempt))

    def commit(self):
        (command,) = self.asked(Commit)
        return self.apply(Committed(record=a_record(command.attempt)))

    def keep(self):
        (command,) = self.asked(KeepRecord)
        return self.apply(RecordClosed(record=command.record))

    def evaluate(self, round_number=1, **changes):
        values = {"job_uid": JOB, "term": 1, "digest": sha(round_number), "metrics": {"accuracy": 0.5}, "examples": 7}
        return self.apply(Evaluate(round=round_number, evaluation=Evaluation(**(values | changes))))


def a_record(attempt):
    return make_record(
        attempt,
        digest=sha(attempt.round),
        parent=None if attempt.round == 0 else sha(attempt.round - 1),
        model_bytes=1000,
        committed_at=NOON,
        commit_seconds=0.25,
        fingerprint={},
    )


def committed(round_number=0, *, closed=True, **changes):
    """A driver whose last committed round is this one."""
    driver = Driver()
    for number in range(round_number + 1):
        last = number == round_number
        driver.open(number, **({"clients": 1} | (changes if last else {})))
        for client in range(driver.current.spec.clients_per_round):
            driver.report(client)
        driver.commit()
        if driver.asked(KeepRecord) and (closed or not last):
            driver.keep()
    return driver


def opened(round_number=1, **changes):
    """A driver with this round open."""
    driver = committed(round_number - 1) if round_number else Driver()
    driver.open(round_number, **({"clients": 1} if round_number == 0 else {}) | changes)
    return driver


def restarted(state, **changes):
    """What a new run of the program knows."""
    return replace(state, boot_id="another boot", current=None, **changes)
