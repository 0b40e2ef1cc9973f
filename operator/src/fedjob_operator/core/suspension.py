"""Suspended jobs: no pods, no GPUs, nothing lost.

An open round is abandoned at once, because people suspend a job to have its GPUs now. Its intent stays in the status: a
resumed job tries it again, one attempt later, with the same participants, as after a restart of the aggregator. What
the aggregator had committed by then is on its volume and is adopted.
"""

from datetime import datetime
from math import ceil

from fedjob_operator.api.base import MAX_SAFE_INTEGER
from fedjob_operator.api.v1alpha1 import (
    ConditionType,
    CurrentRound,
    FederatedJob,
    FederatedJobStatus,
    RoundState,
)
from fedjob_operator.core.conditions import set_condition
from fedjob_operator.core.observed import Observed
from fedjob_operator.core.platform import Platform
from fedjob_operator.core.pods import release_pods
from fedjob_operator.core.readiness import without_pods
from fedjob_operator.core.scene import Step
from fedjob_operator.core.startup import begin_startup
from fedjob_operator.core.unreachable import is_unreachable
from fedjob_protocol.reasons import Reason


def suspend(job: FederatedJob, seen: Observed, now: datetime, platform: Platform) -> Step:
    """Release all pods; the job is suspended when they are gone, or out of anybody's reach."""
    status = without_pods(job, job.status, seen, platform, reason=Reason.SUSPENDED, message="suspended", now=now)
    current = status.current_round
    status = status.model_copy(update={"current_round": abandoned(current) if current else None, "startup": None})
    if status.start_time is not None:
        status = set_condition(
            status,
            ConditionType.PROGRESSING,
            holds=False,
            reason=Reason.SUSPENDED,
            message=f"round {current.number} is tried again when the job is resumed" if current else "",
            now=now,
        )
    return Step(status=suspending(status, seen, now), actions=release_pods(seen, keep_aggregator=False))


def suspending(status: FederatedJobStatus, seen: Observed, now: datetime) -> FederatedJobStatus:
    """Return the status of a job that is to have no pods: suspended once the last one is gone."""
    # A pod that turns up late, when the job is suspended already, is removed without a word.
    left = [pod for pod in seen.pods if not is_unreachable(pod, now)]
    if not left or status.holds(ConditionType.SUSPENDED):
        return _suspended(status, now)
    message = f"{len(left)} pods are being released"
    return set_condition(
        status, ConditionType.SUSPENDED, holds=False, reason=Reason.SUSPENDING, message=message, now=now
    )


def resume(job: FederatedJob, status: FederatedJobStatus, now: datetime) -> Step:
    """Begin to make pods again."""
    condition = status.condition(ConditionType.SUSPENDED)
    if condition and status.holds(ConditionType.SUSPENDED) and status.start_time is not None:
        seconds = max(ceil((now - condition.last_transition_time).total_seconds()), 0)
        total = min(status.suspended_seconds + seconds, MAX_SAFE_INTEGER)
        status = status.model_copy(update={"suspended_seconds": total})
    status = set_condition(status, ConditionType.SUSPENDED, holds=False, reason=Reason.RESUMED, message="", now=now)
    if status.start_time is None:
        return Step(status=begin_startup(status, attempt=1, now=now))
    return Step(
        status=set_condition(
            status,
            ConditionType.PROGRESSING,
            holds=False,
            reason=Reason.RESUMED,
            message=f"pods are made again; {max(status.rounds.committed, 0)} of {job.spec.rounds} rounds are committed",
            now=now,
        )
    )


def abandoned(current: CurrentRound) -> CurrentRound:
    """Return an intent that counts on no aggregator: whichever is there next gets a new attempt."""
    return current.model_copy(
        update={"state": RoundState.PROVISIONING, "boot_id": None, "deadline": None, "reported": 0}
    )


def _suspended(status: FederatedJobStatus, now: datetime) -> FederatedJobStatus:
    """Return the status of a job that has no pods and makes none."""
    return set_condition(
        status,
        ConditionType.SUSPENDED,
        holds=True,
        reason=Reason.SUSPENDED,
        message="set spec.suspend to false to go on",
        now=now,
    )
