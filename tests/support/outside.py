"""Clients that somebody starts by hand and that register themselves: real processes, and what they say."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.runs import environment, wait_until
from tests.support.tcp_ports import free_port


class HandStarted:
    """One `fedjob-client` process with SERVER_URL and CLIENT_URL in its environment."""

    def __init__(self, folder: Path, server: str, *arguments: str, port: int = 0, **variables: str) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_file = folder / f"outside-{self.port}.log"
        given = {"SERVER_URL": server, "CLIENT_URL": self.url, "FEDJOB_PORT": str(self.port), **variables}
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "fedjob_client", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=environment(**given),
                start_new_session=True,
            )

    def log(self) -> str:
        """What it wrote so far."""
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def says(self, text: str, seconds: float = 60.0) -> None:
        """Wait until it writes something."""
        wait_until(lambda: text in self.log(), f"{text!r} in the log of {self.url}:\n{self.log()}", seconds)

    def pause(self) -> None:
        """Stop it as a machine that sleeps does."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it without a word."""
        self.process.kill()
        self.process.wait()


@contextmanager
def hand_started(
    folder: Path, server: str, count: int = 1, *arguments: str, **variables: str
) -> Iterator[list[HandStarted]]:
    """Start clients, and end them."""
    clients = [HandStarted(folder, server, *arguments, **variables) for _ in range(count)]
    try:
        yield clients
    finally:
        for client in clients:
            client.kill()
