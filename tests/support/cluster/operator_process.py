"""The real operator as a process beside the API server."""

import http.client
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.support.cluster.access import Access
from tests.support.cluster.cluster import eventually
from tests.support.cluster.daemons import Daemon
from tests.support.cluster.forks import Forks
from tests.support.tcp_ports import free_ports

READY_SECONDS = 60.0
LOG_CHARACTERS = 8000
CALL_SECONDS = 10.0
MODULE = ("-P", "-m", "fedjob_operator")
PREFIX = "FEDJOB_OPERATOR_"
CLIENT_IMAGE = "fedjob/client:test"
AGGREGATOR_IMAGE = "fedjob/aggregator:test"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How an operator is started."""

    access: Access
    """Who it is and how it reaches the API server."""
    own_namespace: str
    """Where its Lease and its key are."""
    namespaces: Sequence[str] = ()
    """Which it watches; none is all."""
    variables: tuple[tuple[str, str], ...] = ()
    """Further environment variables."""
    arguments: tuple[str, ...] = MODULE
    """What the interpreter is given."""


class OperatorProcess:
    """An operator that can be started, killed and started again.

    Args:
        settings: How it is started.
        folder: Holds its kubeconfig and its log.
        forks: Starts it as a copy of one that has imported it; then it is given no arguments.
    """

    def __init__(self, settings: Settings, folder: Path, *, forks: Forks | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._forks = forks
        self.settings = settings
        self._folder = folder
        self._program: Daemon | None = None
        self._ports = (0, 0)
        self._starts = 0

    def start(self, *, wait: bool = True) -> None:
        """Start it, and wait until it is ready unless told otherwise."""
        self._ports = (free := free_ports(2))[0], free[1]
        self._starts += 1
        self._program = self._launch(self._folder / f"operator-{self._starts}.log")
        if wait:
            self.until_ready()

    def _launch(self, log: Path) -> Daemon:
        environment = self._environment()
        if self._forks is None:
            return Daemon.start([sys.executable, *self.settings.arguments], log, environment=environment)
        started = self._forks.start("fedjob_operator", environment=environment, folder=self._folder, log=log)
        return Daemon(process=started, log=log)

    def _environment(self) -> dict[str, str]:
        settings = self.settings
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("FEDJOB_")}
        ours = {
            "KUBECONFIG": str(settings.access.kubeconfig(self._folder / "kubeconfig")),
            "NAMESPACE": settings.own_namespace,
            # As a container that is restarted in its pod: it need not wait for the Lease that it holds.
            "IDENTITY": self._folder.name,
            "NAMESPACES": ",".join(settings.namespaces),
            "CLIENT_IMAGE": CLIENT_IMAGE,
            "AGGREGATOR_IMAGE": AGGREGATOR_IMAGE,
            "OPERATOR_POD_LABELS": "app.kubernetes.io/name=fedjob-operator",
            "HOST": "127.0.0.1",
            "HEALTH_PORT": str(self._ports[0]),
            "METRICS_PORT": str(self._ports[1]),
            "LOG_LEVEL": "info",
        }
        return inherited | {PREFIX + name: value for name, value in ours.items()} | dict(settings.variables)

    @property
    def process(self) -> psutil.Process:
        """The process."""
        assert self._program is not None
        return psutil.Process(self._program.process.pid)

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._program is not None and self._program.is_running

    @property
    def returncode(self) -> int | None:
        """How it ended."""
        return self._program.process.returncode if self._program else None

    def until_ready(self) -> None:
        """Wait until it is of use."""

        def look() -> bool:
            assert self.is_running, f"the operator ended by itself:\n{self.log()}"
            return self.probe("/readyz")[0] == 200

        try:
            eventually(look, "readiness of the operator", READY_SECONDS)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()}") from None

    def probe(self, path: str) -> tuple[int, dict[str, Any]]:
        """Ask a health endpoint; status 0 while nothing answers."""
        try:
            status, body = self._get(self._ports[0], path)
        except (OSError, http.client.HTTPException):
            return 0, {}
        return status, json.loads(body)

    def metrics(self) -> str:
        """What it exports."""
        return self._get(self._ports[1], "/metrics")[1]

    def _get(self, port: int, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=CALL_SECONDS)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def terminate(self) -> None:
        """Ask it to end."""
        if self.is_running:
            self.process.terminate()

    def stop(self) -> None:
        """Ask it to end, and wait."""
        if self._program is not None:
            self._program.stop()

    def kill(self) -> None:
        """Kill it without a word."""
        assert self._program is not None
        with suppress(ProcessLookupError):
            self._program.process.kill()
        self._program.process.wait()

    def pause(self) -> None:
        """Let it stand still, as on a node that is out of memory."""
        self.process.suspend()

    def go_on(self) -> None:
        """Let it go on as if nothing had been."""
        self.process.resume()

    def log(self) -> str:
        """Everything that it wrote, over all its starts."""
        files = sorted(self._folder.glob("operator-*.log"))
        return "\n".join(file.read_text(encoding="utf-8", errors="replace") for file in files)

    def report(self) -> str:
        """The end of its log, for a failure."""
        return self.log()[-LOG_CHARACTERS:]
