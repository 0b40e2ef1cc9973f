"""A job that cannot start gives back what it holds, and tries again later.

Two jobs that each hold half of a cluster's GPUs would otherwise wait for each other for ever.
"""

from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final

from fedjob_operator.api.base import MAX_SAFE_INTEGER
from fedjob_operator.api.v1alpha1 import ConditionType, FederatedJob, FederatedJobStatus, Startup
from fedjob_operator.core.conditions import set_condition
from fedjob_operator.core.moments import after
from fedjob_operator.core.observed import Observed
from fedjob_operator.core.platform import Platform
from fedjob_operator.core.pods import release_pods
from fedjob_operator.core.quorum import missing_clients
from fedjob_operator.core.readiness import without_pods
from fedjob_operator.core.scene import Scene, Step, failed
from fedjob_operator.core.unreachable import is_unreachable
from fedjob_protocol.reasons import Reason

MAX_RETRY: Final = timedelta(minutes=30)
"""Longest wait before a further try at starting, without what is added to spread them."""
_SPREAD: Final = 0.25
"""Longest part that a wait is lengthened by, so that jobs which gave up together do not come back together."""


def begin_startup(status: FederatedJobStatus, *, attempt: int, now: datetime) -> FederatedJobStatus:
    """Return the status of a job that begins to start."""
    status = status.model_copy(update={"startup": Startup(attempt=attempt, began_at=now)})
    message = f"starting, try {attempt}" if attempt > 1 else "starting"
    return set_condition(
        status, ConditionType.PROGRESSING, holds=False, reason=Reason.STARTING, message=message, now=now
    )


def claimed(status: FederatedJobStatus, now: datetime) -> FederatedJobStatus:
    """Return the status with which a process takes a job over: in a term of its own.

    The time in which nobody looked after the job is not held against its start.
    """
    status = status.model_copy(update={"term": min(status.term + 1, MAX_SAFE_INTEGER)})
    startup = status.startup
    if startup is None or startup.retry_at is not None:
        return status
    return status.model_copy(update={"startup": startup.model_copy(update={"began_at": now})})


def watch_startup(scene: Scene, step: Step) -> Step:
    """Give up for now if a job that was not started by this step has taken too long.

    Returns:
        The step, with a wake-up at the end of its time; or one that announces the next try, after which `wait_to_retry`
        has the say.
    """
    status = step.status
    if status.start_time is not None:
        return step
    if status.startup is None:
        return Step(status=begin_startup(status, attempt=1, now=scene.now), actions=step.actions, wake_at=step.wake_at)
    limit = after(status.startup.began_at, scene.spec.startup_deadline_seconds)
    if scene.now < limit:
        return step.waking(limit)
    attempt, most = status.startup.attempt, scene.platform.startup_attempts
    message = f"not started within {scene.spec.startup_deadline_seconds} s: {_missing(scene)}"
    if most is not None and attempt >= most:
        return failed(scene, status, Reason.STARTUP_DEADLINE_EXCEEDED, f"{message}; given up after {attempt} tries")
    retry_at = after(scene.now, retry_delay(scene.job.metadata.uid, attempt))
    startup = status.startup.model_copy(update={"retry_at": retry_at})
    message = f"{message}; its pods are released, and it tries again at {retry_at:%Y-%m-%dT%H:%M:%SZ}"
    status = set_condition(
        status.model_copy(update={"startup": startup}),
        ConditionType.PROGRESSING,
        holds=False,
        reason=Reason.STARTUP_DEADLINE_EXCEEDED,
        message=message,
        now=scene.now,
    )
    return Step(status=status, wake_at=retry_at)


def wait_to_retry(job: FederatedJob, startup: Startup, seen: Observed, now: datetime, platform: Platform) -> Step:
    """Release all pods; begin again when they are gone and the wait is over."""
    message = "its pods are released until it tries to start again"
    reason = Reason.STARTUP_DEADLINE_EXCEEDED
    status = without_pods(job, job.status, seen, platform, reason=reason, message=message, now=now)
    if startup.retry_at is not None and now < startup.retry_at:
        return Step(status=status, actions=release_pods(seen, keep_aggregator=False), wake_at=startup.retry_at)
    if any(not is_unreachable(pod, now) for pod in seen.pods):
        return Step(status=status, actions=release_pods(seen, keep_aggregator=False))
    return Step(status=begin_startup(status, attempt=startup.attempt + 1, now=now))


def retry_delay(uid: str, attempt: int) -> timedelta:
    """Wait before the next try: 1, 2, 4 … at most 30 minutes, plus up to a quarter, each job its own."""
    minutes = min(timedelta(minutes=2 ** min(attempt - 1, 10)), MAX_RETRY)
    share = int.from_bytes(sha256(f"startup/{uid}/{attempt}".encode()).digest()[:4], "big") / 2**32
    return minutes + timedelta(seconds=round(minutes.total_seconds() * _SPREAD * share))


def _missing(scene: Scene) -> str:
    """Who is missing: the aggregator's own reason first, since nothing starts without it."""
    aggregator = scene.job.status.condition(ConditionType.AGGREGATOR_READY)
    if scene.state is None:
        return aggregator.message if aggregator and aggregator.message else "the aggregator is not ready"
    return missing_clients(scene.job, scene.pods)
