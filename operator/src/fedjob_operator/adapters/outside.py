"""Addresses that somebody outside gave: where calls to them may go, whatever name or redirect they hide behind."""

import socket
from collections.abc import Collection
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from typing_extensions import override

from fedjob_operator.ports import CallError
from fedjob_protocol.hosts import address_of, host_problem

DEFAULT_PORTS: Final = MappingProxyType({"http": 80, "https": 443})
MAX_ANSWER_BYTES: Final = 1 << 20
"""Largest answer that is read of a client that registered itself."""


def check_outside(url: str, *, refused: Collection[str], allows_loopback: bool) -> None:
    """Refuse to call an address where no client lives.

    Args:
        url: The URL.
        refused: Hosts and addresses that are never called, or never at a port (``host:port``): the API server's.
        allows_loopback: Whether clients may be on this machine.

    Raises:
        CallError: With what is wrong.
    """
    parts = urlsplit(url)
    host, port = (parts.hostname or "").rstrip("."), parts.port or DEFAULT_PORTS.get(parts.scheme, 0)
    if problem := _problem(host, port, refused=refused, allows_loopback=allows_loopback):
        raise CallError(f"{url} is not called: {problem}")


class GuardedResolver(AbstractResolver):
    """Resolves names, and gives none of the addresses where no client lives; what is an address is not asked for.

    Args:
        refused: As of `check_outside`.
        allows_loopback: Whether clients may be on this machine.
    """

    def __init__(self, *, refused: Collection[str], allows_loopback: bool) -> None:
        self._refused = refused
        self._allows_loopback = allows_loopback
        self._inner = ThreadedResolver()

    @override
    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        problems = [
            _problem(item["host"], port, refused=self._refused, allows_loopback=self._allows_loopback) for item in found
        ]
        if problem := next((problem for problem in problems if problem), None):
            raise OSError(f"{host}: {problem}")
        return found

    @override
    async def close(self) -> None:
        await self._inner.close()


def _problem(host: str, port: int, *, refused: Collection[str], allows_loopback: bool) -> str | None:
    address = address_of(host)
    if address is not None and address.is_loopback and not allows_loopback:
        return f"{host} is this very pod"
    if {f"{host}:{port}", f"{address}:{port}"} & set(refused):
        return f"{host}:{port} is the API server, no client lives there"
    return host_problem(host, refused=refused)
