"""Keeps one task per job: started when the job appears, woken when something is new, ended when the job is gone.

Knows nothing of where events come from. Used from one event loop only, but for what says otherwise.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from fedjob_operator.adapters.kube.documents import Document, meta, name_of, text, uid_of, version_of
from fedjob_operator.adapters.kube.store import JobKey
from fedjob_operator.api.v1alpha1 import Phase

log = logging.getLogger(__name__)

FIRST_BACKOFF_SECONDS: Final = 1.0
MAX_BACKOFF_SECONDS: Final = 60.0
STEADY_SECONDS: Final = 120.0
"""A task that ran for so long before it failed begins with the shortest back-off again."""
MAX_GONE: Final = 10_000
"""How many deleted jobs are remembered, so that a late event does not bring one back."""


class Driver(Protocol):
    """Drives one job; see `fedjob_operator.driver.JobDriver`."""

    phase: Phase
    """The job's phase as last seen."""

    def wake(self) -> None:
        """Something about the job's pods is new."""
        ...

    def changed(self, version: str) -> None:
        """The resource has this version now."""
        ...

    def refresh_soon(self) -> None:
        """What was seen of the pods may be out of date."""
        ...

    def busy_seconds(self) -> float:
        """Seconds that the pass under way has taken; 0 while none is."""
        ...

    async def run(self) -> None:
        """Drive the job until it is gone."""
        ...


@dataclass(slots=True)
class _Job:
    key: JobKey
    phase: Phase
    driver: Driver | None = None
    task: asyncio.Task[None] | None = None


class Supervisor:
    """Keeps one task per job while this operator leads.

    Args:
        drive: Makes the driver of a job.
        forget: Told of the unique id of each job that is gone.
        monotonic: Seconds on a clock that never jumps.
        on_restart: Told of each task that ended by an unexpected error.
    """

    def __init__(
        self,
        *,
        drive: Callable[[JobKey], Driver],
        forget: Callable[[str], None],
        monotonic: Callable[[], float],
        on_restart: Callable[[], None],
    ) -> None:
        self._drive = drive
        self._forget = forget
        self._monotonic = monotonic
        self._on_restart = on_restart
        self._jobs: dict[str, _Job] = {}
        self._gone: dict[str, None] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._is_leading = False

    @property
    def is_leading(self) -> bool:
        """Whether jobs are driven here; may be read from another thread."""
        return self._is_leading

    def phases(self) -> Iterable[Phase]:
        """Return the phase of each job; may be called from another thread."""
        jobs = tuple(self._jobs.values())
        return [job.driver.phase if job.driver else job.phase for job in jobs]

    def hung(self, seconds: float) -> list[str]:
        """Return the jobs whose pass has taken more than so long; may be called from another thread."""
        jobs = tuple(self._jobs.values())
        return [str(job.key) for job in jobs if job.driver and job.driver.busy_seconds() > seconds]

    def heard(self, document: Document, *, is_deleted: bool) -> None:
        """Take in an event of a job."""
        key = JobKey(namespace=text(meta(document).get("namespace")), name=name_of(document), uid=uid_of(document))
        if not key.uid or key.uid in self._gone:
            return
        if is_deleted or meta(document).get("deletionTimestamp"):
            # While its dependents are deleted first, nothing may be made anew.
            self._end(key.uid)
            return
        job = self._jobs.get(key.uid)
        if job is None:
            job = self._jobs[key.uid] = _Job(key, _phase(document))
        if job.driver is None:
            job.phase = _phase(document)
            self._start(job)
        else:
            job.driver.changed(version_of(document))

    def pods_changed(self, job_uid: str) -> None:
        """Something about a pod of a job is new."""
        job = self._jobs.get(job_uid)
        if job is not None and job.driver is not None:
            job.driver.wake()

    def listed_again(self) -> None:
        """The watch of pods began anew: deletions may have been lost."""
        for job in self._jobs.values():
            if job.driver is not None:
                job.driver.refresh_soon()

    async def lead(self, leads: bool) -> None:  # noqa: FBT001 - the two sides of one change
        """Begin to drive all jobs, or end it; returns when no task is left."""
        self._is_leading = leads
        if leads:
            for job in self._jobs.values():
                self._start(job)
            return
        tasks = [job.task for job in self._jobs.values() if job.task is not None] + list(self._ending)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, job: _Job) -> None:
        if self._is_leading and job.task is None:
            job.task = asyncio.get_running_loop().create_task(self._keep(job), name=f"job {job.key}")

    def _end(self, uid: str) -> None:
        job = self._jobs.pop(uid, None)
        self._gone[uid] = None
        while len(self._gone) > MAX_GONE:
            del self._gone[next(iter(self._gone))]
        if job is not None and job.task is not None:
            job.task.cancel()
            self._ending.add(job.task)
            job.task.add_done_callback(self._ending.discard)
        self._forget(uid)

    async def _keep(self, job: _Job) -> None:
        """Drive a job until it is gone; begin anew, later and later, whenever that ends by an unexpected error."""
        pause, told = FIRST_BACKOFF_SECONDS, ""
        try:
            while True:
                began = self._monotonic()
                try:
                    job.driver = self._drive(job.key)
                    await job.driver.run()
                except Exception as error:  # noqa: BLE001 - one job that breaks must not end the others
                    if self._monotonic() - began > STEADY_SECONDS:
                        pause = FIRST_BACKOFF_SECONDS
                    told = self._report(job, error, told, pause)
                else:
                    job.task = None
                    self._end(job.key.uid)
                    return
                finally:
                    job.phase = job.driver.phase if job.driver else job.phase
                    job.driver = None
                await asyncio.sleep(pause * random.uniform(0.75, 1.0))  # noqa: S311 - spreads retries, decides nothing
                pause = min(pause * 2, MAX_BACKOFF_SECONDS)
        finally:
            job.task = None

    def _report(self, job: _Job, error: Exception, told: str, pause: float) -> str:
        """Log an unexpected error: the first time with where it comes from, then in one line."""
        self._on_restart()
        what = f"{type(error).__name__}: {error}"
        message = "driving job %s failed; beginning anew in about %g s: %s"
        if what == told:
            log.error(message, job.key, pause, what)
        else:
            log.error(message, job.key, pause, what, exc_info=error)
        return what


def _phase(document: Document) -> Phase:
    status = document.get("status")
    with contextlib.suppress(ValueError):
        return Phase(text(status.get("phase")) if isinstance(status, dict) else "")
    return Phase.PENDING
