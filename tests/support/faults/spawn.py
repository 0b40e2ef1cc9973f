"""How a test, and `fedjob run` under test, start a program through the zygote."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.faults.zygote import LENGTH, RUN_VARIABLE, receive, send
from tests.support.repository import ROOT

START_SECONDS = 60.0
"""The imports of the zygote; the machine may be busy."""
ZYGOTE_VARIABLE = "FEDJOB_TEST_ZYGOTE"
"""Environment variable with the path of the zygote's socket: `fedjob run` starts its programs there."""
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process of a run, dead or alive."""

    pid: int
    name: str
    """``fedjob``, ``aggregator``, ``client-0`` …, ``evaluator``."""
    began: float
    """Of the monotonic clock."""
    ended: float | None
    exit: int | None
    """As in `subprocess`; ``None`` while it lives."""

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended yet."""
        return self.exit is None

    @property
    def died(self) -> bool:
        """Whether it ended against its will: killed, or because its parent was."""
        return self.exit is not None and self.exit != 0

    def signal(self, number: signal.Signals) -> bool:
        """Send it a signal; return whether it was still there."""
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True


class Spawned:
    """A process that a test started."""

    def __init__(self, pid: int, connection: socket.socket) -> None:
        self.pid = pid
        self._connection = connection
        self._exit: int | None = None

    def wait(self, seconds: float) -> int:
        """Its exit code, as in `subprocess`.

        Raises:
            TimeoutError: It has not ended within so many seconds.
        """
        if self._exit is None:
            self._connection.settimeout(max(seconds, 0.001))
            told, _ = receive(self._connection)
            self._connection.close()
            assert told is not None, "the zygote has ended"
            self._exit = told["exit"]
        return self._exit

    def poll(self) -> int | None:
        """Its exit code, or ``None`` while it lives."""
        try:
            return self.wait(0)
        except TimeoutError:
            return None

    def kill(self) -> None:
        """End it, if it has not ended yet."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


class Zygote:
    """The process that programs are forked from.

    Args:
        path: Of its socket.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def start(
        self, module: str, arguments: list[str], *, environment: Mapping[str, str], folder: Path, output: Path
    ) -> Spawned:
        """Start a program that reads nothing and writes to a file."""
        nothing = os.open(os.devnull, os.O_RDONLY)
        written = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            environment = {**environment, ZYGOTE_VARIABLE: str(self.path)}
            connection = ask_to_start(
                str(self.path), module, arguments, environment, str(folder), (nothing, written, written)
            )
        finally:
            os.close(nothing)
            os.close(written)
        told, _ = receive(connection)
        assert told is not None, "the zygote has ended"
        return Spawned(told["pid"], connection)

    def processes(self, run: str) -> list[Process]:
        """All processes of a run, in the order in which they were started."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.path))
            send(connection, {"ask": "list", "run": run})
            told, _ = receive(connection)
        assert told is not None, "the zygote has ended"
        return [
            Process(
                pid=view["pid"],
                name=view["client"] or view["module"].removeprefix("fedjob_"),
                began=view["began"],
                ended=view["ended"],
                exit=view["exit"],
            )
            for view in told["processes"]
        ]


@contextmanager
def zygote(path: Path) -> Iterator[Zygote]:
    """A zygote; whatever was started by it ends with it."""
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "tests.support.faults.zygote", str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**_without_settings(), **THREADS, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            assert process.stdout.readline() == b"ready\n", "the zygote did not start"
            yield Zygote(path)
        finally:
            process.stdin.close()
            process.wait(START_SECONDS)


def _without_settings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("FEDJOB_")}


def environment_of_run(run: str, **extra: str) -> dict[str, str]:
    """The environment of a run: none of our settings but those of the test."""
    return {**_without_settings(), **THREADS, RUN_VARIABLE: run, **extra}


def ask_to_start(
    path: str, module: str, arguments: list[str], environment: Mapping[str, str], folder: str, streams: tuple[int, ...]
) -> socket.socket:
    """Ask for a program; the returned socket tells its process id, and later how it ended."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    request = {
        "ask": "start",
        "module": module,
        "arguments": arguments,
        "environment": dict(environment),
        "folder": folder,
    }
    send(connection, request, streams)
    return connection


class ForkedProcess:
    """What `asyncio.create_subprocess_exec` returns, of a process that the zygote started.

    Args:
        pid: Of the process.
        stdout: What it prints.
        lifeline: Descriptor of the writing end of its standard input: closed when this process ends, however it does.
        connection: Where the zygote tells of its end.
    """

    def __init__(self, pid: int, stdout: asyncio.StreamReader, lifeline: int, connection: socket.socket) -> None:
        self.pid = pid
        self.stdout = stdout
        self.returncode: int | None = None
        self._lifeline = lifeline
        self._connection = connection
        self._ended = asyncio.get_running_loop().create_task(self._follow())

    async def wait(self) -> int:
        """Its exit code."""
        await asyncio.shield(self._ended)
        assert self.returncode is not None
        return self.returncode

    def terminate(self) -> None:
        """Ask it to end."""
        os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        os.kill(self.pid, signal.SIGKILL)

    async def _follow(self) -> None:
        told = await _receive(self._connection)
        self._connection.close()
        os.close(self._lifeline)
        self.returncode = told["exit"]


async def create_forked(*command: str, stderr: Any, env: Mapping[str, str], cwd: str, **_other: Any) -> ForkedProcess:
    """Take the place of `asyncio.create_subprocess_exec` in `fedjob run` under test.

    Args:
        command: Interpreter, its options, ``-m``, module, arguments.
        stderr: An open file.
        env: All of its environment.
        cwd: Its folder.
    """
    module = command[command.index("-m") + 1]
    arguments = list(command[command.index("-m") + 2 :])
    loop = asyncio.get_running_loop()
    stdin, lifeline = os.pipe()
    printed, stdout = os.pipe()
    try:
        connection = ask_to_start(
            os.environ[ZYGOTE_VARIABLE], module, arguments, env, str(cwd), (stdin, stdout, stderr.fileno())
        )
    finally:
        os.close(stdin)
        os.close(stdout)
    connection.setblocking(False)
    told = await _receive(connection)
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(printed, "rb", buffering=0))
    return ForkedProcess(told["pid"], reader, lifeline, connection)


async def _receive(connection: socket.socket) -> dict[str, Any]:
    loop = asyncio.get_running_loop()

    async def exactly(count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = await loop.sock_recv(connection, count - len(data))
            if not piece:
                raise ConnectionError("the zygote has ended")
            data += piece
        return data

    (length,) = LENGTH.unpack(await exactly(LENGTH.size))
    document: dict[str, Any] = json.loads(await exactly(length))
    return document
