"""Loopback addresses of pods: the whole of 127/8 is this machine, so each pod has all ports to itself."""

import errno
import os
import socket

LOCK_PORT = 6009
FIRST = 20
LAST = 250


class Addresses:
    """A range ``127.x.0.0/16`` that no other process draws from, for as long as this object is open."""

    def __init__(self) -> None:
        self._range, self._lock = _taken()
        self._count = 0

    def next(self) -> str:
        """An address that was not given before."""
        self._count += 1
        return f"127.{self._range}.{self._count // 250}.{self._count % 250 + 1}"

    def close(self) -> None:
        """Give the range back."""
        self._lock.close()


def _taken() -> tuple[int, socket.socket]:
    """Take the first range whose last address nobody listens on, beginning at one that depends on the process."""
    size = LAST - FIRST
    for step in range(size):
        number = FIRST + (os.getpid() + step) % size
        lock = socket.socket()
        try:
            lock.bind((f"127.{number}.255.254", LOCK_PORT))
            lock.listen()
        except OSError as error:
            lock.close()
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            continue
        return number, lock
    raise RuntimeError("all ranges of loopback addresses are taken")
