"""A client that registers itself: started by hand anywhere, it tells an aggregator where it is, again and again."""

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Final

from fedjob_client.access import Access
from fedjob_client.machine import backoff_seconds
from fedjob_client.transfer import Transfer, TransferError
from fedjob_protocol.errors import Word
from fedjob_protocol.registration import HEARTBEAT_SECONDS, Heartbeat, HeartbeatAnswer, RegisteredAnswer

TRY_SECONDS: Final = 10.0
OWN_URL_SECONDS: Final = 5.0
LONGEST_PAUSE_SECONDS: Final = 5.0
"""Longest pause between tries: a server that is back is found within a heartbeat."""
REFUSED_SECONDS: Final = 30.0
"""Pause after a server refused for good: somebody may change its settings."""
_AGAIN: Final = frozenset({Word.NOT_FOUND, Word.BAD_TOKEN, Word.FORBIDDEN, Word.METHOD_NOT_ALLOWED})
"""Answers to a heartbeat after which the client registers again: the server was restarted, or forgot it."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Told:
    """What was logged last, so that each thing is said once."""

    problem: str | None = None
    round: int | None = None
    connected: int | None = None
    status: str | None = None


@dataclass(slots=True)
class Registrar:
    """Registers one client, and keeps it so.

    Args:
        transfer: Calls the aggregator.
        access: Gets the token that the client is called with.
        server_url: The aggregator.
        client_url: Where it reaches this client.
        boot_id: Identity of this run of the client.
        shown: The token that is shown to register; ``None`` shows none.
        group: The client group to be in; ``None``: any.
    """

    transfer: Transfer
    access: Access
    server_url: str
    client_url: str
    boot_id: str
    shown: str | None = None
    group: str | None = None
    _told: _Told = field(default_factory=_Told)

    async def run(self) -> None:
        """Register, tell again and again that the client is there, and register again where that is asked for."""
        while True:
            registered = await self._register()
            await self._look_at_own_url()
            await self._beat(registered.heartbeat_seconds)

    async def _register(self) -> RegisteredAnswer:
        """Register, however long it takes."""
        failures = 0
        while True:
            try:
                registered = await self.transfer.register(
                    self.server_url,
                    client_url=self.client_url,
                    boot_id=self.boot_id,
                    group=self.group,
                    shown=self.shown,
                    seconds=TRY_SECONDS,
                )
            except TransferError as error:
                failures += 1
                await self._explain(error, failures)
            else:
                self._take(registered)
                return registered

    async def _explain(self, error: TransferError, failures: int) -> None:
        if error.message != self._told.problem:
            self._told.problem = error.message
            if error.retryable:
                _log.warning("cannot register with %s yet, trying on: %s", self.server_url, error.message)
            else:
                _log.error("the aggregator at %s refuses this client: %s", self.server_url, error.message)
        pause = min(backoff_seconds(failures, self.client_url), LONGEST_PAUSE_SECONDS)
        await asyncio.sleep(pause if error.retryable else REFUSED_SECONDS)

    def _take(self, registered: RegisteredAnswer) -> None:
        self._told = _Told(status=self._told.status)
        if registered.token is not None:
            self.access.token, self.access.is_closed = registered.token, False
            self.transfer.token = registered.token
        _log.info(
            "201: registered with the aggregator at %s as %s%s; %d clients are registered there",
            self.server_url,
            self.client_url,
            "" if registered.client is None else f", client {registered.client}",
            registered.registered,
        )

    async def _look_at_own_url(self) -> None:
        """Say so if nobody answers where this client says that it is: nothing else would tell its owner."""
        problem = await self.transfer.silence_at(self.client_url, seconds=OWN_URL_SECONDS)
        if problem is not None:
            _log.warning(
                "nobody answers at CLIENT_URL, %s, as seen from here: %s; the aggregator calls this client there, so "
                "it gets no work unless that address leads to it from the aggregator's side",
                self.client_url,
                problem,
            )

    async def _beat(self, seconds: float) -> None:
        """Tell that the client is there until the server wants it to register again."""
        heartbeat = Heartbeat(client_url=self.client_url, boot_id=self.boot_id)
        failures = 0
        pause = _bounded(seconds)
        while True:
            await asyncio.sleep(pause)
            try:
                said = await self.transfer.beat(self.server_url, heartbeat, seconds=TRY_SECONDS)
            except TransferError as error:
                if not error.retryable and error.word in _AGAIN:
                    _log.info("the aggregator at %s wants this client to register again", self.server_url)
                    return
                failures += 1
                if failures == 1:
                    _log.warning("the aggregator at %s does not hear of this client: %s", self.server_url, error)
                pause = min(backoff_seconds(failures, self.client_url), LONGEST_PAUSE_SECONDS)
            else:
                if failures:
                    _log.info("the aggregator at %s hears of this client again", self.server_url)
                failures, pause = 0, _bounded(seconds)
                self._tell(said)

    def _tell(self, said: HeartbeatAnswer) -> None:
        told = self._told
        if (said.round, said.connected) != (told.round, told.connected):
            round_text = "no round yet" if said.round is None else f"round {said.round}"
            _log.info("%s, %d clients are connected", round_text, said.connected)
        if said.status != told.status and told.status is not None:
            _log.info("the server's status is %s", said.status)
        self._told = _Told(round=said.round, connected=said.connected, status=said.status)


def _bounded(seconds: float) -> float:
    """What a server asks for, within reason."""
    return min(max(seconds, 0.1), 3 * HEARTBEAT_SECONDS)
