"""The only loop: observe, decide, perform, write the status once, look again when something happened."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from fedjob_operator.api.v1alpha1 import FederatedJob, FederatedJobStatus
from fedjob_operator.core.conditions import is_finished
from fedjob_operator.core.decide import Decision, decide
from fedjob_operator.core.platform import LOCAL, Platform
from fedjob_operator.core.progress import is_progress_only
from fedjob_operator.core.startup import claimed
from fedjob_operator.observations import Observations
from fedjob_operator.performer import Performer
from fedjob_operator.ports import (
    JobStore,
    Pods,
    Programs,
    StatusConflictError,
    StoreUnavailableError,
    UnreadableJobError,
)

log = logging.getLogger(__name__)

RESYNC_SECONDS = 15.0
"""Longest time without a look at the world, in case a wake-up was missed."""
FIRST_PAUSE_SECONDS = 0.1
"""Pause after the resource could not be read or written; doubled with each further time."""
MAX_PAUSE_SECONDS = 5.0
STAND_DOWN_SECONDS = 15.0
"""How long another operator that reigns is left alone the first time, so that two never chase each other."""
STAND_DOWN_GROWTH = 4.0
"""How much longer it is left alone each further time."""
MAX_STAND_DOWN_SECONDS = 600.0
QUIET_SECONDS = 1800.0
"""A reign of so long ends the dispute: the next takeover counts as the first."""
REREAD_SECONDS = 60.0
"""Longest time after which a resource that could not be understood is read again, in case its change was missed."""
CLOCK_SECONDS = 0.001
"""Shortest wait that is worth one."""
KNOWN_VERSIONS = 32
"""Newest versions of the resource that are remembered as read or written."""

STALE = StoreUnavailableError("it was refused for a newer version than the API server answers")
"""What was read from an API server that is behind would be written back, and refused, again and again."""

OnChange = Callable[[FederatedJob, FederatedJobStatus], None]
"""Called after each status write with the new version of the job and the status before."""


@dataclass(slots=True)
class Pulse:
    """When passes of one loop begin and end, for a liveness probe.

    Waiting does not count as being in a pass, neither for something to happen nor for the API server.
    """

    last_started: datetime | None = None
    last_finished: datetime | None = None
    busy_since: datetime | None = None
    """Since when the loop has been at it; ``None`` while it waits."""

    def begin(self, now: datetime) -> None:
        """A pass begins, or goes on after a wait for the API server."""
        self.last_started = self.busy_since = now

    def rest(self, now: datetime) -> None:
        """A pass ends, or waits for the API server."""
        self.last_finished, self.busy_since = now, None

    def busy_for(self, now: datetime) -> timedelta:
        """How long the pass under way has taken; nothing while none is."""
        return timedelta() if self.busy_since is None else now - self.busy_since


@dataclass(slots=True)
class Takeovers:
    """How often another operator took the job over lately: without a Lease in common two would do so for ever."""

    count: int = 0
    last: datetime | None = None

    def stand_down_seconds(self, now: datetime) -> float:
        """Take in that it happened again; return how long the other one is left alone."""
        if self.last is not None and (now - self.last).total_seconds() > QUIET_SECONDS:
            self.count = 0
        self.last = now
        self.count += 1
        return min(STAND_DOWN_SECONDS * STAND_DOWN_GROWTH ** min(self.count - 1, 16), MAX_STAND_DOWN_SECONDS)


class Reconciler:
    """Drives one job.

    Args:
        store: Where the resource is kept.
        pods: Where its programs run.
        programs: How they are called.
        clock: The time, in UTC.
        on_change: Told of every status that was written, after the write.
        platform: Where the job's programs run.
        until_ours: Called when another operator was found to reign, with the seconds that it is to be left alone;
            returns when this one may claim the job again.
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
        until_ours: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.pulse = Pulse()
        self._store = store
        self._pods = pods
        self._programs = programs
        self._clock = clock
        self._on_change = on_change
        self._platform = platform
        self._until_ours = until_ours
        self._woken = asyncio.Event()
        self._takeovers = Takeovers()
        self._store_failures = 0
        self._versions: deque[str] = deque(maxlen=KNOWN_VERSIONS)
        self._reported: str | None = None
        self._last_write: float | None = None
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
            changed=self.changed,
            platform=self._platform,
        )

    def wake(self) -> None:
        """Something happened to the job's pods: look again."""
        self._woken.set()

    def changed(self, version: str = "") -> None:
        """The resource was changed or deleted: read it again, unless this very version was read or written here.

        Args:
            version: Its ``resourceVersion``, as a watch reports it; empty when it is gone, or not known.
        """
        self._reported = version
        self._woken.set()

    async def run(self) -> FederatedJob | None:
        """Drive the job until it is over.

        Ends when the job is finished and its clients are gone; where finished jobs are looked after, only when the
        resource is. Cancelling it leaves nothing running.

        Returns:
            The finished job, or ``None`` when the resource is gone.
        """
        try:
            job = await self._claim()
            while job is not None:
                self._woken.clear()
                if self._is_outdated():
                    job = await self._read_again(job)
                    continue
                now = self._clock()
                self.pulse.begin(now)
                decision = decide(job, self._observations.look(self._pods.pods()), now, platform=self._platform)
                for action in decision.actions:
                    self._performer.start(job, action)
                held_back = self._held_back(job.status, decision.status)
                if decision.status != job.status and held_back <= 0.0:
                    job = await self._write(job, decision.status)
                    continue
                if decision.finished and not decision.actions and not self._platform.looks_after_finished:
                    return job
                await self._wait(decision, now, held_back)
            return None
        finally:
            self.pulse.rest(self._clock())
            await self._performer.close()

    def _is_outdated(self) -> bool:
        """Whether the resource is known to have a version that was neither read nor written here."""
        reported, self._reported = self._reported, None
        return reported is not None and reported not in self._versions

    def _held_back(self, before: FederatedJobStatus, after: FederatedJobStatus) -> float:
        """Seconds until a new status may be written: what only counts on is not written at every step."""
        if self._last_write is None or before == after or not is_progress_only(before, after):
            return 0.0
        left = self._last_write + self._platform.progress_seconds - asyncio.get_running_loop().time()
        # Less than a clock can measure is nothing: waiting for it would end at once, again and again.
        return left if left > CLOCK_SECONDS else 0.0

    async def _claim(self) -> FederatedJob | None:
        """Begin a new term, so that whoever drove this job before is fenced off."""
        tried = refused = ""
        while True:
            try:
                job = await self._read()
                if job is None or is_finished(job.status):
                    return job
                tried = job.metadata.resource_version
                if tried == refused:
                    await self._pause(STALE)
                return self._know(await self._store.write_status(job, claimed(job.status, self._clock())))
            except StatusConflictError:
                log.info("the job changed while it was claimed; reading it again")
                refused = tried
            except StoreUnavailableError as error:
                await self._pause(error)
            except UnreadableJobError as error:
                await self._until_changed(error)

    async def _read(self) -> FederatedJob | None:
        job = await self._store.read()
        return None if job is None else self._know(job)

    def _know(self, job: FederatedJob) -> FederatedJob:
        self._versions.append(job.metadata.resource_version)
        return job

    async def _write(self, job: FederatedJob, status: FederatedJobStatus) -> FederatedJob | None:
        """Write a status; return the new version, or where that failed what to decide on next."""
        before = job.status
        self.pulse.rest(self._clock())
        try:
            written = self._know(await self._store.write_status(job, status))
        except StatusConflictError:
            log.info("the job changed since it was read; reading it again")
            return await self._read_again(job, is_refused=True)
        except StoreUnavailableError as error:
            await self._pause(error)
            return job
        self._store_failures = 0
        self._last_write = asyncio.get_running_loop().time()
        self._on_change(written, before)
        return written

    async def _read_again(self, job: FederatedJob, *, is_refused: bool = False) -> FederatedJob | None:
        """Read what somebody else wrote; a higher term in it is another operator's: claim before acting again.

        Args:
            job: The newest version that is known.
            is_refused: Whether a write was refused because there is a newer one.
        """
        try:
            fresh = await self._store.read()
        except StoreUnavailableError as error:
            self.changed()
            await self._pause(error)
            return job
        except UnreadableJobError as error:
            await self._until_changed(error)
            self.changed()
            return job
        if fresh is not None and self._is_stale(fresh, job, is_refused=is_refused):
            self.changed()
            await self._pause(STALE)
            return job
        if fresh is None or self._know(fresh).status.term <= job.status.term:
            return fresh
        # Whatever was seen, or asked, before may be older than what the other one wrote into the status meanwhile: an
        # old state of the aggregator, held against the new status, would look like lost checkpoints.
        self.pulse.begin(self._clock())
        await self._performer.close()
        self.pulse.rest(self._clock())
        self._begin()
        seconds = self._takeovers.stand_down_seconds(self._clock())
        log.warning(
            "another operator drives this job in term %d; leaving it alone for %g s", fresh.status.term, seconds
        )
        await self._until_ours(seconds)
        return await self._claim()

    def _is_stale(self, fresh: FederatedJob, job: FederatedJob, *, is_refused: bool) -> bool:
        """Whether the API server is behind: it answers a version that was known before, and is not the newest."""
        version = fresh.metadata.resource_version
        return version in self._versions and (is_refused or version != job.metadata.resource_version)

    async def _pause(self, why: StoreUnavailableError) -> None:
        self._store_failures += 1
        log.warning("the status cannot be kept: %s; trying again", why)
        await asyncio.sleep(min(FIRST_PAUSE_SECONDS * 2 ** min(self._store_failures - 1, 16), MAX_PAUSE_SECONDS))

    async def _until_changed(self, error: UnreadableJobError) -> None:
        """Wait for somebody to mend the resource."""
        log.warning("the job cannot be read: %s; nothing is done for it until it is changed", error)
        self._reported = None
        try:
            async with asyncio.timeout(REREAD_SECONDS):
                while self._reported is None:
                    self._woken.clear()
                    await self._woken.wait()
        except TimeoutError:
            pass

    async def _wait(self, decision: Decision, now: datetime, held_back: float) -> None:
        self.pulse.rest(self._clock())
        seconds = RESYNC_SECONDS
        if decision.wake_at is not None:
            seconds = min(max((decision.wake_at - now).total_seconds(), 0.0), seconds)
        if held_back > 0.0:
            seconds = min(seconds, held_back)
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            pass
