"""The rules of rounds: what an event changes and what has to be done, as a pure function. No I/O, clock or logging.

`step` is the whole machine; `admission` has the question whether an upload may start, `attempts` what becomes of
participants, `events` the data, and `fedjob_protocol.round` the table of states. Called by `service`, which owns the
only `State` and performs the commands in order.

Exactly once: a round is opened only on top of the last committed one, an update gets into the sums only through `Offer`
of the attempt that is open, once per client, and `Committed` moves on by one round. Everything else is refused.
"""

from dataclasses import replace
from typing import Final, assert_never

from fedjob_aggregator.admission import (
    Credentials,
    check_base,
    check_credentials,
    check_job,
    check_spec,
    closed,
    current_attempt,
    known,
)
from fedjob_aggregator.attempts import weight, with_all_failed, with_failed, with_folded, with_missing, with_refused
from fedjob_aggregator.events import (
    Attempt,
    Cancel,
    Claim,
    CloseReason,
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
    LastRound,
    Offer,
    Open,
    RecordClosed,
    ReportFailure,
    StartAttempt,
    State,
    Step,
    StopUploads,
    SumsLost,
    UploadRefused,
)
from fedjob_protocol.errors import Refusal, Word
from fedjob_protocol.messages import (
    Base,
    RoundSpec,
    StorageProblem,
)
from fedjob_protocol.reasons import Reason
from fedjob_protocol.round import RoundEvent, RoundState, advance

FIRST_RETRY_SECONDS: Final = 0.25
LAST_RETRY_SECONDS: Final = 10.0
"""Between tries to write a checkpoint that the storage refuses: from the first, doubled, up to the last."""


def step(state: State, event: Event) -> Step:
    """Return the state after an event, and what has to be done.

    Raises:
        Refusal: A request is refused; the state stays as it is.
    """
    match event:
        case Claim():
            return _claim(state, event)
        case Open():
            return _open(state, event)
        case Cancel():
            return _cancel(state, event)
        case Evaluate():
            return _evaluate(state, event)
        case ReportFailure():
            return _report_failure(state, event)
        case Offer():
            return _offer(state, event)
        case Committed():
            return _committed(state, event)
        case RecordClosed():
            return _record_closed(state, event)
        case Folded() | SumsLost() | UploadRefused() | DeadlinePassed() | CommitFailed():
            return _fact(state, event)
        case _:
            assert_never(event)


# Requests of the operator


def _claim(state: State, event: Claim) -> Step:
    if state.job_uid not in {None, event.job_uid}:
        raise Refusal(Word.WRONG_JOB, f"this folder belongs to job {state.job_uid}, not to {event.job_uid}")
    if event.term < state.term:
        raise Refusal(Word.STALE_TERM, f"term {event.term} is over: term {state.term} was seen")
    return Step(state=replace(state, job_uid=event.job_uid, term=event.term))


def _open(state: State, event: Open) -> Step:
    if event.round <= state.committed:
        return Step(state=state)  # answered with what was committed
    if event.round != state.committed + 1:
        raise Refusal(
            Word.WRONG_ROUND,
            f"round {event.round} cannot be opened: round {state.committed} is the last committed one here",
        )
    check_spec(event.round, event.spec)
    check_base(state, event.spec.base)
    current = state.current
    if current is not None:
        if event.spec.attempt < current.spec.attempt:
            raise Refusal(
                Word.STALE_ATTEMPT,
                f"attempt {event.spec.attempt} of round {event.round} is over: attempt {current.spec.attempt} was seen",
            )
        if event.spec.attempt == current.spec.attempt:
            return _open_again(state, current, event.spec)
        if current.state is RoundState.COMMITTING:
            raise Refusal(
                Word.ROUND_CONFLICT,
                f"round {event.round} is being committed as attempt {current.spec.attempt}; wait for it",
            )
        advance(current.state, RoundEvent.REOPEN)
    elif state.last is not None and state.last.state is RoundState.COMMITTED:
        return Step(state=state, commands=(_give_evaluation_up(state.last),))  # then the request is looked at again
    attempt = Attempt(
        round=event.round,
        spec=event.spec,
        participants={participant.client: participant for participant in event.spec.participants},
        state=RoundState.OPEN,
        started=event.now,
        started_at=event.at,
    )
    commands = (StopUploads(detail="a new attempt was opened"), StartAttempt(attempt=attempt))
    return Step(state=replace(state, current=attempt), commands=commands)


def _open_again(state: State, current: Attempt, spec: RoundSpec) -> Step:
    """The same attempt: the same request, perhaps in a higher term, which keeps what was folded."""
    if spec.model_copy(update={"term": current.spec.term}) != current.spec:
        raise Refusal(
            Word.ROUND_CONFLICT,
            f"attempt {spec.attempt} of round {current.round} is open with other settings; use a higher attempt",
        )
    return Step(state=replace(state, current=replace(current, spec=spec)))


def _cancel(state: State, event: Cancel) -> Step:
    if event.round <= state.committed:
        return Step(state=state)  # what is committed stays
    current = current_attempt(state, event.round)
    if event.attempt < current.spec.attempt:
        raise Refusal(Word.STALE_ATTEMPT, f"attempt {event.attempt} is over: attempt {current.spec.attempt} was seen")
    if event.attempt > current.spec.attempt or current.state is RoundState.COMMITTING:
        raise Refusal(
            Word.ROUND_CONFLICT,
            f"attempt {event.attempt} of round {event.round} cannot be cancelled: attempt {current.spec.attempt} is "
            f"{current.state}",
        )
    if current.state is not RoundState.OPEN:
        return Step(state=state)
    cancelled = replace(current, state=advance(current.state, RoundEvent.CANCEL))
    return Step(state=replace(state, current=cancelled), commands=(StopUploads(detail="the attempt was cancelled"),))


def _evaluate(state: State, event: Evaluate) -> Step:
    last = state.last
    if last is None or event.round > last.record.round:
        raise Refusal(Word.WRONG_ROUND, f"round {event.round} is not committed")
    if event.round < last.record.round:
        raise Refusal(Word.ROUND_CONFLICT, f"the record of round {event.round} is closed")
    evaluation, record = event.evaluation, last.record
    if evaluation.digest != record.digest:
        raise Refusal(
            Word.WRONG_BASE, f"{evaluation.digest} was evaluated, but round {event.round} has {record.digest}"
        )
    evaluated = record.model_copy(
        update={
            "metrics": dict(evaluation.metrics),
            "evaluation_examples": evaluation.examples,
            "evaluation_problem": evaluation.problem,
            "best": evaluation.best,
            "client_evaluations": list(evaluation.clients),
            "spread": dict(evaluation.spread),
        }
    )
    if last.is_complete:
        if evaluated != record:
            raise Refusal(Word.ROUND_CONFLICT, f"the record of round {event.round} is closed with another evaluation")
        return Step(state=state)
    return Step(state=state, commands=(KeepRecord(record=evaluated),))


def _give_evaluation_up(last: LastRound) -> KeepRecord:
    record = last.record
    if record.expects_evaluation:
        record = record.model_copy(update={"evaluation_problem": "no evaluation came before the next round opened"})
    return KeepRecord(record=record)


# Requests of the clients


def _offer(state: State, event: Offer) -> Step:
    current, client = state.current, event.update.client
    if current is None or (current.round, current.spec.attempt) != (event.round, event.attempt):
        raise Refusal(Word.ROUND_CLOSED, f"attempt {event.attempt} of round {event.round} is over")
    if not current.accepts or client in current.failed:
        raise closed(current)
    if client in current.folding or client in current.folded:
        raise Refusal(Word.ALREADY_REPORTED, f"client {client} reported in this attempt already")
    offered = replace(current, folding={**current.folding, client: event.update})
    if len(offered.folding) + len(offered.folded) >= offered.spec.clients_per_round:
        offered = replace(offered, closing=CloseReason.CLIENTS_PER_ROUND)
    fold = Fold(
        round=event.round,
        attempt=event.attempt,
        client=client,
        weight=weight(offered.spec, event.update.examples),
    )
    return Step(state=replace(state, current=offered), commands=(fold,))


def _report_failure(state: State, event: ReportFailure) -> Step:
    report = event.report
    check_job(state, report.job_uid)
    if event.round <= state.committed:
        raise Refusal(Word.ROUND_CLOSED, f"round {event.round} is committed")
    credentials = Credentials(job_uid=report.job_uid, term=report.term, attempt=report.attempt, boot_id=report.boot_id)
    current = check_credentials(state, event.round, event.client, credentials)
    if not current.accepts or known(current, event.client) is not None or event.client in current.failed:
        return Step(state=state)  # it does not matter any more
    return _settle(state, with_failed(current, event.client, report.reason, report.message))


# Facts


def _fact(state: State, event: Folded | SumsLost | UploadRefused | DeadlinePassed | CommitFailed) -> Step:
    current = state.current
    attempt = event.refused.attempt if isinstance(event, UploadRefused) else event.attempt
    if current is None or (current.round, current.spec.attempt) != (event.round, attempt):
        return Step(state=state)
    if isinstance(event, CommitFailed):
        return _commit_failed(state, current, event)
    if current.state is not RoundState.OPEN:
        return Step(state=state)
    match event:
        case Folded():
            return _settle(state, with_folded(current, event))
        case SumsLost():
            problem = StorageProblem(message=event.message, failures=1)
            return _abandon(state, replace(current, storage=problem, folding={}))
        case UploadRefused():
            return _settle(state, with_refused(current, event.refused))
        case DeadlinePassed():
            if current.closing is not None:
                return Step(state=state)  # it closes as soon as the writer is ready
            return _settle(state, replace(current, closing=CloseReason.DEADLINE))
        case _:
            assert_never(event)


def _settle(state: State, current: Attempt) -> Step:
    """Close the round if it is time; a fold in flight is waited for, so that what was accepted counts."""
    if not current.folding:
        if len(current.folded) >= current.spec.clients_per_round:
            return _close(state, replace(current, closing=CloseReason.CLIENTS_PER_ROUND))
        if all(client in current.folded or client in current.failed for client in current.participants):
            return _close(state, replace(current, closing=CloseReason.ALL_REPORTED))
        if current.closing is CloseReason.DEADLINE:
            return _close(state, with_missing(current))
    return Step(state=replace(state, current=current))


def _close(state: State, current: Attempt) -> Step:
    if len(current.folded) < current.spec.min_reports:
        return _abandon(state, current)
    if current.weight == 0 and current.round > 0:
        message = f"{Word.BAD_EXAMPLES}: all updates together have 0 examples, so they have no mean"
        return _abandon(state, with_all_failed(current, current.folded, Reason.UPDATE_REFUSED, message))
    current = replace(current, state=advance(current.state, RoundEvent.CLOSE))
    commands: tuple[Command, ...] = (StopUploads(detail="the round is closed"), Commit(attempt=current))
    return Step(state=replace(state, current=current), commands=commands)


def _abandon(state: State, current: Attempt) -> Step:
    current = replace(current, state=advance(current.state, RoundEvent.GIVE_UP))
    return Step(state=replace(state, current=current), commands=(StopUploads(detail="the attempt is abandoned"),))


def _commit_failed(state: State, current: Attempt, event: CommitFailed) -> Step:
    if event.is_definitive:  # the strategy failed with these updates: another choice may do better
        current = with_all_failed(current, current.folded, Reason.STRATEGY_FAILED, event.message[:1024])
        current = replace(current, state=advance(current.state, RoundEvent.CANNOT_COMMIT))
        return Step(state=replace(state, current=current))
    failures = 1 if current.storage is None else current.storage.failures + 1
    current = replace(
        current,
        state=advance(current.state, RoundEvent.COMMIT_FAILED),
        storage=StorageProblem(message=event.message, failures=failures),
    )
    wait = min(LAST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(failures - 1, 10))
    return Step(state=replace(state, current=current), commands=(Commit(attempt=current, after_seconds=wait),))


def _committed(state: State, event: Committed) -> Step:
    record, current = event.record, state.current
    assert record.round == state.committed + 1  # the compare-and-set, once more
    assert current is None or current.round == record.round  # none: an earlier leader's, which was copied here
    committed = RoundState.COMMITTED if current is None else advance(current.state, RoundEvent.COMMITTED)
    last = LastRound(record=record, state=committed)
    commands = () if record.expects_evaluation else (KeepRecord(record=record),)
    return Step(state=replace(state, last=last, current=None), commands=commands)


def _record_closed(state: State, event: RecordClosed) -> Step:
    if state.last is None or state.last.record.round != event.record.round:
        return Step(state=state)
    record = event.record
    last = LastRound(record=record, state=advance(state.last.state, RoundEvent.EVALUATED))
    best = Base(round=record.round, digest=record.digest) if record.best else state.best
    return Step(state=replace(state, last=last, best=best))
