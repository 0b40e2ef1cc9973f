"""A real `fedjob run` as a test drives it: started, watched, killed, resumed, and read afterwards."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from fedjob_operator.api.v1alpha1 import FederatedJobStatus
from fedjob_protocol.layout import ROUND_LOG_NAME
from fedjob_protocol.messages import RoundRecord

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAMS = Path(sys.executable).parent
FEDJOB = str(PROGRAMS / "fedjob")
RUN_SECONDS = 90.0
"""Deadline of a small job, generous: the machine may be busy."""
CHANGE_SECONDS = 60.0
"""Deadline for something that a running job is about to do."""
DEATH_SECONDS = 5.0
"""Children are gone this long after their parent at the latest."""
LOOK_SECONDS = 0.002


def environment(**extra: str) -> dict[str, str]:
    """The environment of a user: our programs on PATH, none of our settings."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FEDJOB_")}
    return {**inherited, "PATH": f"{PROGRAMS}{os.pathsep}{os.environ.get('PATH', os.defpath)}", **extra}


def manifest(name: str, **spec: Any) -> dict[str, Any]:
    """A FederatedJob of the given spec."""
    return {"apiVersion": "fedjob.dev/v1alpha1", "kind": "FederatedJob", "metadata": {"name": name}, "spec": spec}


def write_manifest(folder: Path, document: Mapping[str, Any]) -> Path:
    """Write a manifest as job.yaml; JSON is YAML."""
    file = folder / "job.yaml"
    file.write_text(json.dumps(document, indent=1), encoding="utf-8")
    return file


def fedjob(
    *arguments: str | Path, cwd: Path, timeout: float = RUN_SECONDS, **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; it is killed, with what it started, when it takes too long."""
    return subprocess.run(
        [FEDJOB, *map(str, arguments)],
        cwd=cwd,
        env=environment(**settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def wait_until(condition: Callable[[], object], what: str, seconds: float = CHANGE_SECONDS) -> None:
    """Look again and again until a condition holds; a deadline that passes is a failure that says what was awaited."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(LOOK_SECONDS)


def is_gone(process: psutil.Process) -> bool:
    """Whether a process has ended, also when nobody has reaped it yet."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def assert_gone(processes: list[psutil.Process]) -> None:
    """All these processes end within `DEATH_SECONDS`."""
    wait_until(lambda: all(map(is_gone, processes)), f"the end of {processes}", DEATH_SECONDS)


@dataclass(frozen=True, slots=True)
class Folder:
    """What a run leaves in its folder."""

    path: Path

    def document(self) -> dict[str, Any] | None:
        """The resource as last written, or nothing while there is none."""
        try:
            document: dict[str, Any] = json.loads((self.path / "job.json").read_bytes())
        except FileNotFoundError:
            return None
        return document

    def writes(self) -> int:
        """How often the resource was written."""
        document = self.document()
        return int(document["metadata"]["resourceVersion"]) if document else 0

    def status(self) -> FederatedJobStatus:
        """The status as last written."""
        document = self.document()
        assert document is not None, f"{self.path} holds no job"
        return FederatedJobStatus.model_validate(document.get("status", {}))

    def committed(self) -> int:
        """The last round that the status knows to be committed; -1 before the initial model."""
        return self.status().rounds.committed if self.document() else -1

    def rounds(self) -> list[RoundRecord]:
        """The round log."""
        lines = (self.path / "aggregator" / ROUND_LOG_NAME).read_text(encoding="utf-8").splitlines()
        return [RoundRecord.model_validate_json(line) for line in lines]

    def digests(self) -> list[str]:
        """Digest of each committed round, oldest first."""
        return [record.digest for record in self.rounds()]

    def log(self, program: str) -> str:
        """What a program wrote: ``aggregator``, ``client-0`` …"""
        path = self.path / "logs" / f"{program}.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


class LiveRun:
    """A `fedjob run` in the background.

    Args:
        file: The manifest.
        folder: ``--dir``.
        arguments: Further ones, such as ``--resume``.
        settings: Further variables of its environment.
    """

    def __init__(self, file: Path, folder: Path, *arguments: str, settings: Mapping[str, str] | None = None) -> None:
        self.folder = Folder(folder)
        self._output = file.parent / f"output-{time.monotonic_ns()}.log"
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [FEDJOB, "run", str(file), "--dir", str(folder), *arguments],
                cwd=file.parent,
                env=environment(**(settings or {})),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        """What it printed so far, standard error included."""
        return self._output.read_text(encoding="utf-8")

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended yet."""
        return self.process.poll() is None

    def finish(self, seconds: float = RUN_SECONDS) -> int:
        """Wait for its end; return its exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"no end within {seconds:g} s; it printed:\n{self.output}") from None

    def wait_until(self, condition: Callable[[], object], what: str, seconds: float = CHANGE_SECONDS) -> None:
        """Wait for something that happens while it runs."""
        wait_until(lambda: condition() or not self.is_alive, what, seconds)
        assert self.is_alive or condition(), f"the run ended before: {what}; it printed:\n{self.output}"

    def children(self) -> list[psutil.Process]:
        """The programs that it started and that live."""
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def programs(self) -> dict[str, psutil.Process]:
        """The programs that live, by name: ``aggregator``, ``aggregator-1`` …, ``client-0`` …, ``evaluator``."""
        named = {}
        for child in self.children():
            try:
                words, settings = child.cmdline(), child.environ()
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
            if "fedjob_aggregator" in words:
                named[Path(words[words.index("--dir") + 1]).name] = child
            elif "fedjob_client" in words and '"role":"Evaluator"' in settings.get("FEDJOB_CONFIG", ""):
                named["evaluator"] = child
            elif "fedjob_client" in words:
                named[f"client-{settings.get('FEDJOB_CLIENT_INDEX')}"] = child
        return named

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it alone."""
        self.process.send_signal(number)


@contextmanager
def live_run(file: Path, folder: Path, *arguments: str, settings: Mapping[str, str] | None = None) -> Iterator[LiveRun]:
    """A `fedjob run` that leaves nothing behind, however the test ends."""
    run = LiveRun(file, folder, *arguments, settings=settings)
    try:
        yield run
    finally:
        children = run.children()
        if run.is_alive:
            run.process.kill()
        run.process.wait()
        assert_gone(children)
