"""Conditions, and what is derived from them for people: phase, reason, message, summary."""

from datetime import datetime
from types import MappingProxyType

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
MAX_CONDITIONS = 16
"""Most conditions that a status carries."""
_ORDER = MappingProxyType({kind.value: place for place, kind in enumerate(ConditionType)})
_UNSPECIFIC = frozenset({Reason.WAITING_FOR_CLIENTS, Reason.AGGREGATOR_STARTING})
"""Reasons for not being ready that name nothing to mend."""
_BEFORE_PODS = frozenset({Reason.STARTUP_DEADLINE_EXCEEDED, Reason.INITIAL_MODEL_PENDING})
"""Why a job that starts has no pods at all."""
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
    said = (value, reason, message, generation)
    if before and (before.status, before.reason, before.message, before.observed_generation) == said:
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
    ordered = sorted((*others, condition), key=_place)
    return status.model_copy(update={"conditions": tuple(ordered[:MAX_CONDITIONS])})


def _place(condition: Condition) -> int:
    """Ours come in the order of the enumeration; those that we do not know after them."""
    return _ORDER.get(condition.type, len(_ORDER))


def finish(
    status: FederatedJobStatus, *, failed: bool, reason: Reason, message: str, now: datetime
) -> FederatedJobStatus:
    """Return the status of a job that is over; ``Complete`` and ``Failed`` exclude one another."""
    kind = ConditionType.FAILED if failed else ConditionType.COMPLETE
    status = set_condition(status, kind, holds=True, reason=reason, message=message, now=now)
    status = set_condition(status, ConditionType.PROGRESSING, holds=False, reason=reason, message=message, now=now)
    return status.model_copy(update={"completion_time": now, "current_round": None, "startup": None})


def is_finished(status: FederatedJobStatus) -> bool:
    """Whether the job is Complete or Failed."""
    return any(item.type in _OVER and item.status is ConditionStatus.TRUE for item in status.conditions)


def is_suspended(status: FederatedJobStatus) -> bool:
    """Whether a suspension was begun and not taken back."""
    condition = status.condition(ConditionType.SUSPENDED)
    return condition is not None and (condition.status is ConditionStatus.TRUE or condition.reason == Reason.SUSPENDING)


def describe(job: FederatedJob, status: FederatedJobStatus) -> FederatedJobStatus:
    """Fill in what is derived: phase, reason, message and the text of the columns."""
    phase = derive_phase(status)
    matters = _condition_that_matters(status, phase)
    gpus = status.gpus
    summary = Summary(
        rounds=f"{max(status.rounds.committed, 0)}/{status.rounds.total or job.spec.rounds}",
        clients=f"{status.clients.ready}/{status.clients.desired}",
        metric=_metric_text(job, status),
        gpus=f"{gpus.held}/{gpus.requested}" if gpus and gpus.requested else "",
    )
    update = {
        "phase": phase,
        "reason": matters.reason if matters else None,
        "message": _message(status, phase, matters),
        "summary": summary,
    }
    return status.model_copy(update=update)


def derive_phase(status: FederatedJobStatus) -> Phase:
    """Derive the phase from the conditions."""
    if is_finished(status):
        return Phase.FAILED if status.holds(ConditionType.FAILED) else Phase.COMPLETE
    if is_suspended(status):
        return Phase.SUSPENDED if status.holds(ConditionType.SUSPENDED) else Phase.SUSPENDING
    if not status.layout:
        return Phase.PENDING
    progressing = status.condition(ConditionType.PROGRESSING)
    reason = progressing.reason if progressing else None
    if status.start_time is None or reason == Reason.RESUMED:
        return Phase.STARTING
    waits = reason in (Reason.QUORUM_LOST, Reason.WAITING_FOR_CLIENTS)
    return Phase.WAITING_FOR_CLIENTS if waits else Phase.RUNNING


def _condition_that_matters(status: FederatedJobStatus, phase: Phase) -> Condition | None:
    """The condition whose reason explains the phase: what failed, else what holds the job up, else its progress."""
    accepted = status.condition(ConditionType.ACCEPTED)
    progressing = status.condition(ConditionType.PROGRESSING)
    match phase:
        case Phase.FAILED:
            return status.condition(ConditionType.FAILED)
        case Phase.COMPLETE:
            return status.condition(ConditionType.COMPLETE)
        case _ if accepted and (phase is Phase.PENDING or accepted.status is not ConditionStatus.TRUE):
            return accepted
        case Phase.SUSPENDING | Phase.SUSPENDED:
            return status.condition(ConditionType.SUSPENDED)
        case Phase.STARTING if progressing and progressing.reason in _BEFORE_PODS:
            return progressing
    unready = [
        condition
        for kind in (ConditionType.AGGREGATOR_READY, ConditionType.CLIENTS_READY)
        if (condition := status.condition(kind)) and condition.status is not ConditionStatus.TRUE
    ]
    specific = [condition for condition in unready if condition.reason not in _UNSPECIFIC]
    if phase is not Phase.STARTING:
        # Clients that are merely not there are the progress's own story.
        unready = [condition for condition in unready if condition.type == ConditionType.AGGREGATOR_READY]
    return next(iter((*specific, *unready)), progressing)


def _message(status: FederatedJobStatus, phase: Phase, matters: Condition | None) -> str | None:
    """The message of the condition that matters; a job that computes on the wrong device says so besides."""
    clients = status.condition(ConditionType.CLIENTS_READY)
    if matters is None or phase is not Phase.RUNNING or matters is clients:
        return matters.message if matters else None
    slow = clients is not None and clients.reason == Reason.GPU_UNAVAILABLE
    return f"{matters.message}; {clients.message}" if slow and clients else matters.message


def _metric_text(job: FederatedJob, status: FederatedJobStatus) -> str:
    """The objective's metric, or the first one there is."""
    wanted = job.spec.objective.metric if job.spec.objective else "accuracy"
    for metric in (*(item for item in status.metrics if item.name == wanted), *status.metrics):
        return f"{metric.name} {metric.value:.4f}"
    return ""
