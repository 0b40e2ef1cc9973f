"""What the programs have in common as processes: listening, announcing, logging, ending, saying why they died.

Called by the ``command`` modules of the aggregator and the client; decides nothing about rounds.
"""

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NoReturn, TextIO

from fedjob_protocol.config import TERMINATION_LOG_VARIABLE, Termination
from fedjob_protocol.errors import FedJobError
from fedjob_protocol.messages import Announcement
from fedjob_protocol.reasons import Reason

EXIT_FATAL: Final = 1
"""The program could not go on; its `Termination` says why."""
EXIT_USAGE: Final = 2
"""Wrong flags, or a port that cannot be had: nothing was started."""

BACKLOG: Final = 1024
"""Connections that wait to be accepted."""
MAX_MESSAGE_CHARACTERS: Final = 2048

_log = logging.getLogger(__name__)


class CannotListenError(FedJobError):
    """The address cannot be listened on: in use, not ours, or not allowed."""


def listen(host: str, port: int, *, option: str = "--port") -> socket.socket:
    """Open a listening socket.

    Args:
        host: A name or an address, such as ``127.0.0.1``, ``::1`` or ``0.0.0.0``.
        port: TCP port; 0 picks a free one.
        option: Flag that the port comes from, for the message.

    Raises:
        CannotListenError: With one line that names the address and what to do.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        opened = socket.socket(family, kind, protocol)
    except OSError as error:
        raise CannotListenError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    try:
        if os.name == "posix":  # on Windows this would let two programs share a port
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        opened.listen(BACKLOG)
    except OSError as error:
        opened.close()
        raise CannotListenError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another port with {option}, or 0 for a free one"
        ) from error
    opened.setblocking(False)
    return opened


def base_url(listening: socket.socket) -> str:
    """URL that programs on this machine reach a listening socket by, without a slash at the end."""
    host, port = listening.getsockname()[:2]
    if listening.family == socket.AF_INET6:
        return f"http://[{'::1' if host == '::' else host}]:{port}"
    return f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"  # noqa: S104 - compared, not bound


def announce(program: str, url: str, boot_id: str, *, out: TextIO | None = None) -> Announcement:
    """Print the one line of JSON from which a parent learns where the program listens; call it once it serves."""
    announcement = Announcement(program=program, url=url, boot_id=boot_id, pid=os.getpid())
    print(announcement.model_dump_json(by_alias=True), file=out or sys.stdout, flush=True)
    return announcement


def log_to_stderr(level: str = "INFO") -> None:
    """Send the log to standard error: standard output carries the `Announcement` only."""
    logging.basicConfig(
        stream=sys.stderr, level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )


def leave_termination(environment: Mapping[str, str], reason: Reason, message: str) -> None:
    """Leave why the program dies where its environment says; without such a place, in the log only.

    Never raises: the program is dying already. The file is written in place, since in a container it is a mount.
    """
    _log.error("%s: %s", reason, message)
    path = environment.get(TERMINATION_LOG_VARIABLE)
    if not path:
        return
    termination = Termination(reason=reason, message=message[:MAX_MESSAGE_CHARACTERS])
    try:
        Path(path).write_text(termination.model_dump_json(by_alias=True) + "\n", encoding="utf-8")
    except OSError as error:
        _log.warning("cannot write the termination log %s: %s", path, error)


@contextmanager
def stop_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call a function at SIGTERM and at SIGINT (and at Ctrl-Break on Windows) instead of dying of them.

    For uvicorn: override ``Server.capture_signals`` to return this, as its own raises the signal again after shutdown,
    which would be an exit code of failure. Only in the main thread; elsewhere it does nothing.

    Args:
        stop: Must be fast and may be called more than once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handled = [signal.SIGTERM, signal.SIGINT]
    if sys.platform == "win32":
        handled.append(signal.SIGBREAK)
    before = {number: signal.signal(number, lambda _number, _frame: stop()) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def exit_now(code: int) -> NoReturn:
    """End the process without waiting for threads that are still busy: what is durable is so already."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # nobody reads it any more
            continue
    os._exit(code)
