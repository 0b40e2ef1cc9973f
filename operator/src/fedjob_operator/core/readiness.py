"""What the status says of pods: counts, GPUs, who leads, and whether clients and aggregator are ready."""

from datetime import datetime

from fedjob_operator.api.resolve import min_clients
from fedjob_operator.api.v1alpha1 import (
    AggregatorStatus,
    Clients,
    ConditionType,
    FederatedJob,
    FederatedJobStatus,
)
from fedjob_operator.core.conditions import set_condition
from fedjob_operator.core.gpus import computes_on_cpu, count_gpus, missing_gpus
from fedjob_operator.core.layout import declared_clients, pod_name
from fedjob_operator.core.leadership import leadership_condition, silence_of, with_standbys
from fedjob_operator.core.observed import Observed, PodPhase, PodRole, PodView
from fedjob_operator.core.obstacles import first_specific
from fedjob_operator.core.platform import Platform
from fedjob_operator.core.pods import PodPlan
from fedjob_operator.core.quorum import at_hand, missing_clients
from fedjob_operator.core.scene import Scene
from fedjob_operator.core.turns import takes_turns
from fedjob_protocol.reasons import Reason


def observe(scene: Scene, status: FederatedJobStatus) -> FederatedJobStatus:
    """Bring counts and readiness up to date."""
    pods, job = scene.pods, scene.job
    clients = Clients(
        desired=len(declared_clients(job)),
        ready=len(pods.ready),
        lost=len(pods.lost | pods.vanished),
        lost_indices=tuple(sorted(pods.lost | pods.vanished)),
        late_indices=status.clients.late_indices,
        replaced=status.clients.replaced,
    )
    update = {
        "clients": clients,
        "gpus": count_gpus(job, scene.seen, scene.platform, places=pods.places),
        "aggregator": _aggregators(scene, status),
    }
    status = status.model_copy(update=update)
    holds, reason, message = _clients_condition(scene, clients)
    status = set_condition(
        status, ConditionType.CLIENTS_READY, holds=holds, reason=reason, message=message, now=scene.now
    )
    holds, reason, message = _aggregator_condition(pods, scene)
    return set_condition(
        status, ConditionType.AGGREGATOR_READY, holds=holds, reason=reason, message=message, now=scene.now
    )


def without_pods(
    job: FederatedJob,
    status: FederatedJobStatus,
    seen: Observed,
    platform: Platform,
    *,
    reason: Reason,
    message: str,
    now: datetime,
) -> FederatedJobStatus:
    """Return the status of a job whose pods are all released, for a reason."""
    clients = Clients(
        desired=len(declared_clients(job)), late_indices=status.clients.late_indices, replaced=status.clients.replaced
    )
    update = {"clients": clients, "gpus": count_gpus(job, seen, platform), "aggregator": None}
    status = status.model_copy(update=update)
    for kind in (ConditionType.CLIENTS_READY, ConditionType.AGGREGATOR_READY):
        status = set_condition(status, kind, holds=False, reason=reason, message=message, now=now)
    return status


def _aggregators(scene: Scene, status: FederatedJobStatus) -> AggregatorStatus | None:
    """Who leads: where there are several it was chosen, and only the rest is brought up to date."""
    if not scene.has_standbys:
        return leader(scene.job, scene.pods.aggregator)
    return None if status.aggregator is None else with_standbys(scene, status.aggregator)


def leader(job: FederatedJob, pod: PodView | None) -> AggregatorStatus | None:
    """Who leads: the aggregator's newest pod."""
    if pod is None:
        return None
    return AggregatorStatus(
        leader=pod_name(job.metadata.name, pod.role, pod.index, pod.ordinal),
        uid=pod.incarnation,
        replicas=1 if pod.phase is PodPhase.READY else 0,
    )


def _clients_condition(scene: Scene, clients: Clients) -> tuple[bool, Reason, str]:
    pods, is_enough = scene.pods, clients.ready >= min_clients(scene.spec)
    counted = f"{clients.ready} of {clients.desired} are ready"
    if takes_turns(scene.spec):
        there, is_enough = pods.ready & pods.needed, at_hand(scene.job, pods) >= min_clients(scene.spec)
        is_enough = is_enough and (bool(there) or not pods.needed)
        counted = (
            f"{len(there)} of {len(pods.needed)} whose turn it is are ready" if pods.needed else "it is nobody's turn"
        )
    if not is_enough or pods.queued:
        obstacles = {index: item for (role, index), item in pods.obstacles.items() if role is PodRole.CLIENT}
        reason = first_specific(obstacles) or Reason.WAITING_FOR_CLIENTS
        said = [counted, missing_clients(scene.job, pods)]
        if reason is Reason.GPU_UNAVAILABLE and (count := missing_gpus(scene.job, scene.seen, scene.platform)):
            said.insert(1, count)
        return is_enough, reason, "; ".join(said)
    if slow := computes_on_cpu(scene.job, scene.pods, scene.seen, scene.platform):
        return True, Reason.GPU_UNAVAILABLE, f"{counted}; {slow}"
    return True, Reason.CLIENTS_READY, counted


def _aggregator_condition(pods: PodPlan, scene: Scene) -> tuple[bool, Reason, str]:
    if scene.has_standbys:
        return leadership_condition(scene)
    pod = pods.aggregator
    if pod and pod.exit and pod.phase is not PodPhase.READY and pod.waiting is None:
        return False, pod.exit.reason, f"the aggregator ended: {pod.exit.message}; it is started again"
    found = pods.obstacles.get((PodRole.AGGREGATOR, 0))
    if found and found.reason:
        return False, found.reason, f"the aggregator: {found.message}"
    if pod is None or pod.phase is not PodPhase.READY:
        return False, Reason.AGGREGATOR_STARTING, "the aggregator is starting"
    if silence := silence_of(scene, pod):
        return False, Reason.AGGREGATOR_UNREACHABLE, f"the aggregator does not answer: {silence.message}"
    if scene.state is None:
        return False, Reason.AGGREGATOR_STARTING, "the aggregator is starting"
    return True, Reason.AGGREGATOR_READY, ""
