"""Processes that a measurement starts, and ends: its own and no others."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from fedjob_protocol.lifeline import LIFELINE_VARIABLE
from fedjob_protocol.messages import Announcement

HERE: Final = Path(__file__).resolve().parent
ONE_THREAD: Final = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)
"""As `fedjob run` starts its programs."""
STOP_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A process that serves."""

    process: subprocess.Popen[bytes]
    url: str
    boot_id: str

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid


@contextmanager
def server(arguments: list[str], log: Path, *, environment: Mapping[str, str] | None = None) -> Iterator[Child]:
    """Start a Python program that announces its address as ours do, and end it.

    Args:
        arguments: What follows the interpreter, such as ``["-m", "fedjob_aggregator", …]``.
        log: File for its standard error.
        environment: Added to this process's environment.
    """
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **ONE_THREAD, LIFELINE_VARIABLE: "stdin", **(environment or {})},
            start_new_session=True,
        )
    try:
        announcement = _announcement(process, log)
        yield Child(process=process, url=announcement.url, boot_id=announcement.boot_id)
    finally:
        _end(process)


def run_python(arguments: list[str], *, timeout: float) -> str:
    """Run a Python program to its end; return what it printed."""
    environment = {**os.environ, **ONE_THREAD}
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    if done.returncode != 0:
        sys.exit(f"bench: {' '.join(arguments)} ended with exit code {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


def _announcement(process: subprocess.Popen[bytes], log: Path) -> Announcement:
    assert process.stdout is not None
    for line in process.stdout:
        try:
            return Announcement.model_validate_json(line)
        except ValidationError:
            continue
    tail = log.read_text(encoding="utf-8", errors="replace")[-2000:]
    sys.exit(f"bench: {process.args!r} ended with exit code {process.wait()} before it served:\n{tail}")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


def seconds_since(began: float) -> float:
    """Seconds since a reading of `time.perf_counter`."""
    return time.perf_counter() - began
