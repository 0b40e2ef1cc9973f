"""Which pods to create, replace or remove, and which clients are ready or lost."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from types import MappingProxyType

from fedjob_operator.api.v1alpha1 import ClientGroup, Device, EvaluationMode, FederatedJob, LayoutEntry
from fedjob_operator.core.actions import Action, CreatePod, DeletePod, FetchInfo, ReadState
from fedjob_operator.core.external import plan_outside
from fedjob_operator.core.moments import after
from fedjob_operator.core.observed import Observed, PodPhase, PodRole, PodView
from fedjob_operator.core.obstacles import Obstacle, obstacle
from fedjob_operator.core.turns import ROOM, Places, Turn, take_turn, takes_turns
from fedjob_operator.core.unreachable import unreachable_at
from fedjob_protocol.reasons import Reason

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
    """The aggregator's newest pod; of several, the one that the status says leads."""
    aggregators: Mapping[int, PodView]
    """The newest pod of each aggregator that has one, by index."""
    clients: Mapping[int, PodView]
    """The newest pod of each client index that has one."""
    evaluator: PodView | None
    ready: frozenset[int]
    """Clients that answer and said what they hold."""
    lost: frozenset[int]
    """Clients whose pods ended more often than ``backoffLimit`` allows."""
    places: frozenset[Place]
    """Where a pod is to be now."""
    needed: frozenset[int]
    """Clients that are to be there now, whatever else has a pod: where clients take turns, those whose turn it is."""
    queued: frozenset[int]
    """Of these, where clients take turns, those whose pods wait for room on a node."""
    absent: frozenset[int]
    """Clients that register themselves and are not there now."""
    vanished: frozenset[int]
    """Of these, those that were there."""
    unproven: frozenset[int]
    """Clients that register themselves and have not taken the job: not chosen until they have."""
    obstacles: Mapping[Place, Obstacle]
    """Why the pods that are wanted and not ready are not."""
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
    limits, owners = _backoff_limits(job), _volume_owners(job)
    outside = plan_outside(job, _wanted_outside(job), seen, now)
    firsts = {(PodRole.CLIENT, entry.index): entry.first_ordinal for entry in job.status.clients.replaced}
    newest, old = _newest(seen, firsts)
    retired = {(pod.role, pod.index): pod for pod in old}
    old += [newest.pop(place) for place in sorted(newest.keys() - limits.keys())]  # nobody asks for them any more
    lost = {place for place, limit in limits.items() if _is_lost(newest.get(place), limit, firsts.get(place, 0))}
    ready = {place for place in limits if (found := newest.get(place)) and _is_ready(found, seen, job)}
    hinders = partial(_obstacle, newest, seen, firsts=firsts, lost=lost, owners=owners, now=now)
    turn = _turn(job, seen, newest, lost=lost, ready=ready, hinders=hinders)
    if turn is not None:
        idle = _idle(limits, turn)
        old += [newest.pop(place) for place in sorted(idle - lost) if place in newest]
        limits = {place: limit for place, limit in limits.items() if place not in idle}
        ready &= limits.keys()
    blocked = (limits.keys() & owners & retired.keys()) - newest.keys()
    newest |= {place: retired[place] for place in blocked}  # their volumes are not free yet
    free = [place for place in limits if place not in blocked]
    successors, due = _successors(free, newest, firsts=firsts, lost=lost, owners=owners, now=now)
    introductions = [
        action
        for place in free
        if (pod := newest.get(place)) and pod.phase is PodPhase.READY
        for action in _introductions(pod, seen, job)
    ]
    waited_for = limits.keys() - ready - ({(PodRole.CLIENT, index) for index in turn.ahead} if turn else set())
    obstacles = {place: hinders(place) for place in waited_for}
    obstacles.update(((PodRole.CLIENT, index), found) for index, found in outside.obstacles.items())
    needed = turn.needed if turn else frozenset(index for role, index in limits if role is PodRole.CLIENT)
    aggregators = {index: pod for (role, index), pod in newest.items() if role is PodRole.AGGREGATOR}
    return PodPlan(
        actions=(*_deletions(old), *outside.actions, *successors, *introductions),
        aggregator=_leading(job, aggregators),
        aggregators=aggregators,
        clients={**{index: pod for (role, index), pod in newest.items() if role is PodRole.CLIENT}, **outside.views},
        evaluator=newest.get((PodRole.EVALUATOR, 0)),
        ready=frozenset([*(index for role, index in ready if role is PodRole.CLIENT), *outside.ready]),
        lost=frozenset(index for role, index in lost if role is PodRole.CLIENT),
        absent=outside.absent,
        vanished=outside.vanished,
        unproven=outside.unproven,
        places=frozenset(limits),
        needed=needed,
        queued=frozenset(index for index in needed if turn and _is_queued(newest, hinders, (PodRole.CLIENT, index))),
        obstacles=obstacles,
        evaluator_ready=(PodRole.EVALUATOR, 0) in ready,
        evaluator_lost=(PodRole.EVALUATOR, 0) in lost,
        wake_at=due,
    )


def _successors(
    places: Iterable[Place],
    newest: Mapping[Place, PodView],
    *,
    firsts: Mapping[Place, int],
    lost: set[Place],
    owners: frozenset[Place],
    now: datetime,
) -> tuple[list[Action], datetime | None]:
    """The pods to make now, and when the next one is due."""
    actions: list[Action] = []
    wake: list[datetime] = []
    for place in places:
        pod, first = newest.get(place), firsts.get(place, 0)
        if pod is None:
            actions.append(CreatePod(role=place[0], index=place[1], ordinal=first))
        elif pod.phase is PodPhase.EXITED and place not in lost:
            due = after(pod.since, replacement_delay(pod.ordinal - first))
            if due <= now:
                actions.append(CreatePod(role=pod.role, index=pod.index, ordinal=pod.ordinal + 1))
            else:
                wake.append(due)
        elif pod.phase is PodPhase.STOPPING and (at := unreachable_at(pod)) is not None:
            if at > now:
                wake.append(at)
            elif place not in owners:
                actions.append(CreatePod(role=pod.role, index=pod.index, ordinal=pod.ordinal + 1))
    return actions, min(wake, default=None)


def _turn(
    job: FederatedJob,
    seen: Observed,
    newest: Mapping[Place, PodView],
    *,
    lost: set[Place],
    ready: set[Place],
    hinders: Callable[[Place], Obstacle],
) -> Turn | None:
    """Whose turn it is, where clients take turns."""
    if not takes_turns(job.spec):
        return None
    places = Places(
        clients={index: pod for (role, index), pod in newest.items() if role is PodRole.CLIENT},
        evaluator=newest.get((PodRole.EVALUATOR, 0)),
        candidates=tuple(index for index in wanted_clients(job) if (PodRole.CLIENT, index) not in lost),
        ready=frozenset(index for role, index in ready if role is PodRole.CLIENT),
        is_queued=lambda role, index: _is_queued(newest, hinders, (role, index)),
    )
    return take_turn(job, seen, places)


def _idle(limits: Mapping[Place, int | None], turn: Turn) -> set[Place]:
    """Places whose turn it is not; their pods are released."""
    has_turn = {(PodRole.CLIENT, index) for index in turn.needed | turn.ahead}
    has_turn |= {(PodRole.EVALUATOR, 0)} if turn.evaluator else set()
    return {place for place in limits if place[0] is not PodRole.AGGREGATOR and place not in has_turn}


def _is_lost(pod: PodView | None, limit: int | None, first: int) -> bool:
    """Whether a place gets no further pod; one that a node had no GPU for did nothing wrong, and is made again."""
    if pod is None or limit is None or pod.phase is not PodPhase.EXITED or pod.ordinal - first < limit:
        return False
    return pod.exit is None or pod.exit.reason is not Reason.GPU_UNAVAILABLE


def _obstacle(
    newest: Mapping[Place, PodView],
    seen: Observed,
    place: Place,
    *,
    firsts: Mapping[Place, int],
    lost: set[Place],
    owners: frozenset[Place],
    now: datetime,
) -> Obstacle:
    return obstacle(
        *place,
        newest.get(place),
        seen,
        first=firsts.get(place, 0),
        lost=place in lost,
        has_volume=place in owners,
        now=now,
    )


def _is_queued(newest: Mapping[Place, PodView], hinders: Callable[[Place], Obstacle], place: Place) -> bool:
    """Whether a pod waits until others give back what they hold."""
    pod = newest.get(place)
    is_waiting = pod is None or pod.phase in (PodPhase.STARTING, PodPhase.EXITED)
    return is_waiting and hinders(place).reason in ROOM


def release_pods(seen: Observed, *, keep_aggregator: bool = True) -> tuple[Action, ...]:
    """Remove the pods of a job that trains no more; an aggregator that is kept goes on serving the model."""
    pods = (pod for pod in seen.pods if not (keep_aggregator and pod.role is PodRole.AGGREGATOR))
    return tuple(_deletions(pods))


def serve_model(job: FederatedJob, seen: Observed, now: datetime) -> tuple[tuple[Action, ...], datetime | None]:
    """Keep one aggregator, the one that led; return what that takes, and when to look again."""
    newest, old = _newest(seen)
    place = (PodRole.AGGREGATOR, leading_index(job))
    old += [pod for other, pod in newest.items() if other != place]
    actions = _deletions(pod for pod in old if pod.role is PodRole.AGGREGATOR)
    pod = newest.get(place)
    if pod is None:
        return (*actions, CreatePod(role=PodRole.AGGREGATOR, index=place[1], ordinal=0)), None
    due = after(pod.since, replacement_delay(pod.ordinal))
    if pod.phase is not PodPhase.EXITED:
        return tuple(actions), None
    if due > now:
        return tuple(actions), due
    return (*actions, CreatePod(role=PodRole.AGGREGATOR, index=place[1], ordinal=pod.ordinal + 1)), None


def newest_aggregator(job: FederatedJob, seen: Observed) -> PodView | None:
    """The newest pod of the aggregator that led last."""
    return _newest(seen)[0].get((PodRole.AGGREGATOR, leading_index(job)))


def leading_index(job: FederatedJob) -> int:
    """Index of the aggregator that leads, or led last; 0 where there is but one, or none has led."""
    known = job.status.aggregator
    for index in range(job.spec.aggregator.replicas if known and known.leader else 0):
        if known and (known.leader or "").startswith(f"{job.metadata.name}-{PodRole.AGGREGATOR}-{index}-"):
            return index
    return 0


def _leading(job: FederatedJob, aggregators: Mapping[int, PodView]) -> PodView | None:
    """The aggregator's pod; of several, the very one that was chosen, if it is still there."""
    if job.spec.aggregator.replicas == 1:
        return aggregators.get(0)
    known, pod = job.status.aggregator, aggregators.get(leading_index(job))
    is_chosen = known is not None and known.boot_id is not None and pod is not None and pod.incarnation == known.uid
    return pod if is_chosen else None


def pod_name(job_name: str, role: PodRole, index: int, ordinal: int) -> str:
    """Name of a pod, such as ``mnist-client-3-0``."""
    return f"{job_name}-{role}-{index}-{ordinal}"


def client_indices(layout: tuple[LayoutEntry, ...]) -> range:
    """All client indices that are kept for a job, in order; groups follow one another without a gap."""
    return range(sum(entry.count for entry in layout))


def declared_clients(job: FederatedJob) -> tuple[int, ...]:
    """The client indices that a job has now, in order: of each group as many as it declares, of those kept for it."""
    return tuple(index for entry, group in _groups(job) for index in _declared(entry, group))


def wanted_clients(job: FederatedJob) -> tuple[int, ...]:
    """The declared clients without those that were refused because they came too late."""
    late = frozenset(job.status.clients.late_indices)
    return tuple(index for index in declared_clients(job) if index not in late)


def _groups(job: FederatedJob) -> list[tuple[LayoutEntry, ClientGroup]]:
    """Each entry of the layout with its group; an entry whose group is gone from the spec has no clients."""
    groups = {group.name: group for group in job.spec.client_groups}
    return [(entry, groups[entry.group]) for entry in job.status.layout if entry.group in groups]


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


def client_group(job: FederatedJob, index: int) -> ClientGroup:
    """The group that a client index belongs to.

    Raises:
        LookupError: No group has this index.
    """
    name = group_of(job.status.layout, index)
    for group in job.spec.client_groups:
        if group.name == name:
            return group
    raise LookupError(f"the spec has no client group {name}, which client {index} belongs to")


def _newest(
    seen: Observed, firsts: Mapping[Place, int] = MappingProxyType({})
) -> tuple[dict[Place, PodView], list[PodView]]:
    """Split into the newest pod of each place, and pods that are done with.

    Args:
        seen: Everything seen.
        firsts: Where not 0: the first ordinal that counts.
    """
    places: defaultdict[Place, list[PodView]] = defaultdict(list)
    for pod in seen.pods:
        places[pod.role, pod.index].append(pod)
    newest: dict[Place, PodView] = {}
    old: list[PodView] = []
    for place, pods in places.items():
        *before, last = sorted(pods, key=lambda pod: pod.ordinal)
        old.extend(before)
        if last.ordinal < firsts.get(place, 0):
            old.append(last)
        else:
            newest[place] = last
    return newest, old


def _backoff_limits(job: FederatedJob) -> dict[Place, int | None]:
    """Every place that needs a pod, with the number of replacements that it may have; ``None`` is no limit."""
    limits: dict[Place, int | None] = {
        (PodRole.AGGREGATOR, index): None for index in range(job.spec.aggregator.replicas)
    }
    late = frozenset(job.status.clients.late_indices)
    for entry, group in _groups(job):
        if group.external is not None:
            continue
        wanted = (index for index in _declared(entry, group) if index not in late)
        limits.update(((PodRole.CLIENT, index), group.backoff_limit) for index in wanted)
    if needs_evaluator(job):
        limits[PodRole.EVALUATOR, 0] = EVALUATOR_BACKOFF_LIMIT
    return limits


def _wanted_outside(job: FederatedJob) -> dict[int, ClientGroup]:
    """The clients that register themselves and are wanted, with their groups."""
    late = frozenset(job.status.clients.late_indices)
    groups = [(entry, group) for entry, group in _groups(job) if group.external is not None]
    return {index: group for entry, group in groups for index in _declared(entry, group) if index not in late}


def _volume_owners(job: FederatedJob) -> frozenset[Place]:
    """Places that have a volume of their own: a successor waits until nobody else can write to it."""
    groups = (entry for entry, group in _groups(job) if group.volume_claim_templates)
    clients = ((PodRole.CLIENT, index) for entry in groups for index in range(entry.first, entry.first + entry.count))
    aggregators = ((PodRole.AGGREGATOR, index) for index in range(job.spec.aggregator.replicas))
    return frozenset([*aggregators, *clients])


def _introductions(pod: PodView, seen: Observed, job: FederatedJob) -> list[Action]:
    """Ask a pod that has just become ready what it is."""
    if pod.url is None:
        return []
    if pod.role is PodRole.AGGREGATOR:
        is_alone = job.spec.aggregator.replicas == 1
        is_known = seen.state is not None if is_alone else pod.incarnation in seen.replicas
        return [] if is_known else [ReadState(url=pod.url, incarnation=pod.incarnation)]
    if pod.incarnation in seen.infos:
        return []
    return [FetchInfo(url=pod.url, incarnation=pod.incarnation, role=pod.role, index=pod.index)]


def _is_ready(pod: PodView, seen: Observed, job: FederatedJob) -> bool:
    """Whether a pod answers and said what it holds; a client of a group for GPUs also has to have one."""
    info = seen.infos.get(pod.incarnation)
    if pod.phase is not PodPhase.READY or (info is None and pod.role is not PodRole.AGGREGATOR):
        return False
    if pod.role is not PodRole.CLIENT or info is None or info.backend == "gpu":
        return True
    return client_group(job, pod.index).device is not Device.GPU


def _deletions(pods: Iterable[PodView]) -> list[Action]:
    """Delete pods; those that somebody asked to end already are left to do so."""
    return [
        DeletePod(role=pod.role, index=pod.index, ordinal=pod.ordinal, incarnation=pod.incarnation)
        for pod in pods
        if pod.phase is not PodPhase.STOPPING
    ]
