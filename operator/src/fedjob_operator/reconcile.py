"""The only loop: observe, decide, perform, write the status once, look again when something happened."""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime

from fedjob_operator.api.v1alpha1 import FederatedJob, FederatedJobStatus
from fedjob_operator.core.conditions import is_finished
from fedjob_operator.core.decide import Decision, decide
from fedjob_operator.core.platform import LOCAL, Platform
from fedjob_operator.observations import Observations
from fedjob_operator.performer import Performer
from fedjob_operator.ports import JobStore, Pods, Programs, StatusConflictError, StoreUnavailableError

log = logging.getLogger(__name__)

RESYNC_SECONDS = 15.0
"""Longest time without a look at the world, in case a wake-up was missed."""
FIRST_PAUSE_SECONDS = 0.1
"""Pause after the resource could not be read or written; doubled with each further time."""
MAX_PAUSE_SECONDS = 5.0
STAND_DOWN_SECONDS = 15.0
"""How long another operator that reigns is left alone, so that two never chase each other."""

OnChange = Callable[[FederatedJob, FederatedJobStatus], None]
"""Called after each status write with the new version of the job and the status before."""


class Reconciler:
    """Drives one job.

    Args:
        store: Where the resource is kept.
        pods: Where its programs run.
        programs: How they are called.
        clock: The time, in UTC.
        on_change: Told of every status that was written, after the write.
        platform: Where the job's programs run.
    """

    def __init__(
        self,
        *,
        store: JobStore,
        pods: Pods,
        programs: Programs,
        clock: Callable[[], datetime],
        on_change: OnChange,
        platform: Platform = LOCAL,
    ) -> None:
        self._store = store
        self._pods = pods
        self._programs = programs
        self._clock = clock
        self._on_change = on_change
        self._platform = platform
        self._woken = asyncio.Event()
        self._store_failures = 0
        self._begin()

    def _begin(self) -> None:
        """Begin with nothing seen and nothing under way."""
        self._observations = Observations()
        self._performer = Performer(
            store=self._store,
            pods=self._pods,
            programs=self._programs,
            observations=self._observations,
            wake=self.wake,
            clock=self._clock,
        )

    def wake(self) -> None:
        """Something happened: look again."""
        self._woken.set()

    async def run(self) -> FederatedJob | None:
        """Drive the job until it is finished and its clients are gone; return it, or ``None`` when it was deleted."""
        try:
            job = await self._claim()
            while job is not None:
                self._woken.clear()
                now = self._clock()
                decision = decide(job, self._observations.look(self._pods.pods()), now, platform=self._platform)
                for action in decision.actions:
                    self._performer.start(job, action)
                if decision.status != job.status:
                    job = await self._write(job, decision.status)
                    continue
                if decision.finished and not decision.actions:
                    return job
                await self._wait(decision, now)
            return None
        finally:
            await self._performer.close()

    async def _claim(self) -> FederatedJob | None:
        """Begin a new term, so that whoever drove this job before is fenced off."""
        while True:
            try:
                job = await self._store.read()
                if job is None or is_finished(job.status):
                    return job
                status = job.status.model_copy(update={"term": job.status.term + 1})
                return await self._store.write_status(job, status)
            except StatusConflictError:
                log.info("the job changed while it was claimed; reading it again")
            except StoreUnavailableError as error:
                await self._pause(error)

    async def _write(self, job: FederatedJob, status: FederatedJobStatus) -> FederatedJob | None:
        """Write a status; return the new version, or where that failed what to decide on next."""
        before = job.status
        try:
            written = await self._store.write_status(job, status)
        except StatusConflictError:
            log.info("the job changed since it was read; reading it again")
            return await self._read_again(job)
        except StoreUnavailableError as error:
            await self._pause(error)
            return job
        self._store_failures = 0
        self._on_change(written, before)
        return written

    async def _read_again(self, job: FederatedJob) -> FederatedJob | None:
        """Read what somebody else wrote; a higher term in it is another operator's: claim before acting again."""
        try:
            fresh = await self._store.read()
        except StoreUnavailableError as error:
            await self._pause(error)
            return job
        if fresh is None or fresh.status.term <= job.status.term:
            return fresh
        # Whatever was seen, or asked, before may be older than what the other one wrote into the status meanwhile: an
        # old state of the aggregator, held against the new status, would look like lost checkpoints.
        await self._performer.close()
        self._begin()
        log.warning("another operator drives this job in term %d; standing down for a while", fresh.status.term)
        await asyncio.sleep(STAND_DOWN_SECONDS)
        return await self._claim()

    async def _pause(self, error: StoreUnavailableError) -> None:
        self._store_failures += 1
        log.warning("the status cannot be kept: %s; trying again", error)
        await asyncio.sleep(min(FIRST_PAUSE_SECONDS * 2 ** min(self._store_failures - 1, 16), MAX_PAUSE_SECONDS))

    async def _wait(self, decision: Decision, now: datetime) -> None:
        seconds = RESYNC_SECONDS
        if decision.wake_at is not None:
            seconds = min(max((decision.wake_at - now).total_seconds(), 0.0), RESYNC_SECONDS)
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            pass
