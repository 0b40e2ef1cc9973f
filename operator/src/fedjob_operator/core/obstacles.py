"""Why a pod is not ready, in one sentence and with a reason of the closed list where there is one."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from fedjob_operator.core.actions import CreatePod, FetchInfo
from fedjob_operator.core.observed import Failure, Observed, PodPhase, PodRole, PodView
from fedjob_operator.core.unreachable import is_unreachable, unreachable_message
from fedjob_protocol.errors import Word
from fedjob_protocol.reasons import Reason

UNREACHABLE_AFTER = timedelta(seconds=5)
"""How long a program goes without an answer before the status says so."""
STARTING = "starting"
NOT_CREATED = "not created yet"
NOT_REGISTERED = "has not registered"
JUST_REGISTERED = "was just registered"
BEING_STOPPED = "being stopped"
ORDINARY = frozenset({STARTING, NOT_CREATED, NOT_REGISTERED, JUST_REGISTERED, BEING_STOPPED})
"""What keeps a pod from being ready while all is well."""
_SPECIFIC = frozenset(
    {
        Reason.UNSCHEDULABLE,
        Reason.GPU_UNAVAILABLE,
        Reason.QUOTA_EXCEEDED,
        Reason.IMAGE_PULL_FAILED,
        Reason.CONTAINER_CANNOT_RUN,
        Reason.VOLUME_UNAVAILABLE,
        Reason.VOLUME_MOUNT_FAILED,
        Reason.NODE_UNREACHABLE,
        Reason.POD_REFUSED,
        Reason.INVALID_POD_TEMPLATE,
        Reason.OOM_KILLED,
        Reason.GPU_OUT_OF_MEMORY,
        Reason.GPU_FAILED,
        Reason.EVICTED,
        Reason.FOLDER_IN_USE,
        Reason.FOREIGN_VOLUME,
        Reason.DATA_ERROR,
        Reason.TRAINER_ERROR,
        Reason.INVALID_SPEC,
        Reason.PROTOCOL_MISMATCH,
    }
)
"""Reasons that say what to mend. The others say no more than that something ended, or are about jobs: a program's last
words may be any of them, and must not pass for what the job does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """What keeps one pod from being ready."""

    reason: Reason | None
    """``None`` while nothing is known but that it takes its time."""
    message: str
    """With the reason in it."""

    @property
    def is_specific(self) -> bool:
        """Whether its reason says what to mend."""
        return self.reason in _SPECIFIC


def obstacle(
    role: PodRole,
    index: int,
    pod: PodView | None,
    seen: Observed,
    *,
    first: int = 0,
    lost: bool,
    has_volume: bool,
    now: datetime,
) -> Obstacle:
    """Say why a place has no pod that is ready.

    Args:
        role: The place's role.
        index: The place's index.
        pod: Its newest pod.
        seen: Everything seen.
        first: The first ordinal of its pods that counts.
        lost: Whether it gets no further pod.
        has_volume: Whether it has a volume of its own, that no other pod may write to.
        now: The time.
    """
    ordinal = first if pod is None else pod.ordinal + 1
    refused = seen.failures.get(CreatePod(role=role, index=index, ordinal=ordinal).key)
    if refused and (pod is None or pod.phase is PodPhase.EXITED):
        return _named(reason_of(refused), refused.message)
    if pod is None:
        return Obstacle(reason=None, message=NOT_CREATED)
    match pod.phase:
        case PodPhase.EXITED if pod.exit:
            return _named(pod.exit.reason, pod.exit.message, "given up" if lost else "to be replaced")
        case PodPhase.STARTING if pod.waiting:
            return _named(pod.waiting.reason, pod.waiting.message)
        case PodPhase.STARTING if pod.exit:
            return _named(pod.exit.reason, pod.exit.message, "started again")
        case PodPhase.STOPPING if is_unreachable(pod, now):
            return _named(Reason.NODE_UNREACHABLE, unreachable_message(pod, waits=has_volume))
        case PodPhase.STOPPING:
            return Obstacle(reason=None, message=BEING_STOPPED)
        case PodPhase.READY:
            return _silent(pod, seen, now)
        case _:
            return Obstacle(reason=None, message=STARTING)


def first_specific(obstacles: Mapping[int, Obstacle]) -> Reason | None:
    """The reason of the first client that has one which says what to mend."""
    return next((item.reason for _, item in sorted(obstacles.items()) if item.is_specific), None)


def reason_of(failure: Failure) -> Reason:
    """Reason of a pod that could not be made; its word is one where whoever refused it said why."""
    return Reason(failure.word) if failure.word in frozenset(Reason) else Reason.POD_REFUSED


def _named(reason: Reason, message: str, aside: str = "") -> Obstacle:
    text = f"{reason}: {message}" + (f" ({aside})" if aside else "")
    return Obstacle(reason=reason, message=text)


def silence_of_client(pod: PodView, seen: Observed, now: datetime, key: str) -> Obstacle:
    """Say why a client that registered itself has not taken the job.

    Args:
        pod: Its view.
        seen: Everything seen.
        now: The time.
        key: Of the call that it has not answered.
    """
    failure = seen.failures.get(key)
    if failure and failure.word == Word.UNSUPPORTED_PROTOCOL:
        return _named(Reason.PROTOCOL_MISMATCH, failure.message)
    if failure and (failure.word is not None or now - failure.since >= UNREACHABLE_AFTER):
        return Obstacle(reason=None, message=f"at {pod.url}: {failure.message}")
    return Obstacle(reason=None, message=JUST_REGISTERED)


def _silent(pod: PodView, seen: Observed, now: datetime) -> Obstacle:
    """Its pod is ready, and it has not said what it is, or said that it is not what was asked for."""
    key = FetchInfo(url=pod.url or "", incarnation=pod.incarnation, role=pod.role, index=pod.index).key
    failure = seen.failures.get(key)
    if failure and failure.word == Word.UNSUPPORTED_PROTOCOL:
        return _named(Reason.PROTOCOL_MISMATCH, failure.message)
    if failure and now - failure.since >= UNREACHABLE_AFTER:
        return Obstacle(reason=None, message=f"does not answer: {failure.message}")
    if pod.incarnation in seen.infos:
        return _named(Reason.GPU_UNAVAILABLE, "its group computes on GPUs, and it found none")
    return Obstacle(reason=None, message=STARTING)
