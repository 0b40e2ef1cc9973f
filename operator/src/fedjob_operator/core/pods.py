"""Which pods to create, replace or remove, and which clients are ready or lost."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from fedjob_operator.api.v1alpha1 import FederatedJob
from fedjob_operator.core.actions import Action, CreatePod, DeletePod, FetchInfo, ReadState
from fedjob_operator.core.cohorts import cohort
from fedjob_operator.core.external import Outside, plan_outside
from fedjob_operator.core.layout import Place, wanted_clients, wanted_outside
from fedjob_operator.core.moments import after
from fedjob_operator.core.observed import Exit, Observed, PodPhase, PodRole, PodView
from fedjob_operator.core.obstacles import Obstacle
from fedjob_operator.core.standing import Standing, newest_pods, take_stock
from fedjob_operator.core.turns import Places, Turn, take_turn, takes_turns
from fedjob_operator.core.unreachable import unreachable_at

MAX_BACKOFF = timedelta(seconds=30)
"""Longest wait before a pod that keeps ending is replaced."""


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
    refusing: Mapping[int, Exit]
    """Clients that register themselves and say that they cannot work for this job, with the reason."""
    obstacles: Mapping[Place, Obstacle]
    """Why the pods that are wanted and not ready are not."""
    evaluator_ready: bool
    evaluator_lost: bool
    wake_at: datetime | None
    """When the next replacement is due."""


def replacement_delay(ordinal: int) -> timedelta:
    """Wait before a pod that ended is replaced: none for the first, then 1 s, 2 s, 4 s … at most `MAX_BACKOFF`."""
    return timedelta() if ordinal == 0 else min(timedelta(seconds=2 ** min(ordinal - 1, 10)), MAX_BACKOFF)


def plan_pods(job: FederatedJob, seen: Observed, now: datetime) -> PodPlan:
    """Plan the pods of a job that is not finished."""
    outside = plan_outside(job, wanted_outside(job), seen, now)
    stock = take_stock(job, seen, now)
    turn = _turn(job, seen, stock)
    if turn is not None:
        stock = stock.without(_idle(stock, turn))
    blocked = stock.blocked
    stock = replace(stock, newest={**stock.newest, **{place: stock.retired[place] for place in blocked}})
    free = [place for place in stock.limits if place not in blocked]
    successors, due = _successors(free, stock, cohort(job, stock))
    aggregators = {index: pod for (role, index), pod in stock.newest.items() if role is PodRole.AGGREGATOR}
    needed = turn.needed if turn else frozenset(_clients(stock.limits))
    evaluator = (PodRole.EVALUATOR, 0)
    return PodPlan(
        actions=(*_deletions(stock.old), *outside.actions, *successors, *_introductions(free, stock, job)),
        aggregator=_leading(job, aggregators),
        aggregators=aggregators,
        clients={**{index: stock.newest[PodRole.CLIENT, index] for index in _clients(stock.newest)}, **outside.views},
        evaluator=stock.newest.get(evaluator),
        ready=frozenset([*_clients(stock.ready), *outside.ready]),
        lost=frozenset(_clients(stock.lost)),
        absent=outside.absent,
        vanished=outside.vanished,
        unproven=outside.unproven,
        refusing=outside.refusing,
        places=frozenset(stock.limits),
        needed=needed,
        queued=frozenset(index for index in needed if turn and stock.is_queued((PodRole.CLIENT, index))),
        obstacles=_obstacles(stock, turn, outside),
        evaluator_ready=evaluator in stock.ready,
        evaluator_lost=evaluator in stock.lost,
        wake_at=due,
    )


def _clients(places: Iterable[Place]) -> list[int]:
    """The indices of the clients among some places."""
    return [index for role, index in places if role is PodRole.CLIENT]


def _obstacles(stock: Standing, turn: Turn | None, outside: Outside) -> dict[Place, Obstacle]:
    """Why those that are waited for are not ready."""
    ahead = {(PodRole.CLIENT, index) for index in turn.ahead} if turn else set()
    found = {place: stock.obstacle(place) for place in stock.limits.keys() - stock.ready - ahead}
    found.update(((PodRole.CLIENT, index), obstacle) for index, obstacle in outside.obstacles.items())
    return found


def _successors(places: Iterable[Place], stock: Standing, group: int | None) -> tuple[list[Action], datetime | None]:
    """The pods to make now, and when the next one is due."""
    made: list[CreatePod] = []
    wake: list[datetime] = []
    for place in places:
        pod, first = stock.newest.get(place), stock.firsts.get(place, 0)
        if pod is None:
            made.append(CreatePod(role=place[0], index=place[1], ordinal=first))
        elif pod.phase is PodPhase.EXITED and place not in stock.lost:
            due = after(pod.since, replacement_delay(pod.ordinal - first))
            if due <= stock.now:
                made.append(CreatePod(role=pod.role, index=pod.index, ordinal=pod.ordinal + 1))
            else:
                wake.append(due)
        elif pod.is_kept:
            made.append(CreatePod(role=pod.role, index=pod.index, ordinal=pod.ordinal + 1))
        elif pod.phase is PodPhase.STOPPING and (at := unreachable_at(pod)) is not None:
            if at > stock.now:
                wake.append(at)
            elif place not in stock.owners:
                made.append(CreatePod(role=pod.role, index=pod.index, ordinal=pod.ordinal + 1))
    return [_grouped(action, group) for action in made], min(wake, default=None)


def _grouped(action: CreatePod, group: int | None) -> CreatePod:
    return action if group is None or action.role is PodRole.AGGREGATOR else replace(action, cohort=group)


def _turn(job: FederatedJob, seen: Observed, stock: Standing) -> Turn | None:
    """Whose turn it is, where clients take turns."""
    if not takes_turns(job.spec):
        return None
    places = Places(
        clients={index: stock.newest[PodRole.CLIENT, index] for index in _clients(stock.newest)},
        evaluator=stock.newest.get((PodRole.EVALUATOR, 0)),
        candidates=tuple(index for index in wanted_clients(job) if (PodRole.CLIENT, index) not in stock.lost),
        ready=frozenset(_clients(stock.ready)),
        is_queued=lambda role, index: stock.is_queued((role, index)),
    )
    return take_turn(job, seen, places)


def _idle(stock: Standing, turn: Turn) -> frozenset[Place]:
    """Places whose turn it is not; their pods are released."""
    has_turn = {(PodRole.CLIENT, index) for index in turn.needed | turn.ahead}
    has_turn |= {(PodRole.EVALUATOR, 0)} if turn.evaluator else set()
    return frozenset(place for place in stock.limits if place[0] is not PodRole.AGGREGATOR and place not in has_turn)


def release_pods(seen: Observed, *, keep_aggregator: bool = True) -> tuple[Action, ...]:
    """Remove the pods of a job that trains no more; an aggregator that is kept goes on serving the model."""
    pods = (pod for pod in seen.pods if not (keep_aggregator and pod.role is PodRole.AGGREGATOR))
    return tuple(_deletions(pods))


def serve_model(job: FederatedJob, seen: Observed, now: datetime) -> tuple[tuple[Action, ...], datetime | None]:
    """Keep one aggregator, the one that led; return what that takes, and when to look again."""
    newest, old = newest_pods(seen)
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
    return newest_pods(seen)[0].get((PodRole.AGGREGATOR, leading_index(job)))


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


def _introductions(places: Iterable[Place], stock: Standing, job: FederatedJob) -> list[Action]:
    """Ask the pods that have just become ready what they are."""
    ready = [pod for place in places if (pod := stock.newest.get(place)) and pod.phase is PodPhase.READY]
    return [action for pod in ready for action in _introduction(pod, stock.seen, job)]


def _introduction(pod: PodView, seen: Observed, job: FederatedJob) -> list[Action]:
    if pod.url is None:
        return []
    if pod.role is PodRole.AGGREGATOR:
        is_alone = job.spec.aggregator.replicas == 1
        is_known = seen.state is not None if is_alone else pod.incarnation in seen.replicas
        return [] if is_known else [ReadState(url=pod.url, incarnation=pod.incarnation)]
    if pod.incarnation in seen.infos:
        return []
    return [FetchInfo(url=pod.url, incarnation=pod.incarnation, role=pod.role, index=pod.index)]


def _deletions(pods: Iterable[PodView]) -> list[Action]:
    """Delete pods; those that somebody asked to end already are left to do so."""
    return [
        DeletePod(role=pod.role, index=pod.index, ordinal=pod.ordinal, incarnation=pod.incarnation)
        for pod in pods
        if pod.phase is not PodPhase.STOPPING
    ]
