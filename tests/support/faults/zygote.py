"""Starts our programs by forking a process that has imported them already: a fault run is mostly imports otherwise.

What is started is a process of its own as if it had been executed: its own session, environment, folder and standard
streams, no other open files, its own random numbers. Only the imports are shared. It is told of every end, so that it
can say who died and how.

Run as ``python -m tests.support.faults.zygote SOCKET``; ends when its standard input does.
"""

import ctypes
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

PRELOADED: Final = (
    "fedjob.__main__",
    "fedjob.engine",
    "fedjob_operator.__main__",
    "fedjob_operator.service",
    "fedjob_aggregator.__main__",
    "fedjob_aggregator.command",
    "fedjob_client.__main__",
    "fedjob_client.command",
    "fedjob_client.server",
    "fedjob_client.service",
    "fedjob_aggregator.metrics",
    "fedjob_client.metrics",
    "fedjob_protocol.metrics",
    "tests.support.faults.points",
    "uvloop",
    "uvicorn.loops.auto",
    "uvicorn.lifespan.on",
    "httptools",
    "rich.console",
)
LENGTH: Final = struct.Struct("!I")
STREAMS: Final = 3
"""Standard input, output and error come with a request to start something."""
PR_SET_PDEATHSIG: Final = 1
RUN_VARIABLE: Final = "FEDJOB_TEST_RUN"
"""Environment variable that tells to which run a process belongs."""

Document = dict[str, Any]


def send(connection: socket.socket, document: Document, streams: tuple[int, ...] = ()) -> None:
    """Send one message, with open files where there are any."""
    body = json.dumps(document).encode()
    head = LENGTH.pack(len(body))
    if streams:
        socket.send_fds(connection, [head], list(streams))
    else:
        connection.sendall(head)
    connection.sendall(body)


def receive(connection: socket.socket) -> tuple[Document | None, list[int]]:
    """Receive one message and the open files that came with it; ``None`` at the end."""
    head, streams, _, _ = socket.recv_fds(connection, LENGTH.size, STREAMS)
    if len(head) < LENGTH.size:
        return None, streams
    body = b""
    (length,) = LENGTH.unpack(head)
    while len(body) < length:
        piece = connection.recv(length - len(body))
        if not piece:
            return None, streams
        body += piece
    return json.loads(body), streams


@dataclass(slots=True)
class _Started:
    """One process; ``exit`` as in `subprocess`, ``None`` while it lives."""

    pid: int
    module: str
    arguments: list[str]
    client: str | None
    began: float
    """Of the monotonic clock."""
    ended: float | None = None
    exit: int | None = None
    connection: socket.socket | None = None

    def view(self) -> Document:
        """What others are told of it."""
        names = ("pid", "module", "arguments", "client", "began", "ended", "exit")
        return {name: getattr(self, name) for name in names}


class _Zygote:
    def __init__(self, path: str) -> None:
        self._selector = selectors.DefaultSelector()
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(path)
        self._listening.listen(128)
        self._runs: dict[str, list[_Started]] = {}
        self._watch(self._listening, self._accept)
        self._watch(0, self._end)
        self._goes_on = True

    def serve(self) -> None:
        """Until the standard input ends; then everything that was started is killed."""
        while self._goes_on:
            for key, _ in self._selector.select():
                key.data()
        for started in (process for run in self._runs.values() for process in run if process.exit is None):
            os.kill(started.pid, signal.SIGKILL)

    def _watch(self, file: Any, ready: Callable[[], None]) -> None:
        self._selector.register(file, selectors.EVENT_READ, ready)

    def _end(self) -> None:
        self._goes_on = bool(os.read(0, 1))

    def _accept(self) -> None:
        connection, _ = self._listening.accept()
        request, streams = receive(connection)
        if request is None:
            connection.close()
        elif request["ask"] == "start":
            self._start(connection, request, streams)
        elif request["ask"] == "list":
            _tell(connection, {"processes": [process.view() for process in self._runs.get(request["run"], [])]})
            connection.close()
        for stream in streams:
            os.close(stream)

    def _start(self, connection: socket.socket, request: Document, streams: list[int]) -> None:
        module, arguments, environment = request["module"], request["arguments"], request["environment"]
        pid = os.fork()
        if pid == 0:
            _become(module, arguments, environment, request["folder"], streams)
        config = json.loads(environment.get("FEDJOB_CONFIG", "{}"))
        client = None
        if module == "fedjob_client":
            client = "evaluator" if config.get("role") == "Evaluator" else f"client-{config.get('index')}"
        started = _Started(pid, module, arguments, client, time.monotonic(), connection=connection)
        self._runs.setdefault(environment.get(RUN_VARIABLE, ""), []).append(started)
        end = os.pidfd_open(pid)
        self._watch(end, lambda: self._reap(started, end))
        _tell(connection, {"pid": pid})

    def _reap(self, started: _Started, end: int) -> None:
        _, status = os.waitpid(started.pid, 0)
        started.exit, started.ended = os.waitstatus_to_exitcode(status), time.monotonic()
        self._selector.unregister(end)
        os.close(end)
        assert started.connection is not None
        _tell(started.connection, {"exit": started.exit})
        started.connection.close()
        started.connection = None


def _tell(connection: socket.socket, document: Document) -> None:
    """Send a message to somebody who may have been killed."""
    with suppress(OSError):
        send(connection, document)


def _become(module: str, arguments: list[str], environment: Document, folder: str, streams: list[int]) -> None:
    """Be the program, in the process that was forked for it; never returns."""
    code = 1
    try:
        os.setsid()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # not everything holds a lifeline
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        os.closerange(STREAMS, os.sysconf("SC_OPEN_MAX"))
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.stdin = os.fdopen(0, "r")
        sys.stdout = os.fdopen(1, "w", buffering=1)
        sys.stderr = os.fdopen(2, "w", buffering=1)
        sys.argv = [module, *arguments]
        importlib.import_module("tests.support.faults.points").arm(module, os.environ)
        importlib.import_module(f"{module}.__main__").main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - as the interpreter does
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Import everything, then serve."""
    for module in PRELOADED:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()
    zygote = _Zygote(sys.argv[1])
    print("ready", flush=True)
    zygote.serve()


if __name__ == "__main__":
    main()
