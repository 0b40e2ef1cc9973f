"""Clients that register themselves: who is there, under which index, and how many there may be. Pure; time is given.

An address keeps its index for as long as nobody else needs it, also while its client is lost, so that a client that
comes back has the data that it had. Two limits keep a flood of registrations from filling memory or pushing others out:
one in all, and one per host, where both the host in the address and the one that asks count.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final
from urllib.parse import urlsplit

from fedjob_protocol.clients import RegisteredClient
from fedjob_protocol.errors import Refusal, Word
from fedjob_protocol.registration import LOST_SECONDS, ExternalGroup, client_token

DEFAULT_MOST: Final = 1000
DEFAULT_MOST_PER_HOST: Final = 64
OPEN_GROUP: Final = "clients"
MAX_IMPOSTORS: Final = 16
"""Of so many that claimed an address in vain it is remembered that they did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Indices that clients may take, and what they show for it."""

    external: ExternalGroup
    token: str | None = None
    """What a client shows to register; ``None``: nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many may register."""

    most: int = DEFAULT_MOST
    most_per_host: int = DEFAULT_MOST_PER_HOST


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One address."""

    url: str
    boot_id: str | None
    """``None``: somebody registered it by hand, and nobody tells that it is there."""
    index: int | None
    peer: str
    """Who registered it last."""
    heard: float
    """When it was last heard of, in monotonic seconds."""
    since: datetime
    before: str | None = None
    """Boot id of the program that was at this address before; still alive if it is heard of again."""
    impostors: frozenset[str] = field(default=frozenset())
    """Boot ids that claimed the address while its own program was alive."""

    def is_lost(self, now: float) -> bool:
        """Whether it was not heard of for too long."""
        return now - self.heard >= LOST_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Applicant:
    """Who wants to be registered."""

    url: str
    boot_id: str | None
    peer: str
    shown: str | None = None
    """The token that it shows."""
    group: str | None = None
    """The group that it wants to be in; ``None``: any that takes it."""


class Registry:
    """Everybody who registered.

    Args:
        groups: Where clients may take an index.
        limits: How many may register.
        token: The job's token, that the clients' own are made from.
        known: What was known before a restart.
    """

    def __init__(
        self, groups: Iterable[Group], *, limits: Limits, token: str | None, known: Iterable[Entry] = ()
    ) -> None:
        self._groups = tuple(groups)
        self._limits = limits
        self._token = token
        self._entries = {entry.url: entry for entry in known}
        self._holders: dict[str, str] | None = None
        """Address by token; made when it is asked for, so that a token costs no more with many clients."""

    def register(self, applicant: Applicant, *, now: float, at: datetime) -> tuple[Entry, bool]:
        """Take a client in; that it is there already is fine.

        Returns:
            Its entry, and whether anything that has to be durable changed.

        Raises:
            Refusal: ``bad-token``; ``unavailable`` where there is no room; ``forbidden`` for somebody else's address.
        """
        groups = self._groups_for(applicant)
        before = self._entries.get(applicant.url)
        self._check_claim(applicant, before, now)
        if before is None:
            self._make_room(applicant, now)
        entry = self._taken_in(applicant, before, groups, now=now, at=at)
        self._entries[applicant.url], self._holders = entry, None
        return entry, before is None or (before.boot_id, before.index) != (entry.boot_id, entry.index)

    def beat(self, url: str, boot_id: str, *, now: float, at: datetime) -> tuple[Entry, bool]:
        """Take in that a client is still there.

        Returns:
            Its entry, and whether anything that has to be durable changed.

        Raises:
            Refusal: ``not-found``: it has to register again.
        """
        entry = self._entries.get(url)
        if entry is None or boot_id not in (entry.boot_id, entry.before):
            raise Refusal(Word.NOT_FOUND, "this client is not registered; it has to register again")
        since = at if entry.is_lost(now) else entry.since
        if boot_id == entry.boot_id:
            self._entries[url] = replace(entry, heard=now, since=since)
            return self._entries[url], False
        # The program before is alive: whoever claimed its address since does not live there.
        caught = [*sorted(entry.impostors), *([entry.boot_id] if entry.boot_id else [])]
        impostors = frozenset(caught[-MAX_IMPOSTORS:])
        self._entries[url] = replace(entry, boot_id=boot_id, before=None, heard=now, since=since, impostors=impostors)
        self._holders = None
        return self._entries[url], True

    def holder(self, token: str) -> Entry | None:
        """The client that has a token, if any; also the one before at an address, whose update may be on its way."""
        if self._holders is None:
            self._holders = {
                made: entry.url
                for entry in self._entries.values()
                for boot_id in (entry.before, entry.boot_id)
                if boot_id is not None and (made := client_token(self._token, boot_id)) is not None
            }
        return self._entries.get(self._holders.get(token, ""))

    def token_of(self, entry: Entry) -> str | None:
        """What a client is called with, and calls with."""
        return None if entry.boot_id is None else client_token(self._token, entry.boot_id)

    def entries(self) -> tuple[Entry, ...]:
        """Everybody, oldest first."""
        return tuple(self._entries.values())

    def connected(self, now: float) -> int:
        """How many are there now."""
        return sum(not entry.is_lost(now) for entry in self._entries.values())

    def listed(self, now: float) -> list[RegisteredClient]:
        """Everybody who has an index, by index."""
        return sorted(
            (
                RegisteredClient(
                    client=entry.index,
                    url=entry.url,
                    boot_id=entry.boot_id,
                    since=entry.since,
                    is_lost=entry.is_lost(now),
                )
                for entry in self._entries.values()
                if entry.index is not None and entry.boot_id is not None
            ),
            key=lambda client: client.client,
        )

    def compact(self, now: float) -> int:
        """Number those who are there 0, 1, 2 …, oldest first, and forget the others; return how many there are."""
        there = [item for item in self._entries.values() if item.boot_id is not None and not item.is_lost(now)]
        self._entries = {item.url: replace(item, index=index) for index, item in enumerate(there)}
        self._holders = None
        return len(there)

    def _check_claim(self, applicant: Applicant, before: Entry | None, now: float) -> None:
        """Let nobody take the address of a client that is there, unless it may have been started again.

        Raises:
            Refusal: ``forbidden``; ``unavailable`` until that client is lost.
        """
        if before is None or applicant.boot_id in (None, before.boot_id) or before.boot_id is None:
            return
        if applicant.boot_id in before.impostors:
            detail = f"{applicant.url} belongs to a client that is alive; give this one an address of its own"
            raise Refusal(Word.FORBIDDEN, detail)
        if before.peer not in ("", applicant.peer) and not before.is_lost(now):
            detail = f"{applicant.url} was registered from elsewhere, and that client was just heard of; trying on"
            raise Refusal(Word.UNAVAILABLE, f"{detail} helps once it is gone for {LOST_SECONDS:g} s")

    def _taken_in(
        self, applicant: Applicant, before: Entry | None, groups: tuple[Group, ...], *, now: float, at: datetime
    ) -> Entry:
        index = None if applicant.boot_id is None else self._index_for(before, groups, now)
        fresh = Entry(
            url=applicant.url, boot_id=applicant.boot_id, index=index, peer=applicant.peer, heard=now, since=at
        )
        if before is None or before.boot_id is None:
            return fresh
        if before.boot_id == applicant.boot_id:
            return replace(before, index=index, heard=now, since=at if before.is_lost(now) else before.since)
        if applicant.boot_id is None:
            return before  # by hand: it is registered already
        return replace(fresh, before=before.boot_id, impostors=before.impostors)

    def _groups_for(self, applicant: Applicant) -> tuple[Group, ...]:
        named = [item for item in self._groups if applicant.group in (None, item.external.group)]
        if not named:
            known = ", ".join(item.external.group for item in self._groups) or "none"
            raise Refusal(Word.FORBIDDEN, f"no group {applicant.group!r} takes clients that register; there is {known}")
        fitting = tuple(item for item in named if item.token is None or _same(item.token, applicant.shown))
        if not fitting:
            raise Refusal(Word.BAD_TOKEN, "to register here takes a token, and none or another one was shown")
        return fitting

    def _index_for(self, before: Entry | None, groups: tuple[Group, ...], now: float) -> int:
        """The index that an address had, else a free one, else that of whoever is lost the longest.

        Raises:
            Refusal: ``unavailable``: all are taken.
        """
        ranges = [range(item.external.first, item.external.first + item.external.count) for item in groups]
        if before is not None and before.index is not None and any(before.index in span for span in ranges):
            return before.index
        taken = {entry.index: entry for entry in self._entries.values() if entry.index is not None}
        free = next((index for span in ranges for index in span if index not in taken), None)
        if free is not None:
            return free
        lost = [entry for entry in taken.values() if entry.is_lost(now) and any(entry.index in span for span in ranges)]
        if not lost:
            places = sum(len(span) for span in ranges)
            raise Refusal(Word.UNAVAILABLE, f"all {places} places for clients that register are taken")
        oldest = min(lost, key=lambda entry: entry.heard)
        del self._entries[oldest.url]
        assert oldest.index is not None
        return oldest.index

    def _make_room(self, applicant: Applicant, now: float) -> None:
        """Forget those of a full host, or of all, that are lost.

        Raises:
            Refusal: ``unavailable``: nobody is lost.
        """
        most, host = self._limits.most_per_host, _host(applicant.url)
        same_peer = [entry for entry in self._entries.values() if entry.peer == applicant.peer]
        self._forget_lost(same_peer, most, now, f"{most} clients were registered by {applicant.peer} already")
        same_host = [entry for entry in self._entries.values() if _host(entry.url) == host]
        self._forget_lost(same_host, most, now, f"{most} clients are registered at {host} already")
        everybody, most = list(self._entries.values()), self._limits.most
        self._forget_lost(everybody, most, now, f"{most} clients are registered already")

    def _forget_lost(self, entries: Collection[Entry], most: int, now: float, full: str) -> None:
        if len(entries) < most:
            return
        lost = [entry for entry in entries if entry.is_lost(now)]
        if not lost:
            raise Refusal(Word.UNAVAILABLE, f"{full}; that is the limit")
        del self._entries[min(lost, key=lambda entry: entry.heard).url]


def _host(url: str) -> str:
    return urlsplit(url).hostname or ""


def _same(wanted: str, shown: str | None) -> bool:
    # Not for secrecy of length: both are looked at whole, however they differ.
    return shown is not None and _digest(wanted) == _digest(shown)


def _digest(text: str) -> str:
    return client_token(text, "compare") or ""
