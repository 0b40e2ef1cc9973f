"""Runs a job on this machine: the reconcile loop over processes and a file."""

import asyncio
import os
import secrets
import signal
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from fedjob.folder import RUNS, RunFolder
from fedjob_operator.adapters.http import HttpPrograms
from fedjob_operator.adapters.local import JobFile, LocalOrigins, LocalPods, LocalSettings
from fedjob_operator.adapters.origins import WithOrigins
from fedjob_operator.adapters.outside import GuardedResolver
from fedjob_operator.api.v1alpha1 import FederatedJob
from fedjob_operator.reconcile import OnChange, Reconciler

Result = TypeVar("Result")

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""End a run; the job can be resumed."""


class Interrupted(Exception):  # noqa: N818 - it is no error
    """The user, or the system, asked the run to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of one job."""

    folder: RunFolder
    manifest_folder: Path
    """Trainers are imported from here, and relative data paths start here."""
    on_change: OnChange
    """Told of every status that was written."""
    listen: tuple[str, int] = ("127.0.0.1", 0)
    """Address and port of the aggregator; 0 picks a free one."""


def utc_now() -> datetime:
    """The time in UTC."""
    return datetime.now(UTC)


def execute(run: Run) -> FederatedJob:
    """Drive the job in the folder until it is finished, and leave no process behind.

    Raises:
        Interrupted: SIGINT or SIGTERM arrived; the job can be resumed.
    """
    return interruptible(lambda: _reconcile(run))


def interruptible(work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    """Run something in an event loop of its own until it ends, or is asked to.

    Args:
        work: Cleans up after itself when it is cancelled.

    Raises:
        Interrupted: SIGINT or SIGTERM arrived.
    """
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_drive(work()))


def open_session() -> aiohttp.ClientSession:
    """The session that programs are called by; call it in the event loop that uses it."""
    resolver = GuardedResolver(refused=(), allows_loopback=True)
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60, resolver=resolver))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - it exists on some systems only
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _drive(work: Coroutine[Any, Any, Result]) -> Result:
    loop = asyncio.get_running_loop()
    driving = asyncio.ensure_future(work)
    interrupted = False

    def interrupt() -> None:
        nonlocal interrupted
        interrupted = True
        driving.cancel()

    for number in SIGNALS:
        loop.add_signal_handler(number, interrupt)
    try:
        return await driving
    except asyncio.CancelledError:
        if interrupted:
            raise Interrupted from None
        raise
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)


async def _reconcile(run: Run) -> FederatedJob:
    token = secrets.token_urlsafe(32)
    settings = LocalSettings(
        folder=run.folder.path.resolve(),
        token=token,
        trainer_path=str(run.manifest_folder),
        environment=dict(os.environ),
        host=run.listen[0],
        port=run.listen[1],
    )
    pods = LocalPods(settings, clock=utc_now)
    async with open_session() as session:
        origins = LocalOrigins(run.folder.path, [run.folder.path.parent, RUNS])
        reconciler = Reconciler(
            store=JobFile(run.folder.job_file),
            pods=pods,
            programs=WithOrigins(HttpPrograms(session, token=token), origins),
            clock=utc_now,
            on_change=run.on_change,
        )
        pods.on_event(reconciler.wake)
        try:
            job = await reconciler.run()
        finally:
            await pods.close()
    if job is None:
        raise FileNotFoundError(f"{run.folder.job_file} was removed while the job ran")
    return job
