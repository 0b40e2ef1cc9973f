"""Whether a request counts: job, term, boot, attempt, round, base, and what the client did before. Pure."""

from dataclasses import dataclass

from fedjob_aggregator.events import Attempt, State, Update
from fedjob_protocol.errors import Refusal, Word, quote
from fedjob_protocol.messages import Base, Contribution, Participant, RoundSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What every request of a client carries: it counts only for this attempt in this run of the program."""

    job_uid: str
    term: int
    attempt: int
    boot_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """An upload may start."""

    attempt: Attempt
    participant: Participant


def admit(state: State, round_number: int, client: int, credentials: Credentials, digest: str) -> Admission | Update:
    """Whether an upload may start.

    Args:
        state: The machine's.
        round_number: From the path.
        client: From the path.
        credentials: From the headers.
        digest: Of the body, as announced.

    Returns:
        The admission; or what is known of the same upload, which arrived before: nothing is to be done.

    Raises:
        Refusal: ``wrong-job``, ``wrong-round``, ``stale-term``, ``wrong-boot``, ``stale-attempt``, ``round-conflict``,
            ``not-a-participant``, ``already-reported`` or ``round-closed``.
    """
    check_job(state, credentials.job_uid)
    if round_number <= state.committed:
        return _late(state, round_number, client, digest)
    current = check_credentials(state, round_number, client, credentials)
    update = known(current, client)
    if update is not None:
        if update.digest != digest:
            raise Refusal(
                Word.ALREADY_REPORTED, f"client {client} reported {update.digest} in this attempt, not {digest}"
            )
        return update
    if client in current.failed:
        raise Refusal(
            Word.ALREADY_REPORTED,
            f"client {client} counts as failed in this attempt: {current.failed[client].message}",
        )
    if not current.accepts:
        raise closed(current)
    return Admission(attempt=current, participant=current.participants[client])


def check_job(state: State, job_uid: str) -> None:
    """Refuse requests of another job.

    Raises:
        Refusal: ``wrong-job``.
    """
    if state.job_uid != job_uid:
        raise Refusal(Word.WRONG_JOB, f"this aggregator serves job {state.job_uid}, not {quote(job_uid)}")


def check_credentials(state: State, round_number: int, client: int, credentials: Credentials) -> Attempt:
    """Refuse a request for another boot, round, term or attempt, or of a client that takes no part.

    Returns:
        The attempt that the request is for.

    Raises:
        Refusal: ``wrong-boot``, ``wrong-round``, ``stale-term``, ``stale-attempt``, ``round-conflict`` or
            ``not-a-participant``.
    """
    if credentials.boot_id != state.boot_id:
        raise Refusal(
            Word.WRONG_BOOT,
            f"the task is for boot {quote(credentials.boot_id)} of the aggregator, this is {state.boot_id}; "
            "a new task will come",
        )
    current = current_attempt(state, round_number)
    spec = current.spec
    if credentials.term < state.term:
        raise Refusal(Word.STALE_TERM, f"term {credentials.term} is over: term {state.term} was seen")
    if credentials.attempt < spec.attempt:
        raise Refusal(Word.STALE_ATTEMPT, f"attempt {credentials.attempt} is over: attempt {spec.attempt} is open")
    if credentials.term > spec.term or credentials.attempt > spec.attempt:
        raise Refusal(
            Word.ROUND_CONFLICT,
            f"the task is of term {credentials.term} and attempt {credentials.attempt}, "
            f"the round is open in term {spec.term} as attempt {spec.attempt}",
        )
    if client not in current.participants:
        raise Refusal(Word.NOT_A_PARTICIPANT, f"client {client} does not take part in round {current.round}")
    return current


def known(current: Attempt, client: int) -> Update | None:
    """The update of a client that is in the sums, or soon will be."""
    if client in current.folding:
        return current.folding[client]
    return _as_update(current.folded[client]) if client in current.folded else None


def _late(state: State, round_number: int, client: int, digest: str) -> Update:
    """A round that is over: only a client whose answer got lost hears that its update counts."""
    assert state.last is not None
    record = state.last.record
    if round_number == record.round:
        for contribution in record.contributors:
            if (contribution.client, contribution.digest) == (client, digest):
                return _as_update(contribution)
    raise Refusal(Word.ROUND_CLOSED, f"round {round_number} is committed")


def _as_update(contribution: Contribution) -> Update:
    return Update(
        client=contribution.client,
        examples=contribution.examples,
        bytes=contribution.bytes,
        digest=contribution.digest,
        transfer_seconds=contribution.transfer_seconds,
        train_seconds=contribution.train_seconds,
        metrics=contribution.metrics,
    )


def current_attempt(state: State, round_number: int) -> Attempt:
    """The attempt at this round.

    Raises:
        Refusal: ``wrong-round``: there is none.
    """
    if state.current is None or state.current.round != round_number:
        raise Refusal(
            Word.WRONG_ROUND, f"round {round_number} is not open; round {state.committed} is the last committed one"
        )
    return state.current


def closed(current: Attempt) -> Refusal:
    """The refusal of what comes too late."""
    return Refusal(
        Word.ROUND_CLOSED, f"attempt {current.spec.attempt} of round {current.round} takes no further updates"
    )


def check_spec(round_number: int, spec: RoundSpec) -> None:
    """Refuse settings that no round can have.

    Raises:
        Refusal: ``bad-request``.
    """
    if round_number == 0 and len(spec.participants) != 1:
        raise Refusal(Word.BAD_REQUEST, "round 0 is the upload of the initial model by exactly one participant")


def check_base(state: State, base: Base | None) -> None:
    """Refuse another base than the last committed model, or the best one.

    Raises:
        Refusal: ``wrong-base``.
    """
    last = state.last
    expected = None if last is None else Base(round=last.record.round, digest=last.record.digest)
    if base != expected and (base is None or base != state.best):
        raise Refusal(Word.WRONG_BASE, f"the base is {_base(base)}, but the last committed model is {_base(expected)}")


def _base(base: Base | None) -> str:
    return "no model" if base is None else f"round {base.round} with {base.digest}"
