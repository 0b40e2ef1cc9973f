"""`fedjob run` on a terminal: the live bar, and Ctrl-C."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from select import select

import psutil

from tests.integration.test_run import SMALL
from tests.support.runs import FEDJOB, RUN_SECONDS, Folder, assert_gone, environment, wait_until, write_manifest

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
CTRL_C = b"\x03"


class Terminal:
    """A pseudo-terminal of 160 columns with a program in its foreground."""

    def __init__(self, command: list[str], cwd: Path) -> None:
        self.screen = ""
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 160, 0, 0))
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment(TERM="xterm-256color"),
            preexec_fn=lambda: os.login_tty(slave),  # noqa: PLW1509 - Ctrl-C needs it; no other thread runs here
        )
        os.close(slave)

    def read(self) -> None:
        """Take in what the program has written, if there is something within a moment."""
        while select([self._master], [], [], 0.02)[0]:
            try:
                block = os.read(self._master, 65536)
            except OSError:  # the program has closed its end
                return
            if not block:
                return
            self.screen += CONTROL.sub("", block.decode(errors="replace"))

    def has_ended(self) -> bool:
        """Whether the program has ended; what it wrote is taken in, so that it never waits for the terminal."""
        self.read()
        return self.process.poll() is not None

    def press(self, keys: bytes) -> None:
        """Type."""
        os.write(self._master, keys)

    def close(self) -> None:
        """Give the terminal back."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._master)


@contextmanager
def terminal(command: list[str], cwd: Path) -> Iterator[Terminal]:
    shown = Terminal(command, cwd)
    try:
        yield shown
    finally:
        shown.close()


def test_a_terminal_shows_a_live_bar_with_round_accuracy_and_loss(tmp_path):
    file = write_manifest(tmp_path, SMALL)
    with terminal([FEDJOB, "run", str(file)], tmp_path) as shown:
        wait_until(shown.has_ended, "the end of the run", RUN_SECONDS)
        shown.read()
        assert shown.process.returncode == 0, shown.screen
        assert re.search(r"[1-3]/3\s+.*accuracy 0\.\d+.*loss \d|[1-3]/3\s+.*loss \d.*accuracy 0\.\d+", shown.screen)
        assert "2/2 clients" in shown.screen
        assert "digest: sha256:" in shown.screen


def test_ctrl_c_ends_the_job_without_a_trace_of_it_and_says_how_to_go_on(tmp_path):
    file = write_manifest(tmp_path, {**SMALL, "spec": {**SMALL["spec"], "rounds": 100000}})
    folder = Folder(tmp_path / "run")
    with terminal([FEDJOB, "run", str(file), "--dir", str(folder.path)], tmp_path) as shown:
        wait_until(lambda: shown.has_ended() or folder.committed() >= 1, "a committed round")
        children = psutil.Process(shown.process.pid).children(recursive=True)
        shown.press(CTRL_C)
        wait_until(shown.has_ended, "the end of the run", RUN_SECONDS)
        assert shown.process.returncode == 130, shown.screen
        assert_gone(children)
        shown.read()
        assert "--resume" in shown.screen
        assert "Traceback" not in shown.screen
    assert children
