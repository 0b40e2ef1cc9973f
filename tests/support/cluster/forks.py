"""Pods' programs and operators that begin as copies of one that has imported them: a start costs 20 ms of a core.

For suites that start hundreds of processes on two cores. They are processes like any other, with the program's own
``main``; only the imports were done before, by the zygote of `tests.support.faults`.
"""

import os
import selectors
import signal
import socket
import subprocess
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path

from tests.support.faults.spawn import Zygote, ask_to_start
from tests.support.faults.zygote import receive


class Fork:
    """One process, used like a `subprocess.Popen`.

    Args:
        pid: Its id.
        lifeline: Our end of its standard input.
    """

    def __init__(self, pid: int, lifeline: int) -> None:
        self.pid = pid
        self.ended: Future[int] = Future()
        """Its exit code: the negative number of the signal that killed it, as usual."""
        self._lifeline = lifeline

    @property
    def returncode(self) -> int | None:
        """How it ended; ``None`` while it lives."""
        return self.ended.result() if self.ended.done() else None

    def poll(self) -> int | None:
        """How it ended; ``None`` while it lives."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: It did not come.
        """
        try:
            return self.ended.result(timeout)
        except TimeoutError:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0) from None

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if not self.ended.done():
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it, unless it has ended."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def close(self, code: int) -> None:
        """Take in that it ended."""
        os.close(self._lifeline)
        self.ended.set_result(code)


class Forks:
    """Starts programs, and hears of their ends.

    Args:
        zygote: What they are copies of; they end with it.
    """

    def __init__(self, zygote: Zygote) -> None:
        self._zygote = zygote
        self._living = selectors.DefaultSelector()
        self._ours, self._theirs = socket.socketpair()
        self._living.register(self._theirs, selectors.EVENT_READ)
        self._listener = threading.Thread(target=self._listen, name="forks", daemon=True)
        self._listener.start()

    def start(self, module: str, *, environment: Mapping[str, str], folder: Path, log: Path) -> Fork:
        """Start a program.

        Args:
            module: Its package.
            environment: All of its environment.
            folder: Where it runs.
            log: Standard output and error are appended.
        """
        stdin, lifeline = os.pipe2(os.O_CLOEXEC)
        with log.open("ab") as file:
            streams = (stdin, file.fileno(), file.fileno())
            connection = ask_to_start(str(self._zygote.path), module, [], environment, str(folder), streams)
        os.close(stdin)
        told, _ = receive(connection)
        assert told is not None, "the zygote has ended"
        fork = Fork(told["pid"], lifeline)
        self._living.register(connection, selectors.EVENT_READ, fork)
        self._ours.send(b".")  # look at that one, too
        return fork

    def close(self) -> None:
        """Kill all programs and wait for their ends."""
        self._ours.close()
        self._listener.join()
        self._theirs.close()
        self._living.close()

    def _listen(self) -> None:
        while self._living.get_map():
            for key, _ in self._living.select():
                if key.data is not None:
                    self._take(key.fileobj, key.data)  # type: ignore[arg-type] # it is a socket
                elif not self._theirs.recv(4096):
                    self._living.unregister(self._theirs)
                    self._kill_all()

    def _kill_all(self) -> None:
        for key in list(self._living.get_map().values()):
            if key.data is not None:
                key.data.kill()

    def _take(self, connection: socket.socket, fork: Fork) -> None:
        self._living.unregister(connection)
        told, _ = receive(connection)
        connection.close()
        fork.close(told["exit"] if told else -signal.SIGKILL)
