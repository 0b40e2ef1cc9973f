"""The only loop: observe, decide, perform, write the status once, look again when something happened."""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime

from fedjob_operator.api.v1alpha1 import FederatedJob, FederatedJobStatus
from fedjob_operator.core.conditions import is_finished
from fedjob_operator.core.decide import Decision, decide
from fedjob_operator.observations import Observations
from fedjob_operator.performer import Performer
from fedjob_operator.ports import JobStore, Pods, Programs, StatusConflictError

log = logging.getLogger(__name__)

RESYNC_SECONDS = 15.0
"""Longest time without a look at the world, in case a wake-up was missed."""

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
    """

    def __init__(
        self, *, store: JobStore, pods: Pods, programs: Programs, clock: Callable[[], datetime], on_change: OnChange
    ) -> None:
        self._store = store
        self._pods = pods
        self._clock = clock
        self._on_change = on_change
        self._woken = asyncio.Event()
        self._observations = Observations()
        self._performer = Performer(
            pods=pods, programs=programs, observations=self._observations, wake=self.wake, clock=clock
        )

    def wake(self) -> None:
        """Something happened: look again."""
        self._woken.set()

    async def run(self) -> FederatedJob | None:
        """Drive the job until it is finished; return it, or ``None`` when it was deleted."""
        try:
            job = await self._claim()
            while job is not None:
                self._woken.clear()
                now = self._clock()
                decision = decide(job, self._observations.look(self._pods.pods()), now)
                for action in decision.actions:
                    self._performer.start(job, action)
                if decision.status != job.status:
                    job = await self._write(job, decision.status)
                    continue
                if decision.finished:
                    return job
                await self._wait(decision, now)
            return None
        finally:
            await self._performer.close()

    async def _claim(self) -> FederatedJob | None:
        """Begin a new term, so that whoever drove this job before is fenced off."""
        while (job := await self._store.read()) is not None:
            if is_finished(job.status):
                return job
            status = job.status.model_copy(update={"term": job.status.term + 1})
            try:
                return await self._store.write_status(job, status)
            except StatusConflictError:
                log.info("the job changed while it was claimed; reading it again")
        return None

    async def _write(self, job: FederatedJob, status: FederatedJobStatus) -> FederatedJob | None:
        before = job.status
        try:
            written = await self._store.write_status(job, status)
        except StatusConflictError:
            log.info("the job changed since it was read; reading it again")
            fresh = await self._store.read()
            # A higher term in it is another operator's: claim before acting again.
            return await self._claim() if fresh and fresh.status.term > before.term else fresh
        self._on_change(written, before)
        return written

    async def _wait(self, decision: Decision, now: datetime) -> None:
        seconds = RESYNC_SECONDS
        if decision.wake_at is not None:
            seconds = min(max((decision.wake_at - now).total_seconds(), 0.0), RESYNC_SECONDS)
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            pass
