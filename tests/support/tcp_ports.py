"""Ports for programs that have to be told theirs.

The system hands out ephemeral ports, from 32768 on Linux, to every connection and to whoever binds port 0: one of them
that is free now may be taken before the program binds it. So these are below.
"""

import random
import socket
from contextlib import ExitStack
from typing import Final

LOWEST: Final = 21_000
EPHEMERAL: Final = 32_000
"""Below the range of Linux by default; macOS and Windows begin later."""
_chance = random.SystemRandom()
"""Test processes that run side by side must not choose alike."""


def free_ports(number: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on, all different.

    Raises:
        OSError: There are none.
    """
    with ExitStack() as stack:
        return [_free(stack) for _ in range(number)]


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    return free_ports(1)[0]


def _free(stack: ExitStack) -> int:
    for port in _chance.sample(range(LOWEST, EPHEMERAL), 100):
        one = stack.enter_context(socket.socket())
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            continue
        return port
    raise OSError(f"no port from {LOWEST} to {EPHEMERAL} is free")
