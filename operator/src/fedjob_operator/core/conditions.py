"""Conditions, and what is derived from them for people: phase, reason, message, summary."""

from datetime import datetime

from fedjob_operator.api.v1alpha1 import (
    Condition,
    ConditionStatus,
    ConditionType,
    FederatedJob,
    FederatedJobStatus,
    Phase,
    Summary,
)
from fedjob_protocol.reasons import Reason

MAX_MESSAGE = 1024
"""Longest message that a status carries, in characters."""
_OVER = frozenset({ConditionType.COMPLETE, ConditionType.FAILED})


def set_condition(
    status: FederatedJobStatus,
    kind: ConditionType,
    *,
    holds: bool,
    reason: Reason,
    message: str = "",
    now: datetime,
    generation: int | None = None,
) -> FederatedJobStatus:
    """Return the status with one condition set; its transition time changes only when its status does."""
    value = ConditionStatus.TRUE if holds else ConditionStatus.FALSE
    before = status.condition(kind)
    message = message[:MAX_MESSAGE]
    if before and (before.status, before.reason, before.message) == (value, reason, message):
        return status
    condition = Condition(
        type=kind,
        status=value,
        reason=reason,
        message=message,
        observed_generation=generation,
        last_transition_time=before.last_transition_time if before and before.status == value else now,
    )
    others = tuple(item for item in status.conditions if item.type != kind)
    ordered = sorted((*others, condition), key=lambda item: list(ConditionType).index(ConditionType(item.type)))
    return status.model_copy(update={"conditions": tuple(ordered)})


def finish(
    status: FederatedJobStatus, *, failed: bool, reason: Reason, message: str, now: datetime
) -> FederatedJobStatus:
    """Return the status of a job that is over; ``Complete`` and ``Failed`` exclude one another."""
    kind = ConditionType.FAILED if failed else ConditionType.COMPLETE
    status = set_condition(status, kind, holds=True, reason=reason, message=message, now=now)
    status = set_condition(status, ConditionType.PROGRESSING, holds=False, reason=reason, message=message, now=now)
    return status.model_copy(update={"completion_time": now, "current_round": None})


def is_finished(status: FederatedJobStatus) -> bool:
    """Whether the job is Complete or Failed."""
    return any(item.type in _OVER and item.status is ConditionStatus.TRUE for item in status.conditions)


def describe(job: FederatedJob, status: FederatedJobStatus) -> FederatedJobStatus:
    """Fill in what is derived: phase, reason, message and the text of the columns."""
    phase = derive_phase(status)
    matters = _condition_that_matters(status, phase)
    summary = Summary(
        rounds=f"{max(status.rounds.committed, 0)}/{job.spec.rounds}",
        clients=f"{status.clients.ready}/{status.clients.desired}",
        metric=_metric_text(job, status),
    )
    update = {
        "phase": phase,
        "reason": matters.reason if matters else None,
        "message": matters.message if matters else None,
        "summary": summary,
    }
    return status.model_copy(update=update)


def derive_phase(status: FederatedJobStatus) -> Phase:
    """Derive the phase from the conditions."""
    if is_finished(status):
        return Phase.FAILED if status.holds(ConditionType.FAILED) else Phase.COMPLETE
    if not status.layout:
        return Phase.PENDING
    if status.start_time is None:
        return Phase.STARTING
    progressing = status.condition(ConditionType.PROGRESSING)
    waits = progressing is not None and progressing.reason in (Reason.QUORUM_LOST, Reason.WAITING_FOR_CLIENTS)
    return Phase.WAITING_FOR_CLIENTS if waits else Phase.RUNNING


def _condition_that_matters(status: FederatedJobStatus, phase: Phase) -> Condition | None:
    """The condition whose reason explains the phase: what failed, else what holds the job up, else its progress."""
    match phase:
        case Phase.FAILED:
            return status.condition(ConditionType.FAILED)
        case Phase.COMPLETE:
            return status.condition(ConditionType.COMPLETE)
        case Phase.PENDING:
            return status.condition(ConditionType.ACCEPTED)
        case Phase.STARTING:
            for kind in (ConditionType.AGGREGATOR_READY, ConditionType.CLIENTS_READY):
                condition = status.condition(kind)
                if condition and condition.status is not ConditionStatus.TRUE:
                    return condition
        case _:
            aggregator = status.condition(ConditionType.AGGREGATOR_READY)
            if aggregator and aggregator.status is not ConditionStatus.TRUE:
                return aggregator
    return status.condition(ConditionType.PROGRESSING)


def _metric_text(job: FederatedJob, status: FederatedJobStatus) -> str:
    """The objective's metric, or the first one there is."""
    wanted = job.spec.objective.metric if job.spec.objective else "accuracy"
    for metric in (*(item for item in status.metrics if item.name == wanted), *status.metrics):
        return f"{metric.name} {metric.value:.4f}"
    return ""
