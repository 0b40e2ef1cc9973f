"""Servers that a test starts in the background: with a log in a file, and an end that nothing outlives."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.support.cluster.forks import Fork

STOP_SECONDS = 10.0
"""A server that has not followed a SIGTERM by then is killed."""
_LOG_TAIL_BYTES = 6000
_DIE_WITH_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG; it stays over exec
if os.getppid() != int(sys.argv[1]):
    os._exit(1)  # the parent was faster
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Becomes the server. These servers are not ours, so they know nothing of the lifeline that our programs hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """One running server."""

    process: subprocess.Popen[bytes] | Fork
    log: Path
    """Everything that it wrote."""

    @classmethod
    def start(cls, command: Sequence[str | Path], log: Path, *, environment: Mapping[str, str] | None = None) -> Self:
        """Start a server; on Linux it dies with this process, however this process dies.

        Args:
            command: Path of the program, and its arguments.
            log: A file in the folder that it is started in; what is there stays.
            environment: Its environment; ``None`` is this process's.
        """
        is_linux = sys.platform == "linux"
        before = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid())] if is_linux else []
        with log.open("ab") as file:
            process = subprocess.Popen(
                [*before, *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                cwd=log.parent,
                env=environment,
            )
        return cls(process=process, log=log)

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def stop(self) -> None:
        """Ask it to end; kill it if it does not."""
        if self.is_running:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def tail(self) -> str:
        """The end of its log."""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - _LOG_TAIL_BYTES))
            return file.read().decode(errors="replace")
