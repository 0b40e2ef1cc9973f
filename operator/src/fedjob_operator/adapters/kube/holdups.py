"""Pods that have a node and do not begin, where only the Events of their kubelet say why.

A volume that cannot be mounted is no part of a pod's status: it stays in ``ContainerCreating``, as while a volume is
merely slow. So the warnings about such a pod are listed, once it has been in that state for a while, and not often.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final, Protocol

from fedjob_operator.adapters.kube.api import EVENTS, ApiError, ApiRefusedError, KubeApi
from fedjob_operator.adapters.kube.documents import Document, entries, mapping, meta, text, time
from fedjob_operator.adapters.kube.endings import printable
from fedjob_operator.core.observed import PodRole, Waiting
from fedjob_protocol.reasons import Reason

log = logging.getLogger(__name__)

PATIENCE: Final = timedelta(seconds=10)
"""How long a pod may take to begin before somebody asks why."""
PAUSE_SECONDS: Final = 15.0
"""Least time between two looks at the Events of one job."""
REFUSED_SECONDS: Final = 300.0
"""Least time after the API server said that we may not list Events."""
PODS_PER_LOOK: Final = 3
"""Most pods of a job that one look asks about; the others' turn comes."""
EVENTS_PER_POD: Final = 50
"""Most Events of a pod that are read; a kubelet counts what repeats."""

_NOT_BEGUN: Final = frozenset({"ContainerCreating", "PodInitializing"})
_REASONS: Final = MappingProxyType(
    {
        "FailedMount": Reason.VOLUME_MOUNT_FAILED,
        "FailedMapVolume": Reason.VOLUME_MOUNT_FAILED,
        "FailedAttachVolume": Reason.VOLUME_MOUNT_FAILED,
        "FailedCreatePodSandBox": Reason.CONTAINER_CANNOT_RUN,
    }
)
"""What kubelet and volume controller call it when a pod cannot begin."""
_SUMMARY: Final = "Unable to attach or mount volumes"
"""How an Event begins that says which volumes are missing, and not why."""
_ROLES: Final = tuple(PodRole)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldUp:
    """A pod that has a node and has not begun."""

    uid: str
    role: PodRole
    index: int
    since: datetime
    """When it was given its node."""


def held_up_since(pod: Document, main: Document) -> datetime | None:
    """Return when a pod was given its node, if it has not begun since and its status does not say why. Pure.

    Args:
        pod: A pod as the API server holds it.
        main: The status of the container of our program; empty where there is none.
    """
    status = mapping(pod.get("status"))
    state = mapping(mapping(main.get("state")).get("waiting"))
    conditions = {text(item.get("type")): item for item in entries(status.get("conditions"))}
    scheduled = conditions.get("PodScheduled", {})
    if meta(pod).get("deletionTimestamp") or status.get("phase") != "Pending" or scheduled.get("status") != "True":
        return None
    # Volumes come before the sandbox, images after it: one that pulls a large image is not held up.
    has_sandbox = conditions.get("PodReadyToStartContainers", {}).get("status") == "True"
    if has_sandbox or text(state.get("reason")) not in _NOT_BEGUN:
        return None
    return time(scheduled.get("lastTransitionTime"))


def told_by(events: Iterable[Document]) -> Waiting | None:
    """Return what the newest warning about a pod that has not begun says; ``None`` if none says why. Pure."""
    telling = [event for event in events if text(event.get("reason")) in _REASONS]
    newest = max(telling, key=_weight, default=None)
    if newest is None:
        return None
    word, message = text(newest.get("reason")), text(newest.get("message"))
    return Waiting(reason=_REASONS[word], message=printable(f"{word}: {message}" if message else word))


def _weight(event: Document) -> tuple[bool, datetime]:
    times = (
        event.get("lastTimestamp"),
        mapping(event.get("series")).get("lastObservedTime"),
        event.get("eventTime"),
        meta(event).get("creationTimestamp"),
    )
    last = max((found for value in times if (found := time(value))), default=_EPOCH)
    return not text(event.get("message")).startswith(_SUMMARY), last


class Explained(Protocol):
    """Where pods are kept, and what is found out about them."""

    def held_up(self, job_uid: str) -> list[HeldUp]:
        """Return the pods of a job that are held up; no I/O."""
        ...

    def explain(self, job_uid: str, pod_uid: str, why: Waiting | None) -> None:
        """Take in why a pod is held up, for as long as it is."""
        ...


class HoldUps:
    """Finds out why pods of one job do not begin.

    Args:
        api: The API server.
        cache: Where pods are kept.
        namespace: The job's namespace.
        job_uid: The job.
        clock: The time, in UTC.
    """

    def __init__(
        self, api: KubeApi, cache: Explained, *, namespace: str, job_uid: str, clock: Callable[[], datetime]
    ) -> None:
        self._api = api
        self._cache = cache
        self._namespace = namespace
        self._job_uid = job_uid
        self._clock = clock
        self._stirred = asyncio.Event()
        self._looks: dict[str, int] = {}
        """How often each pod that is held up was asked about."""
        self._is_refused = False

    def stir(self) -> None:
        """Something about the job's pods is new."""
        self._stirred.set()

    async def run(self) -> None:
        """Look whenever a pod is held up; until cancelled."""
        while True:
            self._stirred.clear()
            held = self._cache.held_up(self._job_uid)
            due = min((pod.since for pod in held), default=None)
            left = None if due is None else (due + PATIENCE - self._clock()).total_seconds()
            if left is None or left > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await self._stirred.wait()
                continue
            await self._look([pod for pod in held if pod.since + PATIENCE <= self._clock()])
            await asyncio.sleep(REFUSED_SECONDS if self._is_refused else PAUSE_SECONDS)

    async def _look(self, held: list[HeldUp]) -> None:
        """Ask about some: those asked about least, the aggregator before clients, and these in order."""
        self._looks = {pod.uid: self._looks.get(pod.uid, 0) for pod in held}
        held.sort(key=lambda pod: (self._looks[pod.uid], _ROLES.index(pod.role), pod.index))
        for pod in held[:PODS_PER_LOOK]:
            self._looks[pod.uid] += 1
            try:
                why = await self._ask(pod)
            except ApiError as error:
                self._failed(error)
                return
            self._is_refused = False
            self._cache.explain(self._job_uid, pod.uid, why)

    async def _ask(self, pod: HeldUp) -> Waiting | None:
        fields = f"involvedObject.uid={pod.uid},type=Warning"
        return told_by(await self._api.list(EVENTS, self._namespace, fields=fields, most=EVENTS_PER_POD))

    def _failed(self, error: ApiError) -> None:
        was_refused = self._is_refused
        self._is_refused = isinstance(error, ApiRefusedError)
        if not (self._is_refused and was_refused):
            log.warning("why pods do not begin cannot be asked: %s", error)
