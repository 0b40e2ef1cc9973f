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
from fedjob_operator.adapters.kube.pods import KubePods, PodSource
from fedjob_operator.adapters.kube.store import InvalidJobError, JobKey, KubeJobStore
from fedjob_operator.adapters.metrics import OperatorMetrics
from fedjob_operator.api.v1alpha1 import FederatedJob, FederatedJobStatus, Phase
from fedjob_operator.core.platform import Platform
from fedjob_operator.ports import Programs, StatusConflictError
from fedjob_operator.reconcile import OnChange, Reconciler

log = logging.getLogger(__name__)

REFRESH_SECONDS: Final = 60.0
"""How often a job's pods are listed, in case that the watch lost a deletion."""
RETRY_SECONDS: Final = 2.0
"""Pause after they could not be listed; and least time between two lists."""
MENDING_SECONDS: Final = 30.0
"""How often a resource that cannot be read is looked at again, in case that the watch lost that it was mended."""


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
        self._pulse = _Pulse(around.metrics, around.monotonic)
        self._store = _WatchedStore(KubeJobStore(around.source.api, key), self._pulse)
        self._pods = KubePods(
            around.source, key, token=around.token(key.uid), looked=self._pulse.looked, failed=self.refresh_soon
        )
        self._programs = around.programs(around.token(key.uid))
        self._reconciler: Reconciler | None = None
        self._woken = asyncio.Event()
        self._stale = asyncio.Event()
        self.phase = Phase.PENDING

    def wake(self) -> None:
        """Something about the job or its pods is new."""
        self._woken.set()
        if self._reconciler is not None:
            self._reconciler.wake()

    def refresh_soon(self) -> None:
        """What was seen of the pods may be out of date: list them."""
        self._stale.set()

    def is_echo(self, version: str) -> bool:
        """Whether a version of the resource is one that we wrote ourselves."""
        return self._store.inner.is_echo(version)

    def silent_seconds(self) -> float:
        """Seconds since the loop moved on; 0 while it has nothing to do."""
        return self._pulse.silent_seconds()

    async def run(self) -> None:
        """Drive the job until it is gone."""
        refresher = asyncio.create_task(self._keep_fresh(), name=f"refresh {self._key}")
        try:
            await self._first_list()
            while await self._drive():
                pass
        finally:
            refresher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await refresher

    async def _first_list(self) -> None:
        """Begin only when the job's pods are known: one that is not seen would be created again, and refused."""
        while not self._around.source.cache.is_listed(self._key.uid):
            self._pulse.beat()
            self._woken.clear()
            self._stale.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_SECONDS):
                    await self._woken.wait()

    async def _drive(self) -> bool:
        """Run the reconcile loop to its end; return whether the job is still there."""
        self._pulse.beat()
        self._woken.clear()
        self._reconciler = Reconciler(
            store=self._store,
            pods=self._pods,
            programs=self._programs,
            clock=self._around.clock,
            on_change=self._changed,
            platform=self._around.platform,
        )
        try:
            job = await self._reconciler.run()
        except InvalidJobError as error:
            await self._refuse(error)
            return True
        finally:
            self._reconciler = None
        if job is None:
            return False
        self.phase = job.status.phase
        await self._rest(None)
        return True

    async def _refuse(self, error: InvalidJobError) -> None:
        """Say that the resource cannot be read, and wait until it is another one."""
        log.warning("job %s cannot be read: %s", self._key, error)
        try:
            await self._store.inner.refuse(error, self._around.clock())
        except StatusConflictError:
            return
        except ApiError as failure:
            log.warning("job %s: that it cannot be read could not be written: %s", self._key, failure)
        await self._rest(MENDING_SECONDS)

    async def _rest(self, seconds: float | None) -> None:
        """Wait until something is new, or so long."""
        self._pulse.is_idle = True
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._woken.wait()
        finally:
            self._pulse.is_idle = False

    async def _keep_fresh(self) -> None:
        while True:
            try:
                await self._pods.refresh()
            except ApiError as error:
                log.warning("the pods of job %s cannot be listed: %s", self._key, error)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            self._stale.clear()
            # Not more often than this, however often something fails.
            await asyncio.sleep(RETRY_SECONDS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_SECONDS * random.uniform(0.8, 1.0)):  # noqa: S311 - only spreads
                    await self._stale.wait()

    def _changed(self, job: FederatedJob, before: FederatedJobStatus) -> None:
        self.phase = job.status.phase
        committed = job.status.rounds.committed - before.rounds.committed
        if committed > 0:
            self._around.metrics.rounds.inc(committed)
        self._around.on_change(job, before)


class _Pulse:
    """Signs of life of one reconcile loop, and how long its passes take."""

    def __init__(self, metrics: OperatorMetrics, monotonic: Callable[[], float]) -> None:
        self._metrics = metrics
        self._monotonic = monotonic
        self._last = monotonic()
        self._began: float | None = None
        self._is_writing = False
        self.is_idle = False

    def beat(self) -> None:
        """The loop moved on."""
        self._last = self._monotonic()

    def silent_seconds(self) -> float:
        """Seconds since the loop moved on; 0 while it has nothing to do."""
        return 0.0 if self.is_idle else self._monotonic() - self._last

    def looked(self) -> None:
        """A pass begins. It ends with its status write, or, without one, when it lets others run."""
        self.beat()
        self._began = self._last
        self._metrics.passes.inc()
        asyncio.get_running_loop().call_soon(self._paused)

    def writing(self) -> None:
        """A status is being written."""
        self._is_writing = True

    def written(self, result: str) -> None:
        """A status was written, or not."""
        self._is_writing = False
        self._metrics.write(result)
        self.beat()
        self._ended()

    def _paused(self) -> None:
        if not self._is_writing:
            self._ended()

    def _ended(self) -> None:
        if self._began is not None:
            self._metrics.pass_seconds.observe(self._monotonic() - self._began)
            self._began = None


class _WatchedStore:
    """The store, with its writes counted and its answers taken as signs of life."""

    def __init__(self, inner: KubeJobStore, pulse: _Pulse) -> None:
        self.inner = inner
        self._pulse = pulse

    async def read(self) -> FederatedJob | None:
        """Return the resource; see `KubeJobStore.read`."""
        try:
            return await self.inner.read()
        finally:
            self._pulse.beat()

    async def write_status(self, job: FederatedJob, status: FederatedJobStatus) -> FederatedJob:
        """Write a status; see `KubeJobStore.write_status`."""
        result = "failed"
        self._pulse.writing()
        try:
            written = await self.inner.write_status(job, status)
            result = "written"
        except StatusConflictError:
            result = "conflict"
            raise
        finally:
            self._pulse.written(result)
        return written

    async def delete(self, job: FederatedJob) -> None:
        """Delete the resource; see `KubeJobStore.delete`."""
        await self.inner.delete(job)
