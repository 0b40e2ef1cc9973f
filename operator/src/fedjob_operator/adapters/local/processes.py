"""Processes in the place of pods: what ``fedjob run`` starts on this machine.

A process announces its address as one line of JSON on its standard output once it serves. Its standard input is its
lifeline: when this process ends, however it ends, the pipe closes and the child exits.
"""

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from fedjob_operator.api.v1alpha1 import FederatedJob
from fedjob_operator.build.config import client_config
from fedjob_operator.build.external import external_groups
from fedjob_operator.core.actions import CreatePod, DeletePod, ServeModel
from fedjob_operator.core.leadership import replica_name
from fedjob_operator.core.observed import Exit, PodCheck, PodPhase, PodRole, PodView, ServersSeen
from fedjob_operator.core.pods import leading_index
from fedjob_operator.ports import CallError
from fedjob_protocol.config import (
    CONFIG_VARIABLE,
    TERMINATION_LOG_VARIABLE,
    TOKEN_VARIABLE,
    Termination,
)
from fedjob_protocol.lifeline import LIFELINE_ON_STDIN, LIFELINE_VARIABLE
from fedjob_protocol.messages import Announcement
from fedjob_protocol.reasons import Reason
from fedjob_protocol.registration import EXTERNAL_GROUPS_VARIABLE, REGISTRATION_TOKEN_VARIABLE, registration_variable

log = logging.getLogger(__name__)

ACCESS_FILE = "aggregator.json"
"""In the folder of run-time files: URL and token of the aggregator."""
STOP_SECONDS = 3.0
"""How long a process may take to end after SIGTERM before it is killed."""
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
"""One thread per process unless the user says otherwise: results are promised for a fixed thread count."""

Place = tuple[PodRole, int, int]
"""Role, index, ordinal."""


@dataclass(slots=True)
class _Child:
    process: asyncio.subprocess.Process
    view: PodView
    watcher: asyncio.Task[None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSettings:
    """Where processes live."""

    folder: Path
    """Folder of the run: aggregator's data, logs, run-time files."""
    token: str
    """The job's token."""
    trainer_path: str
    """The manifest's folder: the user's own trainers are imported from it, and relative data paths start there."""
    environment: Mapping[str, str]
    """Environment that the processes inherit."""
    host: str = "127.0.0.1"
    """Address that the aggregator listens on."""
    port: int = 0
    """Port that the aggregator listens on; 0 picks a free one."""
    sessions: tuple[str, ...] | None = None
    """Further flags of an aggregator that takes orders for training sessions, to whom any client may register."""


class LocalPods:
    """`fedjob_operator.ports.Pods` as processes of this machine.

    Args:
        settings: Where processes live.
        clock: The time, in UTC.
    """

    def __init__(self, settings: LocalSettings, *, clock: Callable[[], datetime]) -> None:
        self._settings = settings
        self._clock = clock
        self._children: dict[Place, _Child] = {}
        self._listener: Callable[[], None] | None = None

    def on_event(self, listener: Callable[[], None]) -> None:
        """Have a function called whenever a process became ready or ended."""
        self._listener = listener

    def pods(self) -> tuple[PodView, ...]:
        """Return all processes, also those that ended and were not deleted yet."""
        return tuple(child.view for child in self._children.values())

    async def create(self, job: FederatedJob, action: CreatePod) -> None:
        """Start a process.

        Raises:
            CallError: The operating system refused.
        """
        place = (action.role, action.index, action.ordinal)
        if place in self._children:
            return
        try:
            process = await self._spawn(job, action)
        except OSError as error:
            raise CallError(f"cannot start {_title(action.role, action.index)}: {error.strerror or error}") from error
        view = PodView(
            role=action.role,
            index=action.index,
            ordinal=action.ordinal,
            incarnation=f"{action.role}-{action.index}-{action.ordinal}-{process.pid}",
            phase=PodPhase.STARTING,
            since=self._clock(),
        )
        watcher = asyncio.create_task(self._watch(place, process), name=f"watch {view.incarnation}")
        self._children[place] = _Child(process, view, watcher)

    async def delete(self, action: DeletePod) -> None:
        """End a process and forget it."""
        place = (action.role, action.index, action.ordinal)
        child = self._children.get(place)
        if child is None or child.view.incarnation != action.incarnation:
            return
        if child.view.phase is not PodPhase.EXITED:
            # It ends because it was asked to: that says nothing against its client.
            child.view = replace(child.view, phase=PodPhase.STOPPING, since=self._clock())
        await _stop(child.process)
        await asyncio.shield(child.watcher)  # it goes on when nobody waits for the end any more
        if self._children.get(place) is child:
            self._children.pop(place)

    async def check(self, job: FederatedJob) -> PodCheck:
        """Return that nothing is wrong: processes have no templates."""
        return PodCheck(generation=job.metadata.generation or 0)

    async def serve(self, job: FederatedJob, action: ServeModel) -> ServersSeen:
        """Refuse: a finished job of this machine is not looked after.

        Raises:
            CallError: Always.
        """
        raise CallError(f"job {job.metadata.name}: {action.replicas} servers cannot be had on this machine")

    async def close(self) -> None:
        """End all processes: ask all, wait together, kill what is left."""
        children = list(self._children.values())
        await asyncio.gather(*(_stop(child.process) for child in children))
        await asyncio.gather(*(child.watcher for child in children))

    async def _spawn(self, job: FederatedJob, action: CreatePod) -> asyncio.subprocess.Process:
        command, extra = self._command(job, action)
        with self._log(action.role, action.index).open("ab") as errors:
            return await asyncio.create_subprocess_exec(
                *command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**THREADS, **self._settings.environment, **self._common(action), **extra},
                cwd=self._settings.trainer_path,
                # A process group of its own: Ctrl-C at the terminal reaches this process only, which ends the others.
                start_new_session=True,
            )

    def _command(self, job: FederatedJob, action: CreatePod) -> tuple[list[str], dict[str, str]]:
        """Program and environment of a pod; ``-P`` keeps the current folder off the import path."""
        python = [sys.executable, "-P", "-m"]
        if action.role is PodRole.AGGREGATOR:
            folder = str(self._settings.folder / aggregator_folder(action.index))
            several = job.spec.aggregator.replicas > 1
            member = ["--replica", replica_name(action.index)] if several else []
            place = ["--host", self._settings.host, "--port", str(self._settings.port), "--dir", folder]
            return [*python, "fedjob_aggregator", *place, *member, *(self._settings.sessions or ())], self._outside(job)
        init_from, origin = job.spec.model.init_from, job.status.origin
        config = client_config(
            job,
            role=action.role,
            index=action.index,
            trainer_path=self._settings.trainer_path,
            model_file=origin.path if origin else init_from.file if init_from else None,
            model_digest=origin.digest if origin else None,
        )
        identity = {
            CONFIG_VARIABLE: config.model_dump_json(by_alias=True, exclude_none=True),
            "FEDJOB_CLIENT_INDEX": str(config.index),
            "FEDJOB_CLIENT_NAME": config.name,
            "FEDJOB_CLIENT_GROUP": config.group,
            "FEDJOB_STATE_DIR": str(self._settings.folder / "clients"),
        }
        return [*python, "fedjob_client", "--host", "127.0.0.1", "--port", "0"], identity

    def _outside(self, job: FederatedJob) -> dict[str, str]:
        """What the aggregator is told of clients that register themselves, and what they have to show."""
        groups = None if self._settings.sessions is not None else external_groups(job)
        shown = self._settings.environment.get(REGISTRATION_TOKEN_VARIABLE, "")
        if groups is None:
            return {}
        tokens = {registration_variable(position): shown for position in range(len(groups.groups))}
        return {EXTERNAL_GROUPS_VARIABLE: groups.model_dump_json(by_alias=True), **tokens}

    def _common(self, action: CreatePod) -> dict[str, str]:
        return {
            TOKEN_VARIABLE: self._settings.token,
            LIFELINE_VARIABLE: LIFELINE_ON_STDIN,
            TERMINATION_LOG_VARIABLE: str(self._termination_log(action.role, action.index, action.ordinal)),
            "PYTHONUNBUFFERED": "1",
        }

    def _termination_log(self, role: PodRole, index: int, ordinal: int) -> Path:
        return self._settings.folder / "run" / f"{role}-{index}-{ordinal}.termination"

    async def _watch(self, place: Place, process: asyncio.subprocess.Process) -> None:
        """Follow one process from its announcement to its end."""
        assert process.stdout is not None
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:
                continue  # A line longer than the reader's buffer: dropped, so that the process is never blocked.
            if not line:
                break
            self._heard(place, line)
        code = await process.wait()
        self._settle(place, phase=PodPhase.EXITED, url=None, exit=self._explain(place, code))

    def _heard(self, place: Place, line: bytes) -> None:
        """Take in an announcement; anything else is what a trainer printed, and goes to the log."""
        try:
            announcement = Announcement.model_validate_json(line)
        except ValidationError:
            with suppress(OSError), self._log(place[0], place[1]).open("ab") as file:
                file.write(line)  # a full disk costs the line, not the process
            return
        if place[0] is PodRole.AGGREGATOR:
            try:
                self._tell_access(announcement.url)
            except OSError as error:
                why = error.strerror or error
                log.warning("%s cannot be written, nothing else can call the aggregator: %s", ACCESS_FILE, why)
        self._settle(place, phase=PodPhase.READY, url=announcement.url)

    def _tell_access(self, url: str) -> None:
        """Leave for whoever owns the folder, and for nobody else, how the aggregator is called; whole, or not."""
        path = self._settings.folder / "run" / ACCESS_FILE
        new = path.with_suffix(".new")
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump({"url": url, "token": self._settings.token}, file)
        os.replace(new, path)  # noqa: PTH105 - Path.replace is where the status is written, as fault runs count it

    def _log(self, role: PodRole, index: int) -> Path:
        return self._settings.folder / "logs" / f"{_title(role, index)}.log"

    def _settle(self, place: Place, *, phase: PodPhase, url: str | None, exit: Exit | None = None) -> None:  # noqa: A002
        child = self._children.get(place)
        if child is not None and child.view.phase is not PodPhase.STOPPING:
            child.view = replace(child.view, phase=phase, url=url, since=self._clock(), exit=exit)
        elif child is not None and exit is not None:
            self._children.pop(place)  # also if nobody waits any more for the end that was asked for
        if self._listener is not None:
            self._listener()

    def _explain(self, place: Place, code: int) -> Exit:
        """Why a process ended: in its own words if it left any, else by its exit code."""
        path = self._termination_log(*place)
        try:
            termination = Termination.model_validate_json(path.read_bytes()[:8192])
            return Exit(reason=Reason(termination.reason), message=termination.message)
        except (OSError, ValueError):
            pass
        if code >= 0:
            return Exit(reason=Reason.CRASHED, message=f"exit code {code}")
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return Exit(reason=Reason.CRASHED, message=f"killed by {name}")


def aggregator_folder(index: int) -> str:
    """Folder of one aggregator in the folder of a run."""
    return f"{PodRole.AGGREGATOR}-{index}" if index else str(PodRole.AGGREGATOR)


def leader_folder(job: FederatedJob) -> str:
    """Folder of the aggregator that leads, or led last, in the folder of a run."""
    return aggregator_folder(leading_index(job))


def _title(role: PodRole, index: int) -> str:
    if role is PodRole.AGGREGATOR:
        return aggregator_folder(index)
    return f"client-{index}" if role is PodRole.CLIENT else str(role)


async def _stop(process: asyncio.subprocess.Process) -> None:
    """Ask a process to end, and kill it if it does not."""
    if process.returncode is not None:
        return
    try:
        process.terminate()
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
    except ProcessLookupError:
        await process.wait()
