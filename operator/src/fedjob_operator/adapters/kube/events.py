"""Events: what happened to a job, for whoever describes it; written after the status that they tell of, best effort."""

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from fedjob_operator.adapters.kube.api import EVENTS, ApiError, KubeApi
from fedjob_operator.adapters.kube.documents import Document
from fedjob_operator.api.v1alpha1 import API_VERSION, KIND, FederatedJob, FederatedJobStatus, Phase
from fedjob_operator.build.names import MANAGER
from fedjob_protocol.reasons import GOING_WELL, Reason

log = logging.getLogger(__name__)

MAX_MESSAGE: Final = 1000
"""Longest message of an Event, in characters; the API server takes 1,024 bytes of ASCII."""
MAX_WAITING: Final = 200
"""Most Events that wait to be written; further ones are dropped."""
BURST: Final = 20
"""Most Events of one job in `WINDOW_SECONDS`."""
WINDOW_SECONDS: Final = 600.0

EXPECTED: Final = GOING_WELL | {Reason.WAITING_FOR_CLIENTS, Reason.AGGREGATOR_STARTING}
"""Reasons that need nobody's attention: they are told only when the phase changes, too."""
_TROUBLED: Final = frozenset({Phase.FAILED, Phase.WAITING_FOR_CLIENTS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """One thing that happened to a job."""

    reason: str
    message: str
    is_warning: bool = False


def happenings(after: FederatedJobStatus, before: FederatedJobStatus) -> tuple[Happening, ...]:
    """Return what happened to a job between two of its statuses; at most one of each kind. Pure."""
    found: list[Happening] = []
    reason, message = after.reason or after.phase.value, after.message or ""
    if after.phase != before.phase:
        text = f"{before.phase} -> {after.phase}" + (f": {message}" if message else "")
        found.append(Happening(reason=reason, message=text, is_warning=after.phase in _TROUBLED))
    elif after.reason != before.reason and reason not in EXPECTED:
        found.append(Happening(reason=reason, message=message, is_warning=True))
    lost = sorted(set(after.clients.lost_indices) - set(before.clients.lost_indices))
    if lost:
        names = ", ".join(str(index) for index in lost[:20]) + (", …" if len(lost) > 20 else "")
        text = f"{len(lost)} clients count as lost: {names}"
        found.append(Happening(reason=Reason.CLIENT_LOST, message=text, is_warning=True))
    now, then = after.current_round, before.current_round
    if now and then and now.number == then.number and (now.attempt, now.redraw) > (then.attempt, then.redraw):
        text = f"round {now.number} is tried again: attempt {now.attempt}, choice of participants {now.redraw}"
        found.append(Happening(reason="RoundRetried", message=text, is_warning=True))
    return tuple(found)


class EventWriter:
    """Writes Events in the background, and drops them rather than hold anything up.

    Args:
        api: The API server.
        instance: Name of this operator.
        clock: The time, in UTC.
        on_event: Told of each Event with whether it was written.
    """

    def __init__(
        self, api: KubeApi, *, instance: str, clock: Callable[[], datetime], on_event: Callable[[bool], None]
    ) -> None:
        self._api = api
        self._instance = instance
        self._clock = clock
        self._on_event = on_event
        self._queue: asyncio.Queue[tuple[str, Document]] = asyncio.Queue(MAX_WAITING)
        self._told: dict[str, deque[datetime]] = {}

    def tell(self, job: FederatedJob, before: FederatedJobStatus) -> None:
        """Have what happened to a job written; never waits, never raises."""
        for happening in happenings(job.status, before):
            now = self._clock()
            if not self._has_room(job.metadata.uid, now):
                self._on_event(False)
                continue
            try:
                self._queue.put_nowait((job.metadata.namespace, event(job, happening, self._instance, now)))
            except asyncio.QueueFull:
                self._on_event(False)

    def forget(self, job_uid: str) -> None:
        """Forget a job that is gone."""
        self._told.pop(job_uid, None)

    async def run(self) -> None:
        """Write Events as they come; until cancelled."""
        while True:
            namespace, document = await self._queue.get()
            try:
                await self._api.create(EVENTS, namespace, document)
            except ApiError as error:
                log.debug("an Event was not written: %s", error)
                self._on_event(False)
            else:
                self._on_event(True)
            finally:
                self._queue.task_done()

    async def flush(self, seconds: float) -> None:
        """Wait until all is written, but not longer than so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                await self._queue.join()
        except TimeoutError:
            log.debug("%d Events were not written", self._queue.qsize())

    def _has_room(self, job_uid: str, now: datetime) -> bool:
        told = self._told.setdefault(job_uid, deque(maxlen=BURST))
        if len(told) == BURST and (now - told[0]).total_seconds() < WINDOW_SECONDS:
            return False
        told.append(now)
        return True


def event(job: FederatedJob, happening: Happening, instance: str, now: datetime) -> Document:
    """Return an Event; what happened once has one name, so that it is not written twice. Pure."""
    meta = job.metadata
    identity = f"{meta.uid}/{meta.resource_version}/{happening.reason}/{happening.message}"
    when = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{meta.name}.{hashlib.sha256(identity.encode()).hexdigest()[:16]}",
            "namespace": meta.namespace,
        },
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "name": meta.name,
            "namespace": meta.namespace,
            "uid": meta.uid,
            "resourceVersion": meta.resource_version,
        },
        "reason": happening.reason,
        "message": happening.message[:MAX_MESSAGE],
        "type": "Warning" if happening.is_warning else "Normal",
        "count": 1,
        "firstTimestamp": when,
        "lastTimestamp": when,
        "source": {"component": MANAGER},
        "reportingComponent": MANAGER,
        "reportingInstance": instance,
    }
