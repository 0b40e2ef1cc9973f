"""Which addresses no client lives at: a URL that somebody else gave must not lead us to them. Pure."""

import ipaddress
import socket
from collections.abc import Collection
from typing import Final
from urllib.parse import urlsplit

from fedjob_protocol.errors import Refusal, Word

MAX_URL_CHARACTERS: Final = 2048
METADATA_HOSTS: Final = frozenset({"metadata", "metadata.google.internal", "metadata.goog", "instance-data"})
METADATA_ADDRESSES: Final = frozenset({"100.100.100.200", "fd00:ec2::254"})
API_SERVER_HOSTS: Final = frozenset(
    {"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}
)
"""Names by which every pod reaches the API server."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def checked_url(url: object, *, refused: Collection[str] = (), allowed: Collection[str] = ()) -> str:
    """The URL of a client as somebody gave it, without a slash at the end.

    Args:
        url: What was given.
        refused: Further hosts and addresses where no client lives, such as the API server's.
        allowed: Hosts, addresses and networks (``10.0.0.0/8``) that clients may be at; none is all.

    Raises:
        Refusal: ``bad-request`` or ``forbidden``, with what is wrong.
    """
    if not isinstance(url, str) or len(url) > MAX_URL_CHARACTERS or not url.isascii() or not url.isprintable():
        raise Refusal(Word.BAD_REQUEST, f"client_url must be a URL of at most {MAX_URL_CHARACTERS} characters")
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").rstrip(".")
        _ = parts.port
    except ValueError as error:
        raise Refusal(Word.BAD_REQUEST, f"client_url is not a URL: {error}") from None
    if parts.scheme not in {"http", "https"} or not host or " " in url or parts.username is not None:
        raise Refusal(Word.BAD_REQUEST, "client_url must be http:// or https:// and a host, without a user name")
    if parts.query or parts.fragment:
        raise Refusal(Word.BAD_REQUEST, "client_url must be without a query and a fragment")
    if problem := host_problem(host, refused=refused):
        raise Refusal(Word.BAD_REQUEST, f"client_url: {problem}")
    if allowed and not is_listed(host, allowed):
        raise Refusal(Word.FORBIDDEN, f"client_url: {host} is not among the hosts that clients may be at")
    return url.rstrip("/")


def host_problem(host: str, *, refused: Collection[str] = ()) -> str | None:
    """Why no client lives at a host; ``None`` if one may.

    Args:
        host: A name or an address, in any notation that resolvers take.
        refused: Further hosts and addresses.
    """
    address = address_of(host)
    if host in METADATA_HOSTS or (address is not None and is_forbidden(address)):
        return f"{host} is a link-local or metadata address, no client lives there"
    if host in API_SERVER_HOSTS or host in refused or (address is not None and str(address) in refused):
        return f"{host} is the API server, no client lives there"
    return None


def address_of(host: str) -> Address | None:
    """The address that a host is, in any notation that resolvers take; ``None`` for a name."""
    address: Address
    try:
        address = ipaddress.ip_address(host.split("%", maxsplit=1)[0])
    except ValueError:
        try:
            address = ipaddress.IPv4Address(socket.inet_aton(host))  # such as 2852039166 or 0xa9fea9fe
        except OSError:
            return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def is_forbidden(address: Address) -> bool:
    """Whether metadata services, or nobody in particular, are at an address."""
    return address.is_link_local or address.is_multicast or address.is_unspecified or str(address) in METADATA_ADDRESSES


def is_listed(host: str, allowed: Collection[str]) -> bool:
    """Whether a host is in a list of hosts, addresses and networks."""
    if host in allowed:
        return True
    address = address_of(host)
    return address is not None and any(address in network for network in _networks(allowed))


def _networks(allowed: Collection[str]) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    networks = []
    for entry in allowed:
        try:
            networks.append(ipaddress.ip_network(entry, strict=False))
        except ValueError:
            continue  # a name
    return networks
