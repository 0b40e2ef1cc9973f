"""Which pods to create, replace or remove, and which clients are ready or lost."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from fedjob_operator.api.v1alpha1 import ClientGroup, EvaluationMode, FederatedJob, LayoutEntry
from fedjob_operator.core.actions import Action, CreatePod, DeletePod, FetchInfo, ReadState
from fedjob_operator.core.observed import Observed, PodPhase, PodRole, PodView

Place = tuple[PodRole, int]
"""Where a pod belongs: its role and index; pods that follow one another in a place differ by their ordinal."""

MAX_BACKOFF = timedelta(seconds=30)
"""Longest wait before a pod that keeps ending is replaced."""
EVALUATOR_BACKOFF_LIMIT = 3
"""Pods replaced for the evaluator before evaluation counts as failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodPlan:
    """What is known and wanted of the pods."""

    actions: tuple[Action, ...]
    aggregator: PodView | None
    """The aggregator's newest pod."""
    clients: Mapping[int, PodView]
    """The newest pod of each client index that has one."""
    evaluator: PodView | None
    ready: frozenset[int]
    """Clients that answer and said what they hold."""
    lost: frozenset[int]
    """Clients whose pods ended more often than ``backoffLimit`` allows."""
    evaluator_ready: bool
    evaluator_lost: bool
    wake_at: datetime | None
    """When the next replacement is due."""


def replacement_delay(ordinal: int) -> timedelta:
    """Wait before a pod that ended is replaced: none for the first, then 1 s, 2 s, 4 s … at most `MAX_BACKOFF`."""
    return timedelta() if ordinal == 0 else min(timedelta(seconds=2 ** min(ordinal - 1, 10)), MAX_BACKOFF)


def needs_evaluator(job: FederatedJob) -> bool:
    """Whether a pod with held-out data evaluates the models of this job."""
    return EvaluationMode.EVALUATOR in job.spec.evaluation.modes


def plan_pods(job: FederatedJob, seen: Observed, now: datetime) -> PodPlan:
    """Plan the pods of a job that is not finished."""
    limits = _backoff_limits(job)
    newest, old = _newest(seen)
    old += [newest.pop(place) for place in sorted(newest.keys() - limits.keys())]  # nobody asks for them any more
    actions: list[Action] = [_delete(pod) for pod in old]
    wake: list[datetime] = []
    lost: set[int] = set()
    for place, limit in limits.items():
        pod = newest.get(place)
        if pod is None:
            actions.append(CreatePod(role=place[0], index=place[1], ordinal=0))
        elif pod.phase is PodPhase.EXITED:
            due = pod.since + replacement_delay(pod.ordinal)
            if limit is not None and pod.ordinal >= limit:
                lost.update([pod.index] if pod.role is PodRole.CLIENT else [])
            elif due <= now:
                actions.append(CreatePod(role=pod.role, index=pod.index, ordinal=pod.ordinal + 1))
            else:
                wake.append(due)
        elif pod.phase is PodPhase.READY:
            actions.extend(_introductions(pod, seen))
    evaluator = newest.get((PodRole.EVALUATOR, 0))
    clients = {index: pod for (role, index), pod in newest.items() if role is PodRole.CLIENT}
    return PodPlan(
        actions=tuple(actions),
        aggregator=newest.get((PodRole.AGGREGATOR, 0)),
        clients=clients,
        evaluator=evaluator,
        ready=frozenset(index for index, pod in clients.items() if _is_ready(pod, seen)),
        lost=frozenset(lost),
        evaluator_ready=evaluator is not None and _is_ready(evaluator, seen),
        evaluator_lost=evaluator is not None
        and evaluator.phase is PodPhase.EXITED
        and evaluator.ordinal >= EVALUATOR_BACKOFF_LIMIT,
        wake_at=min(wake, default=None),
    )


def release_pods(seen: Observed) -> tuple[Action, ...]:
    """Remove clients and evaluator of a finished job; the aggregator goes on serving the model."""
    return tuple(_delete(pod) for pod in seen.pods if pod.role is not PodRole.AGGREGATOR)


def client_indices(layout: tuple[LayoutEntry, ...]) -> range:
    """All client indices that are kept for a job, in order; groups follow one another without a gap."""
    return range(sum(entry.count for entry in layout))


def declared_clients(job: FederatedJob) -> tuple[int, ...]:
    """The client indices that a job has now, in order: of each group as many as it declares, of those kept for it."""
    groups = {group.name: group for group in job.spec.client_groups}
    return tuple(index for entry in job.status.layout for index in _declared(entry, groups[entry.group]))


def _declared(entry: LayoutEntry, group: ClientGroup) -> range:
    size = group.external.min_clients if group.external else group.replicas or 0
    return range(entry.first, entry.first + min(entry.count, size))


def group_of(layout: tuple[LayoutEntry, ...], index: int) -> str:
    """Name of the group that a client index belongs to.

    Raises:
        LookupError: No group has this index.
    """
    for entry in layout:
        if entry.first <= index < entry.first + entry.count:
            return entry.group
    raise LookupError(f"no client group has index {index}")


def _newest(seen: Observed) -> tuple[dict[Place, PodView], list[PodView]]:
    """Split into the newest pod of each place, and pods whose successor exists."""
    places: defaultdict[Place, list[PodView]] = defaultdict(list)
    for pod in seen.pods:
        places[pod.role, pod.index].append(pod)
    newest: dict[Place, PodView] = {}
    old: list[PodView] = []
    for place, pods in places.items():
        *before, last = sorted(pods, key=lambda pod: pod.ordinal)
        newest[place] = last
        old.extend(before)
    return newest, old


def _backoff_limits(job: FederatedJob) -> dict[Place, int | None]:
    """Every place that needs a pod, with the number of replacements that it may have; ``None`` is no limit."""
    limits: dict[Place, int | None] = {(PodRole.AGGREGATOR, 0): None}
    groups = {group.name: group for group in job.spec.client_groups}
    for entry in job.status.layout:
        group = groups[entry.group]
        limits.update(((PodRole.CLIENT, index), group.backoff_limit) for index in _declared(entry, group))
    if needs_evaluator(job):
        limits[PodRole.EVALUATOR, 0] = EVALUATOR_BACKOFF_LIMIT
    return limits


def _introductions(pod: PodView, seen: Observed) -> list[Action]:
    """Ask a pod that has just become ready what it is."""
    if pod.url is None:
        return []
    if pod.role is PodRole.AGGREGATOR:
        return [] if seen.state else [ReadState(url=pod.url, incarnation=pod.incarnation)]
    if pod.incarnation in seen.infos:
        return []
    return [FetchInfo(url=pod.url, incarnation=pod.incarnation, role=pod.role, index=pod.index)]


def _is_ready(pod: PodView, seen: Observed) -> bool:
    return pod.phase is PodPhase.READY and pod.incarnation in seen.infos


def _delete(pod: PodView) -> DeletePod:
    return DeletePod(role=pod.role, index=pod.index, ordinal=pod.ordinal, incarnation=pod.incarnation)
