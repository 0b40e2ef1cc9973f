"""GPUs: how many a job asks for, holds and waits for, and who asked for one and computes without."""

from collections.abc import Collection, Mapping

from fedjob_operator.api.v1alpha1 import FederatedJob, Gpus
from fedjob_operator.core.devices import gpus_of
from fedjob_operator.core.layout import Place, group_of, needs_evaluator, wanted_clients
from fedjob_operator.core.observed import Observed, PodPhase, PodRole, PodView
from fedjob_operator.core.platform import Platform
from fedjob_operator.core.pods import PodPlan
from fedjob_operator.core.turns import takes_turns
from fedjob_protocol.reasons import Reason


def count_gpus(
    job: FederatedJob, seen: Observed, platform: Platform, *, places: Collection[Place] | None = None
) -> Gpus | None:
    """Count GPUs; ``None`` where there are none to speak of.

    Args:
        job: The job.
        seen: Everything seen.
        platform: Where it runs.
        places: Where pods are to be now; absent while there are to be none.
    """
    if not platform.has_containers:
        return None
    asked = _asked(job)
    held = sum(pod.gpus_held for pod in seen.pods if pod.phase is not PodPhase.EXITED)
    waiting = sum(asked.get((pod.role, pod.index), 0) for pod in seen.pods if _waits(pod))
    if takes_turns(job.spec):
        asked = {place: count for place, count in asked.items() if places is not None and place in places}
    requested = sum(asked.values())
    return Gpus(requested=requested, held=held, waiting=waiting) if requested or held else None


def missing_gpus(job: FederatedJob, seen: Observed, platform: Platform) -> str | None:
    """Say how many GPUs the pods wait for that were told that there are too few; ``None`` if none were."""
    if not platform.has_containers:
        return None
    asked = _asked(job)
    told = [pod for pod in seen.pods if pod.waiting is not None and pod.waiting.reason is Reason.GPU_UNAVAILABLE]
    count = sum(asked.get((pod.role, pod.index), 0) for pod in told)
    return f"{count} GPU{'s are' if count > 1 else ' is'} missing" if count else None


def computes_on_cpu(job: FederatedJob, pods: PodPlan, seen: Observed, platform: Platform) -> str | None:
    """Say which ready clients were given GPUs and compute on the CPU all the same; at most three of them."""
    if not platform.has_containers:
        return None
    asked = _asked(job)
    slow = [
        index
        for index in sorted(pods.ready)
        if asked.get((PodRole.CLIENT, index)) and seen.infos[pods.clients[index].incarnation].backend == "cpu"
    ]
    if not slow:
        return None
    more = f" and {len(slow) - 3} more" if len(slow) > 3 else ""
    return f"asked for a GPU and computing on the CPU: client {', '.join(map(str, slow[:3]))}{more}"


def _asked(job: FederatedJob) -> Mapping[Place, int]:
    """GPUs of each place that asks for any."""
    gpus = {group.name: group.gpus or gpus_of(group.template) for group in job.spec.client_groups}
    asked: dict[Place, int] = {}
    if any(gpus.values()):
        layout = job.status.layout
        places = {(PodRole.CLIENT, index): gpus[group_of(layout, index)] for index in wanted_clients(job)}
        asked = {place: count for place, count in places.items() if count}
    evaluation = job.spec.evaluation
    if needs_evaluator(job) and (count := evaluation.gpus or gpus_of(evaluation.template)):
        asked[PodRole.EVALUATOR, 0] = count
    return asked


def _waits(pod: PodView) -> bool:
    return pod.phase is PodPhase.STARTING and pod.gpus_held == 0
