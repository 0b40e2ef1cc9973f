"""Clients that register themselves: they have no pods of ours, and are seen through the aggregator.

Each stands in the place of a pod: where it says it answers, and for how long it has been there. Nothing is made or
deleted for it. Whether it is who it says is checked before it is given work: what answers at its address has to know
the boot id that was registered, which nobody else was told.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from fedjob_operator.api.v1alpha1 import ClientGroup, Device, FederatedJob, LateJoiners
from fedjob_operator.core.actions import Action, ConfigureClient, FetchInfo, TurnAway
from fedjob_operator.core.failures import DEFINITIVE
from fedjob_operator.core.observed import Exit, Observed, PodPhase, PodRole, PodView
from fedjob_operator.core.obstacles import NOT_REGISTERED, STARTING, UNREACHABLE_AFTER, Obstacle, silence_of_client
from fedjob_protocol.clients import RegisteredClient
from fedjob_protocol.errors import Word
from fedjob_protocol.reasons import Reason
from fedjob_protocol.registration import LOST_SECONDS, TurnedAway


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """What is known and wanted of clients that register themselves."""

    views: Mapping[int, PodView]
    """By index: those that registered; one that was not heard of lately has exited."""
    ready: frozenset[int]
    absent: frozenset[int]
    """Those that are known not to be there."""
    vanished: frozenset[int]
    """Of these, those that were there."""
    unproven: frozenset[int]
    """Those that are known not to have taken the job: nobody waits for them."""
    refusing: Mapping[int, Exit]
    """Those that said, again and again, that they cannot work for this job, and why."""
    obstacles: Mapping[int, Obstacle]
    """Why those that are wanted and not ready are not."""
    actions: tuple[Action, ...]


def has_outside(job: FederatedJob) -> bool:
    """Whether clients of a job register themselves."""
    return any(group.external is not None for group in job.spec.client_groups)


def plan_outside(job: FederatedJob, wanted: Mapping[int, ClientGroup], seen: Observed, now: datetime) -> Outside:
    """See who is there, and introduce the job to whoever has just come.

    Args:
        job: The job.
        wanted: The indices of clients that register themselves and are wanted, with their groups.
        seen: Everything seen.
        now: The time.
    """
    views = {index: _view(client) for index, client in (seen.registered or {}).items() if index in wanted}
    there = {index: view for index, view in views.items() if view.phase is PodPhase.READY}
    ready = frozenset(index for index, view in there.items() if _is_ready(view, wanted[index], seen))
    known = seen.registered is not None
    absent = frozenset(index for index in wanted if index not in there) if known else frozenset()
    actions = [action for view in there.values() for action in _introductions(view, seen)]
    return Outside(
        views=views,
        ready=ready,
        absent=absent,
        vanished=absent & views.keys(),
        unproven=frozenset(wanted.keys() - ready) if known else frozenset(),
        refusing={index: why for index, view in there.items() if (why := _refusal(view, seen, now))},
        obstacles={index: _obstacle(views.get(index), seen, now) for index in wanted if index not in ready},
        actions=(*actions, *_turned_away(job, seen)),
    )


def incarnation_of(client: RegisteredClient) -> str:
    """Identity of the program that registered, under the index that it has."""
    return f"external-{client.client}-{client.boot_id}"


def _view(client: RegisteredClient) -> PodView:
    gone = Exit(reason=Reason.CLIENT_LOST, message=f"not heard of for {LOST_SECONDS:g} s") if client.is_lost else None
    return PodView(
        role=PodRole.CLIENT,
        index=client.client,
        ordinal=0,
        incarnation=incarnation_of(client),
        phase=PodPhase.EXITED if gone else PodPhase.READY,
        since=client.since,
        url=client.url,
        exit=gone,
        boot_id=client.boot_id,
    )


def _is_ready(view: PodView, group: ClientGroup, seen: Observed) -> bool:
    """Whether it took the job; a client of a group for GPUs also has to have one."""
    if view.incarnation not in seen.configured or not _is_itself(view, seen):
        return False
    return group.device is not Device.GPU or seen.infos[view.incarnation].backend == "gpu"


def _is_itself(view: PodView, seen: Observed) -> bool:
    info = seen.infos.get(view.incarnation)
    return info is not None and info.boot_id == view.boot_id


def _introductions(view: PodView, seen: Observed) -> list[Action]:
    """Ask who answers there; tell it the job once it is known to be the one that registered."""
    if not _is_itself(view, seen):
        return [_ask(view)]
    return [] if view.incarnation in seen.configured else [_told(view)]


def _ask(view: PodView) -> FetchInfo:
    return FetchInfo(
        url=view.url or "", incarnation=view.incarnation, boot_id=view.boot_id, role=PodRole.CLIENT, index=view.index
    )


def _refusal(view: PodView, seen: Observed, now: datetime) -> Exit | None:
    """Why a client does not take the job, if it said so for a while: a word of its own, such as ``DataError: …``."""
    failure = seen.failures.get(_told(view).key)
    if failure is None or failure.word != Word.BAD_REQUEST or now - failure.since < UNREACHABLE_AFTER:
        return None
    word = failure.message.partition(": ")[0]
    return Exit(reason=Reason(word), message=failure.message) if word in DEFINITIVE else None


def _told(view: PodView) -> ConfigureClient:
    return ConfigureClient(url=view.url or "", incarnation=view.incarnation, boot_id=view.boot_id, index=view.index)


def _turned_away(job: FederatedJob, seen: Observed) -> list[Action]:
    """Tell those who came too late, or for whom there is no place in this job."""
    if job.status.start_time is None:
        return []
    refuses = job.spec.late_joiners is LateJoiners.REFUSE
    late, places = frozenset(job.status.clients.late_indices), sum(entry.count for entry in job.status.layout)
    actions: list[Action] = []
    for index, client in sorted((seen.registered or {}).items()):
        view = _view(client)
        is_meant = index >= places or (refuses and index in late)
        if not is_meant or view.phase is not PodPhase.READY or view.incarnation in seen.turned_away:
            continue
        if not _is_itself(view, seen):
            actions.append(_ask(view))
            continue
        why = "refuses late joiners" if refuses else f"has no place for it: all {places} are taken"
        message = f"{job.metadata.name} has begun without it, and {why}"
        notice = TurnedAway(job_uid=job.metadata.uid, reason=Reason.LATE_JOINER, message=message)
        actions.append(TurnAway(url=view.url or "", incarnation=view.incarnation, boot_id=view.boot_id, notice=notice))
    return actions


def farewells(job: FederatedJob, seen: Observed) -> tuple[Action, ...]:
    """Tell everybody who worked for a finished job that it is over; whoever does not answer is not asked twice."""
    actions = []
    for client in (seen.registered or {}).values():
        view, phase = _view(client), job.status.phase
        if view.incarnation not in seen.configured or view.incarnation in seen.turned_away:
            continue
        message = (job.status.message or "")[:1024]
        notice = TurnedAway(job_uid=job.metadata.uid, reason=phase, message=message)
        action = TurnAway(url=view.url or "", incarnation=view.incarnation, boot_id=view.boot_id, notice=notice)
        if view.phase is PodPhase.READY and action.key not in seen.failures:
            actions.append(action)
    return tuple(actions)


def _obstacle(view: PodView | None, seen: Observed, now: datetime) -> Obstacle:
    if view is None:
        return Obstacle(reason=None, message=NOT_REGISTERED if seen.registered is not None else STARTING)
    if view.exit is not None:
        return Obstacle(reason=Reason.CLIENT_LOST, message=f"{Reason.CLIENT_LOST}: {view.exit.message}")
    info = seen.infos.get(view.incarnation)
    if info is not None and info.boot_id != view.boot_id:
        message = f"another program than the one that registered answers at {view.url}"
        return Obstacle(reason=Reason.CLIENT_LOST, message=message)
    if view.incarnation in seen.configured:
        message = f"{Reason.GPU_UNAVAILABLE}: its group computes on GPUs, and it found none"
        return Obstacle(reason=Reason.GPU_UNAVAILABLE, message=message)
    if refusal := _refusal(view, seen, now):
        return Obstacle(reason=refusal.reason, message=refusal.message)
    return silence_of_client(view, seen, now, (_told(view) if info is not None else _ask(view)).key)
