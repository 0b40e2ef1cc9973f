"""What a container of ours is on this machine: a process with the container's environment and folders."""

import asyncio
import base64
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import aiohttp

from tests.support.cluster.forks import Fork, Forks

Document = dict[str, Any]

MODULES = {"aggregator": "fedjob_aggregator", "client": "fedjob_client"}
"""The program of a container, by the container's name."""
KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT")
MESSAGE_BYTES = 4096
"""Longest termination message that Kubernetes keeps."""
LOG_TAIL_BYTES = 2048
"""How much of the log becomes the message of a program that left none."""


class Process(Protocol):
    """A process that was started, as `asyncio.subprocess.Process`."""

    @property
    def pid(self) -> int:
        """Its id."""
        ...

    @property
    def returncode(self) -> int | None:
        """How it ended; ``None`` while it lives."""
        ...

    async def wait(self) -> int:
        """Wait for its end."""
        ...

    def send_signal(self, signal: int) -> None:
        """Send a signal."""
        ...


class MissingReferenceError(Exception):
    """A Secret that the environment refers to is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a pod's program lives on this machine."""

    folder: Path
    """The pod's own."""
    address: str
    """Its own loopback address."""
    numba_cache: Path
    """Shared by all programs, so that kernels are compiled once."""
    mounts: dict[str, Path] = field(default_factory=dict)
    """Folders of claims by their mount path; what goes to other volumes is the machine's own."""

    @property
    def termination_log(self) -> Path:
        """What a dying program leaves."""
        return self.folder / "termination-log"

    @property
    def log(self) -> Path:
        """Standard output and error of all starts in this place."""
        return self.folder / "log"

    def localised(self, value: str) -> str:
        """A value of the environment with the pod's paths replaced by those of this machine."""
        for mount, folder in self.mounts.items():
            if value == mount or value.startswith(f"{mount}/"):
                return str(folder) + value[len(mount) :]
            value = value.replace(f'"{mount}/', f'"{folder}/')  # inside of a JSON document
        return value


def environment(container: Document, secrets: dict[str, Document], place: Place) -> dict[str, str]:
    """The environment of a container's process.

    Args:
        container: Of the pod's spec.
        secrets: The Secrets that were found, by name.
        place: Where it will live.

    Raises:
        MissingReferenceError: In the kubelet's words.
    """
    values = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    for item in container.get("env", []):
        values[item["name"]] = place.localised(_value(item, secrets))
    home = place.folder / "home"
    home.mkdir(exist_ok=True)
    return values | {
        "FEDJOB_HOST": place.address,
        "FEDJOB_TERMINATION_LOG": str(place.termination_log),
        "FEDJOB_LIFELINE": "stdin",
        "HOME": str(home),
        "NUMBA_CACHE_DIR": str(place.numba_cache),
        "PYTHONUNBUFFERED": "1",
    }


def secret_names(container: Document) -> set[str]:
    """Secrets that a container's environment refers to."""
    references = (item.get("valueFrom", {}).get("secretKeyRef") for item in container.get("env", []))
    return {reference["name"] for reference in references if reference}


def _value(item: Document, secrets: dict[str, Document]) -> str:
    reference = item.get("valueFrom", {}).get("secretKeyRef")
    if not reference:
        return str(item.get("value", ""))
    secret = secrets.get(reference["name"])
    if secret is None:
        raise MissingReferenceError(f'secret "{reference["name"]}" not found')
    data = secret.get("data", {}).get(reference["key"])
    if data is None:
        raise MissingReferenceError(f"couldn't find key {reference['key']} in Secret {reference['name']}")
    return base64.b64decode(data).decode()


Launch = Callable[[Document, dict[str, str], Place], Awaitable[Process]]
"""Starts a container's program, with an environment, in a place."""


async def start(container: Document, variables: dict[str, str], place: Place) -> Process:
    """Start a container's program; it ends when this process does, however that happens."""
    place.termination_log.write_bytes(b"")
    command = [sys.executable, "-P", "-m", MODULES[container["name"]]]
    with place.log.open("ab") as log:
        return await asyncio.create_subprocess_exec(
            *command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=variables,
            cwd=place.folder,
            start_new_session=True,
        )


def forked(forks: Forks) -> Launch:
    """Start programs as copies of one that has imported them."""

    async def start_fork(container: Document, variables: dict[str, str], place: Place) -> Process:
        place.termination_log.write_bytes(b"")
        module = MODULES[container["name"]]
        work = partial(forks.start, module, environment=variables, folder=place.folder, log=place.log)
        return _Forked(await asyncio.get_running_loop().run_in_executor(None, work))

    return start_fork


class _Forked:
    """A copy, to be waited for in an event loop."""

    def __init__(self, fork: Fork) -> None:
        self._fork = fork
        self.send_signal = fork.send_signal

    @property
    def pid(self) -> int:
        return self._fork.pid

    @property
    def returncode(self) -> int | None:
        return self._fork.returncode

    async def wait(self) -> int:
        # Whoever stops waiting must not take the end away from the others.
        return await asyncio.shield(asyncio.wrap_future(self._fork.ended))


def send(process: Process, number: signal.Signals) -> None:
    """Send a signal; that it ended already is fine."""
    with suppress(ProcessLookupError):
        process.send_signal(number)


def exit_code(code: int) -> int:
    """A process's code as containers report it: 128 and the number of the signal that killed it."""
    return code if code >= 0 else 128 - code


def last_words(container: Document, place: Place, code: int) -> str:
    """The termination message: what the program left, or the end of its log where the pod asks for that."""
    words = place.termination_log.read_bytes()
    if not words and code != 0 and container.get("terminationMessagePolicy") == "FallbackToLogsOnError":
        words = place.log.read_bytes()[-LOG_TAIL_BYTES:]
    return words[:MESSAGE_BYTES].decode(errors="replace")


async def answers(session: aiohttp.ClientSession, url: str) -> bool:
    """Whether a probe succeeds."""
    try:
        async with session.get(url) as answer:
            return answer.status < 400
    except (aiohttp.ClientError, TimeoutError):
        return False
