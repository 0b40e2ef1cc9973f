"""How a job's places stand: which pod each has, and whether that is ready, lost, or waits for something."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType
from typing import Self

from fedjob_operator.api.v1alpha1 import Device, FederatedJob
from fedjob_operator.core.layout import Place, client_group, groups_of, indices_of, needs_evaluator
from fedjob_operator.core.observed import Observed, PodPhase, PodRole, PodView
from fedjob_operator.core.obstacles import Obstacle, obstacle
from fedjob_operator.core.turns import ROOM
from fedjob_protocol.reasons import Reason

EVALUATOR_BACKOFF_LIMIT = 3
"""Pods replaced for the evaluator before evaluation counts as failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The places of a job that are to have a pod, and what is known of each."""

    seen: Observed
    now: datetime
    limits: Mapping[Place, int | None]
    """Every place that needs a pod, with the number of replacements that it may have; ``None`` is no limit."""
    firsts: Mapping[Place, int]
    """Where not 0: the first ordinal that counts."""
    newest: Mapping[Place, PodView]
    """The newest pod of each place that has one."""
    retired: Mapping[Place, PodView]
    """The newest pod of each place that is done with."""
    old: tuple[PodView, ...]
    """Pods that are done with."""
    owners: frozenset[Place]
    """Places that have a volume of their own: a successor waits until nobody else can write to it."""
    lost: frozenset[Place]
    """Places that get no further pod."""
    ready: frozenset[Place]
    """Places whose pod answers and said what it holds."""

    def obstacle(self, place: Place) -> Obstacle:
        """Say why the pod of a place is not ready."""
        return obstacle(
            *place,
            self.newest.get(place),
            self.seen,
            first=self.firsts.get(place, 0),
            lost=place in self.lost,
            has_volume=place in self.owners,
            now=self.now,
        )

    def is_queued(self, place: Place) -> bool:
        """Whether the pod of a place waits until others give back what they hold."""
        pod = self.newest.get(place)
        is_waiting = pod is None or pod.phase in (PodPhase.STARTING, PodPhase.EXITED)
        return is_waiting and self.obstacle(place).reason in ROOM

    def without(self, places: frozenset[Place]) -> Self:
        """The same where some places are to have no pod; pods that are lost stay where they are."""
        released = {place: pod for place, pod in self.newest.items() if place in places - self.lost}
        return replace(
            self,
            limits={place: limit for place, limit in self.limits.items() if place not in places},
            newest={place: pod for place, pod in self.newest.items() if place not in released},
            old=(*self.old, *(released[place] for place in sorted(released))),
            ready=self.ready - places,
        )

    @property
    def blocked(self) -> frozenset[Place]:
        """Places that may have no pod yet: one that is done with still has their volume."""
        return frozenset((self.limits.keys() & self.owners & self.retired.keys()) - self.newest.keys())


def take_stock(job: FederatedJob, seen: Observed, now: datetime) -> Standing:
    """Look at all places of a job."""
    limits, owners = _backoff_limits(job), _volume_owners(job)
    firsts = {(PodRole.CLIENT, entry.index): entry.first_ordinal for entry in job.status.clients.replaced}
    newest, old = newest_pods(seen, firsts)
    retired = {(pod.role, pod.index): pod for pod in old}
    old += [newest.pop(place) for place in sorted(newest.keys() - limits.keys())]  # nobody asks for them any more
    lost = (place for place, limit in limits.items() if _is_lost(newest.get(place), limit, firsts.get(place, 0)))
    ready = (place for place in limits if (found := newest.get(place)) and _is_ready(found, seen, job))
    return Standing(
        seen=seen,
        now=now,
        limits=limits,
        firsts=firsts,
        newest=newest,
        retired=retired,
        old=tuple(old),
        owners=owners,
        lost=frozenset(lost),
        ready=frozenset(ready),
    )


def newest_pods(
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


def _is_lost(pod: PodView | None, limit: int | None, first: int) -> bool:
    """Whether a place gets no further pod; one that a node had no GPU for did nothing wrong, and is made again."""
    if pod is None or limit is None or pod.phase is not PodPhase.EXITED or pod.ordinal - first < limit:
        return False
    return pod.exit is None or pod.exit.reason is not Reason.GPU_UNAVAILABLE


def _is_ready(pod: PodView, seen: Observed, job: FederatedJob) -> bool:
    """Whether a pod answers and said what it holds; a client of a group for GPUs also has to have one."""
    info = seen.infos.get(pod.incarnation)
    if pod.phase is not PodPhase.READY or (info is None and pod.role is not PodRole.AGGREGATOR):
        return False
    if pod.role is not PodRole.CLIENT or info is None or info.backend == "gpu":
        return True
    return client_group(job, pod.index).device is not Device.GPU


def _backoff_limits(job: FederatedJob) -> dict[Place, int | None]:
    """Every place that needs a pod, with the number of replacements that it may have; ``None`` is no limit."""
    limits: dict[Place, int | None] = {
        (PodRole.AGGREGATOR, index): None for index in range(job.spec.aggregator.replicas)
    }
    late = frozenset(job.status.clients.late_indices)
    for entry, group in groups_of(job):
        if group.external is not None:
            continue
        wanted = (index for index in indices_of(entry, group) if index not in late)
        limits.update(((PodRole.CLIENT, index), group.backoff_limit) for index in wanted)
    if needs_evaluator(job):
        limits[PodRole.EVALUATOR, 0] = EVALUATOR_BACKOFF_LIMIT
    return limits


def _volume_owners(job: FederatedJob) -> frozenset[Place]:
    """Places that have a volume of their own: a successor waits until nobody else can write to it."""
    groups = (entry for entry, group in groups_of(job) if group.volume_claim_templates)
    clients = ((PodRole.CLIENT, index) for entry in groups for index in range(entry.first, entry.first + entry.count))
    aggregators = ((PodRole.AGGREGATOR, index) for index in range(job.spec.aggregator.replicas))
    return frozenset([*aggregators, *clients])
