"""GPUs: how many a job asks for, holds and waits for, and who asked for one and computes without."""

from collections.abc import Mapping

from fedjob_operator.api.v1alpha1 import FederatedJob, Gpus
from fedjob_operator.core.observed import Observed, PodPhase, PodRole, PodView
from fedjob_operator.core.platform import Platform
from fedjob_operator.core.pods import Place, PodPlan, group_of, needs_evaluator, wanted_clients


def count_gpus(job: FederatedJob, seen: Observed, platform: Platform) -> Gpus | None:
    """Count GPUs; ``None`` where there are none to speak of."""
    if not platform.has_containers:
        return None
    asked = _asked(job)
    held = sum(pod.gpus_held for pod in seen.pods if pod.phase is not PodPhase.EXITED)
    waiting = sum(asked.get((pod.role, pod.index), 0) for pod in seen.pods if _waits(pod))
    requested = sum(asked.values())
    return Gpus(requested=requested, held=held, waiting=waiting) if requested or held else None


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
    gpus = {group.name: group.gpus for group in job.spec.client_groups}
    asked: dict[Place, int] = {}
    if any(gpus.values()):
        layout = job.status.layout
        places = {(PodRole.CLIENT, index): gpus[group_of(layout, index)] for index in wanted_clients(job)}
        asked = {place: count for place, count in places.items() if count}
    if needs_evaluator(job) and job.spec.evaluation.gpus:
        asked[PodRole.EVALUATOR, 0] = job.spec.evaluation.gpus
    return asked


def _waits(pod: PodView) -> bool:
    return pod.phase is PodPhase.STARTING and pod.gpus_held == 0
