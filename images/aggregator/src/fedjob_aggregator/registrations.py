"""The shell around the registry: its clock, its file, and what is said to clients. See `registry` for the rules."""

import asyncio
import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ValidationError

from fedjob_aggregator.disk import Disk
from fedjob_aggregator.registry import Applicant, Entry, Group, Limits, Registry
from fedjob_protocol.clients import RegisteredClient
from fedjob_protocol.errors import Refusal, Word
from fedjob_protocol.registration import Heartbeat, HeartbeatAnswer, RegisteredAnswer
from fedjob_protocol.routes import CLIENTS_PATH, MODEL_PATH

REGISTERED_FILE: Final = "registered.json"
_MODELS: Final = MODEL_PATH.partition("{")[0]
_OWN: Final = re.compile(r"/v1/rounds/[0-9]{1,10}/(?:updates|failures)/([0-9]{1,7})")
"""What a client sends of its own, with its index."""

_log = logging.getLogger(__name__)


class _Known(BaseModel):
    url: str
    boot_id: str
    index: int


class _File(BaseModel):
    clients: list[_Known]


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationSettings:
    """Who may register."""

    groups: tuple[Group, ...]
    limits: Limits
    allowed_hosts: tuple[str, ...] = ()
    """Hosts, addresses and networks that clients may be at; none is all."""
    refused_hosts: tuple[str, ...] = ()
    """Where no client lives: the API server."""


class Registrations:
    """Clients that registered themselves, kept in a file beside the manifest.

    After a restart those in the file count as heard of, so that nobody is lost for that the aggregator was away.

    Args:
        folder: The aggregator's.
        settings: Who may register.
        token: The job's token.
        wall_clock: The time of day.
        disk: Operations on files.
    """

    def __init__(
        self,
        folder: Path,
        settings: RegistrationSettings,
        *,
        token: str | None,
        wall_clock: Callable[[], datetime],
        disk: Disk | None = None,
    ) -> None:
        self.settings = settings
        self._folder, self._file = folder, folder / REGISTERED_FILE
        self._disk = disk or Disk()
        self._wall_clock = wall_clock
        self._writing = asyncio.Lock()
        known = _read(self._file, now=time.monotonic(), at=wall_clock())
        self.registry = Registry(settings.groups, limits=settings.limits, token=token, known=known)

    async def register(self, applicant: Applicant) -> RegisteredAnswer:
        """Take a client in.

        Raises:
            Refusal: As `Registry.register`; ``storage-full`` where it cannot be made durable.
        """
        is_new = all(entry.url != applicant.url for entry in self.registry.entries())
        entry, changed = self.registry.register(applicant, now=time.monotonic(), at=self._wall_clock())
        if changed:
            await self._keep()
        if is_new:
            _log.info("registered client %s at %s", "by hand" if entry.index is None else entry.index, entry.url)
        return RegisteredAnswer(
            client_url=entry.url,
            registered=len(self.registry.entries()),
            client=entry.index,
            # Who registers an address by hand may be anybody, and the token is its client's.
            token=self.registry.token_of(entry) if applicant.boot_id == entry.boot_id else None,
        )

    async def beat(self, heartbeat: Heartbeat, *, round_number: int | None, status: str | None) -> HeartbeatAnswer:
        """Take in that a client is still there.

        Raises:
            Refusal: As `Registry.beat`.
        """
        now = time.monotonic()
        url, boot_id = heartbeat.client_url.rstrip("/"), heartbeat.boot_id
        entry, changed = self.registry.beat(url, boot_id, now=now, at=self._wall_clock())
        if changed:
            _log.warning("%s was claimed by another program than the one that lives there", entry.url)
            await self._keep()
        connected = self.registry.connected(now)
        return HeartbeatAnswer(client=entry.index, round=round_number, connected=connected, status=status)

    def may(self, token: str, method: str, path: str) -> bool:
        """Whether the token of a registered client allows a request: its heartbeats, models, and its own updates."""
        entry = self.registry.holder(token) if token else None
        if entry is None:
            return False
        if (method, path) == ("PUT", CLIENTS_PATH) or (method in {"GET", "HEAD"} and path.startswith(_MODELS)):
            return True
        own = _OWN.fullmatch(path)
        return method == "PUT" and own is not None and int(own[1]) == entry.index

    def listed(self) -> list[RegisteredClient]:
        """Everybody who has an index."""
        return self.registry.listed(time.monotonic())

    def connected(self) -> int:
        """How many are there now."""
        return self.registry.connected(time.monotonic())

    def shown(self) -> list[dict[str, object]]:
        """Everybody, for people: no secrets."""
        now = time.monotonic()
        return [
            {
                "client_url": entry.url,
                "client": entry.index,
                "state": "lost" if entry.is_lost(now) else "connected",
                "silent_seconds": round(now - entry.heard, 1),
                "since": entry.since.isoformat(),
            }
            for entry in self.registry.entries()
        ]

    async def compact(self) -> int:
        """Number those who are there 0, 1, 2 …; return how many there are."""
        count = self.registry.compact(time.monotonic())
        await self._keep()
        return count

    async def _keep(self) -> None:
        known = [
            _Known(url=entry.url, boot_id=entry.boot_id, index=entry.index)
            for entry in self.registry.entries()
            if entry.boot_id is not None and entry.index is not None
        ]
        async with self._writing:
            try:
                await asyncio.to_thread(self._write, _File(clients=known))
            except OSError as error:
                raise Refusal(Word.STORAGE_FULL, f"the registration cannot be kept, try again: {error!r}") from error

    def _write(self, known: _File) -> None:
        # For nobody else: who knows a boot id could register in that client's place.
        self._disk.write_new(self._file, [known.model_dump_json().encode()], mode=0o600)
        self._disk.sync_folder(self._folder)


def _read(file: Path, *, now: float, at: datetime) -> list[Entry]:
    try:
        known = _File.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return []
    except (OSError, ValidationError) as error:
        _log.warning("%s cannot be read and counts as empty: %s", file, error)
        return []
    return [
        Entry(url=item.url, boot_id=item.boot_id, index=item.index, peer="", heard=now, since=at)
        for item in known.clients
    ]


def networks(text: str | None) -> tuple[str, ...]:
    """Hosts, addresses and networks out of a list with commas."""
    return tuple(part for part in (piece.strip() for piece in (text or "").split(",")) if part)
