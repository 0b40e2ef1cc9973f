"""Drives one job on a cluster for as long as it exists: the reconcile loop, and what keeps its view of pods true."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from fedjob_operator.adapters.kube.api import ApiError
from fedjob_operator.adapters.kube.holdups import HoldUps
from fedjob_operator.adapters.kube.origins import KubeOrigins
from fedjob_operator.adapters.kube.pods import KubePods, PodSource
from fedjob_operator.adapters.kube.store import JobKey, KubeJobStore
from fedjob_operator.adapters.metrics import OperatorMetrics
from fedjob_operator.adapters.origins import WithOrigins
from fedjob_operator.api.v1alpha1 import FederatedJob, FederatedJobStatus, Phase
from fedjob_operator.core.platform import Platform
from fedjob_operator.ports import Programs, StatusConflictError
from fedjob_operator.reconcile import OnChange, Reconciler

log = logging.getLogger(__name__)

REFRESH_SECONDS: Final = 60.0
"""How often a job is read and its pods are listed, in case that a watch lost a deletion."""
RETRY_SECONDS: Final = 2.0
"""Pause after they could not be listed; and least time between two lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the drivers of all jobs have in common."""

    source: PodSource
    programs: Callable[[str], Programs]
    """Makes the HTTP adapter of a job from its token."""
    token: Callable[[str], str]
    """Returns the token of a job from its unique id."""
    platform: Platform
    clock: Callable[[], datetime]
    monotonic: Callable[[], float]
    on_change: OnChange
    metrics: OperatorMetrics


class JobDriver:
    """Drives one job.

    Args:
        key: Which job.
        around: What the drivers of all jobs have in common.
    """

    def __init__(self, key: JobKey, around: Surroundings) -> None:
        self._key = key
        self._around = around
        stopwatch = _Stopwatch(around.metrics, around.monotonic)
        token = around.token(key.uid)
        self._pods = KubePods(
            around.source, key, token=token, looked=stopwatch.looked, failed=self.refresh_soon, clock=around.clock
        )
        self._hold_ups = HoldUps(
            around.source.api, around.source.cache, namespace=key.namespace, job_uid=key.uid, clock=around.clock
        )
        origins = KubeOrigins(around.source.api, around.source.cache, namespace=key.namespace, token=around.token)
        self._reconciler = Reconciler(
            store=_CountedStore(KubeJobStore(around.source.api, key, clock=around.clock), stopwatch, self._seen),
            pods=self._pods,
            programs=WithOrigins(around.programs(token), origins),
            clock=around.clock,
            on_change=self._changed,
            platform=around.platform,
        )
        self._listed = asyncio.Event()
        self._stale = asyncio.Event()
        self.phase = Phase.PENDING

    def wake(self) -> None:
        """Something about the job's pods is new."""
        self._listed.set()
        self._hold_ups.stir()
        self._reconciler.wake()

    def changed(self, version: str) -> None:
        """The resource has this version now."""
        self._reconciler.changed(version)

    def refresh_soon(self) -> None:
        """What was seen of the pods may be out of date: list them."""
        self._stale.set()

    def busy_seconds(self) -> float:
        """Seconds that the pass under way has taken; 0 while none is. May be called from another thread."""
        return self._reconciler.pulse.busy_for(self._around.clock()).total_seconds()

    async def run(self) -> None:
        """Drive the job until it is gone."""
        loop = asyncio.get_running_loop()
        beside = {
            loop.create_task(self._keep_fresh(), name=f"refresh {self._key}"),
            loop.create_task(self._hold_ups.run(), name=f"hold-ups {self._key}"),
        }
        try:
            # Begin only when the job's pods are known: one that is not seen would be created again, and refused.
            while not self._around.source.cache.is_listed(self._key.uid):
                self._listed.clear()
                await self._listed.wait()
            await self._reconciler.run()
        finally:
            for task in beside:
                task.cancel()
            await asyncio.wait(beside)

    async def _keep_fresh(self) -> None:
        while True:
            try:
                await self._pods.refresh()
            except ApiError as error:
                log.warning("the pods of job %s cannot be listed: %s", self._key, error)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            self._stale.clear()
            self._reconciler.changed("")  # that the job is gone may have been lost, too: read it again
            # Not more often than this, however often something fails.
            await asyncio.sleep(RETRY_SECONDS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_SECONDS * random.uniform(0.8, 1.0)):  # noqa: S311 - only spreads
                    await self._stale.wait()

    def _seen(self, job: FederatedJob) -> None:
        self.phase = job.status.phase

    def _changed(self, job: FederatedJob, before: FederatedJobStatus) -> None:
        committed = job.status.rounds.committed - before.rounds.committed
        if committed > 0:
            self._around.metrics.rounds.inc(committed)
        self._around.on_change(job, before)


class _Stopwatch:
    """Counts passes, and how long they take: to the end of the status write, or, without one, to the next wait."""

    def __init__(self, metrics: OperatorMetrics, monotonic: Callable[[], float]) -> None:
        self._metrics = metrics
        self._monotonic = monotonic
        self._began: float | None = None
        self._is_writing = False

    def looked(self) -> None:
        """A pass begins."""
        self._began = self._monotonic()
        self._metrics.passes.inc()
        asyncio.get_running_loop().call_soon(self._paused)

    def writing(self) -> None:
        """A status is being written."""
        self._is_writing = True

    def wrote(self, result: str) -> None:
        """A status was written, or not."""
        self._is_writing = False
        self._metrics.write(result)
        self._ended()

    def _paused(self) -> None:
        if not self._is_writing:
            self._ended()

    def _ended(self) -> None:
        if self._began is not None:
            self._metrics.pass_seconds.observe(self._monotonic() - self._began)
            self._began = None


class _CountedStore:
    """The store, with its writes counted."""

    def __init__(self, inner: KubeJobStore, stopwatch: _Stopwatch, seen: Callable[[FederatedJob], None]) -> None:
        self._inner = inner
        self._stopwatch = stopwatch
        self._seen = seen

    async def read(self) -> FederatedJob | None:
        """Return the resource; see `KubeJobStore.read`."""
        job = await self._inner.read()
        if job is not None:
            self._seen(job)
        return job

    async def write_status(self, job: FederatedJob, status: FederatedJobStatus) -> FederatedJob:
        """Write a status; see `KubeJobStore.write_status`."""
        result = "failed"
        self._stopwatch.writing()
        try:
            written = await self._inner.write_status(job, status)
            result = "written"
        except StatusConflictError:
            result = "conflict"
            raise
        finally:
            self._stopwatch.wrote(result)
        self._seen(written)
        return written

    async def delete(self, job: FederatedJob) -> None:
        """Delete the resource; see `KubeJobStore.delete`."""
        await self._inner.delete(job)
