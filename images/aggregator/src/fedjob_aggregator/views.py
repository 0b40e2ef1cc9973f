"""What peers see of the machine's state: views and records. Pure."""

from collections.abc import Mapping
from datetime import datetime
from math import isfinite
from typing import Final

from fedjob_aggregator.events import Attempt, LastRound, State
from fedjob_aggregator.strategy import Finding
from fedjob_protocol.messages import (
    AggregatorState,
    Base,
    CheckpointInfo,
    Judgement,
    RoundRecord,
    RoundView,
    TensorInfo,
)
from fedjob_protocol.round import RoundState
from fedjob_protocol.version import PROTOCOL_VERSION, __version__
from fedjob_protocol.weights import Manifest

MAX_JUDGEMENTS: Final = 1000
"""Most judgements in one record."""


def current_view(state: State, attempt: Attempt, now: float) -> RoundView:
    """The round that is open or being committed, or whose last attempt ended without a commit.

    Args:
        state: The machine's.
        attempt: The round's last attempt.
        now: Monotonic seconds.
    """
    is_open = attempt.state is RoundState.OPEN
    return RoundView(
        round=attempt.round,
        state=attempt.state,
        term=attempt.spec.term,
        attempt=attempt.spec.attempt,
        boot_id=state.boot_id,
        reported=sorted(attempt.folded),
        failed=[attempt.failed[client] for client in sorted(attempt.failed)],
        refused=list(attempt.refused),
        seconds_left=max(0.0, attempt.deadline - now) if is_open else None,
        storage=attempt.storage,
    )


def committed_view(boot_id: str, record: RoundRecord, round_state: RoundState) -> RoundView:
    """A round that is committed."""
    return RoundView(
        round=record.round,
        state=round_state,
        term=record.term,
        attempt=record.attempt,
        boot_id=boot_id,
        reported=[contribution.client for contribution in record.contributors],
        failed=record.failed,
        refused=record.refused,
        record=record,
    )


def overview(
    state: State,
    *,
    committed: CheckpointInfo | None,
    previous: CheckpointInfo | None,
    best: CheckpointInfo | None,
    tensors: Manifest | None,
    now: float,
) -> AggregatorState:
    """Everything about an aggregator.

    Args:
        state: The machine's.
        committed: The last committed model; ``None`` before round 0.
        previous: The one before, if it is kept.
        best: The best, if one was marked.
        tensors: Of the model; ``None`` before round 0.
        now: Monotonic seconds.
    """
    current = None
    if state.current is not None:
        current = current_view(state, state.current, now)
    elif state.last is not None:
        current = committed_view(state.boot_id, state.last.record, state.last.state)
    shapes = None
    if tensors is not None:
        shapes = [TensorInfo(name=spec.name, dtype=spec.dtype, shape=list(spec.shape)) for spec in tensors.tensors]
    return AggregatorState(
        protocol=PROTOCOL_VERSION,
        version=__version__,
        job_uid=state.job_uid,
        term=state.term,
        boot_id=state.boot_id,
        committed=committed,
        previous=previous,
        best=best,
        tensors=shapes,
        current=current,
    )


def make_record(
    attempt: Attempt,
    *,
    digest: str,
    parent: str | None,
    model_bytes: int,
    committed_at: datetime,
    commit_seconds: float,
    fingerprint: dict[str, str],
    findings: Mapping[int, Finding] | None = None,
) -> RoundRecord:
    """What is remembered of a round; made when its checkpoint is written and its record is about to be.

    Args:
        attempt: The attempt that is committed.
        digest: SHA-256 of the checkpoint.
        parent: SHA-256 of the one before; ``None`` for round 0.
        model_bytes: Size of the checkpoint.
        committed_at: Wall clock.
        commit_seconds: What writing the checkpoint took.
        fingerprint: What the bits may depend on.
        findings: What the strategy has to say of updates, by client.
    """
    spec = attempt.spec
    assert attempt.closing is not None
    contributors = [attempt.folded[client] for client in sorted(attempt.folded)]
    return RoundRecord(
        round=attempt.round,
        attempt=spec.attempt,
        redraw=spec.redraw,
        term=spec.term,
        parent=parent,
        base=spec.base if spec.base and spec.base.digest != parent else None,
        digest=digest,
        model_bytes=model_bytes,
        participants=sorted(attempt.participants),
        contributors=contributors,
        refused=list(attempt.refused),
        failed=[attempt.failed[client] for client in sorted(attempt.failed)],
        judgements=[_judgement(client, finding) for client, finding in sorted((findings or {}).items())][
            :MAX_JUDGEMENTS
        ],
        examples=sum(contribution.examples for contribution in contributors),
        started_at=attempt.started_at,
        committed_at=committed_at,
        duration_seconds=max(0.0, (committed_at - attempt.started_at).total_seconds()),
        commit_seconds=commit_seconds,
        close_reason=attempt.closing,
        expects_evaluation=spec.expects_evaluation,
        fingerprint=fingerprint,
    )


def _judgement(client: int, finding: Finding) -> Judgement:
    """JSON has no infinite numbers: such evidence is left out."""
    evidence = {name: value for name, value in finding.evidence.items() if isfinite(value)}
    return Judgement(client=client, verdict=finding.verdict, evidence=evidence)


def restored(
    *,
    boot_id: str,
    job_uid: str | None,
    term: int,
    record: RoundRecord | None,
    is_closed: bool,
    best: CheckpointInfo | None = None,
) -> State:
    """The machine's state after a start: what is durable; an attempt that was open is not.

    Args:
        boot_id: Identity of this run.
        job_uid: Whose folder it is, if anybody's.
        term: The highest seen.
        record: Of the committed round, if there is one.
        is_closed: Whether the record is complete.
        best: The best model, if one is kept.
    """
    last = None
    if record is not None:
        last = LastRound(record=record, state=RoundState.EVALUATED if is_closed else RoundState.COMMITTED)
    kept = None if best is None else Base(round=best.round, digest=best.digest)
    return State(boot_id=boot_id, job_uid=job_uid, term=term, last=last, best=kept)
