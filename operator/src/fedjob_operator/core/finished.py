"""A finished job on a cluster: its clients and GPUs are given back, its model is served, its time to live kept."""

from datetime import datetime

from fedjob_operator.api.v1alpha1 import ConditionType, FederatedJob, FederatedJobStatus
from fedjob_operator.core.actions import DeleteJob
from fedjob_operator.core.conditions import describe, set_condition
from fedjob_operator.core.gpus import count_gpus
from fedjob_operator.core.moments import after, earliest
from fedjob_operator.core.observed import Observed, PodPhase
from fedjob_operator.core.platform import Platform
from fedjob_operator.core.pods import newest_aggregator, release_pods, serve_model
from fedjob_operator.core.readiness import leader
from fedjob_operator.core.scene import Step
from fedjob_operator.core.serving import serve
from fedjob_protocol.reasons import Reason

_NOTHING_TO_SERVE = frozenset({Reason.FOREIGN_VOLUME, Reason.CHECKPOINT_LOST})
"""Ends of jobs whose aggregator would not start again."""


def look_after(job: FederatedJob, seen: Observed, now: datetime, platform: Platform) -> Step:
    """Serve the model until the time to live is over, then delete the job; what it owns goes with it."""
    status, ttl = job.status, job.spec.ttl_seconds_after_finished
    end = None if ttl is None else after(finished_at(status, now), ttl)
    if end is not None and now >= end:
        return Step(status=status, actions=(DeleteJob(),))
    if not _has_model(status):
        return Step(status=_seen(job, seen, now, platform), actions=release_pods(seen, keep_aggregator=False)).waking(
            end
        )
    actions, due = serve_model(job, seen, now)
    servers = serve(job, seen, now, _seen(job, seen, now, platform))
    step = Step(status=servers.status, actions=(*release_pods(seen), *actions, *servers.actions))
    return step.waking(earliest(end, due)).waking(servers.wake_at)


def finished_at(status: FederatedJobStatus, now: datetime) -> datetime:
    """When the job finished; a status without its time, which somebody else wrote, counts from its condition."""
    if status.completion_time is not None:
        return status.completion_time
    for kind in (ConditionType.COMPLETE, ConditionType.FAILED):
        condition = status.condition(kind)
        if condition is not None and status.holds(kind):
            return condition.last_transition_time
    return now


def _has_model(status: FederatedJobStatus) -> bool:
    failure = status.condition(ConditionType.FAILED)
    lost = failure is not None and status.holds(ConditionType.FAILED) and failure.reason in _NOTHING_TO_SERVE
    return status.model is not None and not lost


def _seen(job: FederatedJob, seen: Observed, now: datetime, platform: Platform) -> FederatedJobStatus:
    """What still changes in a finished job: who holds GPUs, whether the model is served, which spec was seen."""
    pod = newest_aggregator(job, seen)
    status = job.status.model_copy(
        update={
            "gpus": count_gpus(job, seen, platform),
            "aggregator": leader(job, pod),
            "observed_generation": job.metadata.generation,
        }
    )
    serves = pod is not None and pod.phase is PodPhase.READY
    status = set_condition(
        status,
        ConditionType.AGGREGATOR_READY,
        holds=serves,
        reason=Reason.AGGREGATOR_READY if serves else Reason.AGGREGATOR_STARTING,
        message="" if serves else "the model is not served now",
        now=now,
    )
    return describe(job, status)
