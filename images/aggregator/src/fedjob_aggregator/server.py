"""uvicorn with what an aggregator needs beyond it: bodies received straight into place, and bounds on slow peers.

uvicorn hands a body on in pieces of 64 KiB that have been copied three times. `DirectBody` takes the connection over
for the time of a large body, so that the kernel copies it once, into its staging area; then uvicorn goes on with the
next request. All that is known of uvicorn's internals is in this module.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

import httptools
import uvicorn
from starlette.types import ASGIApp
from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from fedjob_aggregator.reception import Reception
from fedjob_aggregator.uploads import SMALL_BODY_BYTES
from fedjob_protocol.errors import PROBLEM_MEDIA_TYPE, LocalProtocolError, Refusal, Word
from fedjob_protocol.process import BACKLOG, stop_on_signals
from fedjob_protocol.routes import PROTOCOL_HEADER
from fedjob_protocol.version import PROTOCOL_VERSION

BODY_EXTENSION: Final = "fedjob.body"
"""Key in the request's ``extensions``: ``{"body": DirectBody}``, where the body is large enough for one."""
REQUEST_SECONDS: Final = 30.0
"""Within this a request has to arrive, head and body, unless its body is an upload that is watched elsewhere."""
LINGER_SECONDS: Final = 10.0
"""How long the rest of a refused body is read and dropped, so that its sender gets to the answer."""
MAX_HEAD_BYTES: Final = 64 << 10
KEEP_ALIVE_SECONDS: Final = 75
SHUTDOWN_SECONDS: Final = 1
SCRATCH_BYTES: Final = 256 << 10

_log = logging.getLogger(__name__)


class AggregatorProtocol(HttpToolsProtocol):
    """One connection: uvicorn's protocol, with limits on the time of a request and on the size of its head."""

    _timer: asyncio.TimerHandle | None = None
    _head_bytes = 0

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        super().connection_made(transport)
        self.watch(REQUEST_SECONDS)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.watch(None)
        super().connection_lost(exc)

    @override
    def data_received(self, data: bytes) -> None:
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            _log.warning("connection closed: a request's head has more than %d bytes", MAX_HEAD_BYTES)
            self.transport.abort()

    @override
    def on_message_begin(self) -> None:
        self.watch(REQUEST_SECONDS)
        super().on_message_begin()

    @override
    def on_headers_complete(self) -> None:
        is_alone = self.cycle is None or self.cycle.response_complete
        super().on_headers_complete()
        keeps_alive = self.cycle.keep_alive
        if self.expect_100_continue:
            # Refused before it was told to go on, a sender may or may not send the body: nobody knows what comes next.
            self.cycle.keep_alive = False
        length = dict(self.headers).get(b"content-length", b"0")
        if is_alone and length.isdigit() and int(length) > SMALL_BODY_BYTES:
            self.scope["extensions"] = {
                BODY_EXTENSION: {"body": DirectBody(self, int(length), keeps_alive=keeps_alive)}
            }
            self.watch(None)  # it may wait for its turn with its body unread, and is watched by the desk from then on

    @override
    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        super().on_body(body)

    @override
    def on_message_complete(self) -> None:
        self._head_bytes = 0
        self.watch(None)
        super().on_message_complete()

    @override
    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP as any other bad request, and close the connection."""
        refusal = Refusal(Word.BAD_REQUEST, msg)
        body = refusal.problem().model_dump_json().encode()
        head = (
            f"HTTP/1.1 {refusal.kind.status.value} {refusal.kind.status.phrase}\r\n"
            f"content-type: {PROBLEM_MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\n"
            f"{PROTOCOL_HEADER}: {PROTOCOL_VERSION}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    @override
    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.more_body:  # answered early: uvicorn, or `DirectBody`, drops the rest of the body
            self.watch(LINGER_SECONDS)

    def watch(self, seconds: float | None) -> None:
        """Cut the connection off after so many seconds; ``None``: do not."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self._cut_off)

    def start_over(self) -> None:
        """The body of the current message was received elsewhere: wait for the next one with a fresh parser."""
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._head_bytes = 0
        self.watch(None)
        self.cycle.more_body = False
        self.cycle.message_event.set()

    def _cut_off(self) -> None:
        if not self.transport.is_closing():
            self.transport.abort()


class DirectBody(asyncio.BufferedProtocol):
    """The body of the current request, received without a copy where it is to be staged.

    Args:
        http: The connection.
        length: Of the body, as announced.
        keeps_alive: Whether the connection may be used again.
    """

    def __init__(self, http: AggregatorProtocol, length: int, *, keeps_alive: bool) -> None:
        self._http = http
        self._keeps_alive = keeps_alive
        self._remaining = length
        self._reception: Reception | None = None
        self._wake = asyncio.Event()
        self._is_paused = False
        self._is_lost = False
        self._has_connection = False
        self._scratch = memoryview(b"")

    async def whole(self, length: int) -> bytes:
        """Never called: small bodies come through uvicorn.

        Raises:
            LocalProtocolError: Always.
        """
        raise LocalProtocolError(f"a body of {length} bytes was taken from the connection although it is small")

    async def into(self, reception: Reception, length: int) -> None:
        """Move the whole body into a reception.

        Raises:
            Refusal: ``truncated``: the connection ended before the body did; ``storage-full``.
        """
        self._reception = reception
        self._take_connection()
        try:
            while self._remaining:
                if self._is_lost or self._http.cycle.disconnected:
                    detail = f"the connection ended after {reception.received_bytes} bytes"
                    raise Refusal(Word.TRUNCATED, f"{detail} of {length}")
                if self._is_paused:
                    await reception.room()
                    self._is_paused = False
                    self._http.transport.resume_reading()
                self._wake.clear()
                await self._wake.wait()
        finally:
            self._drop_rest()

    def _take_connection(self) -> None:
        cycle: RequestResponseCycle = self._http.cycle
        if cycle.waiting_for_100_continue:
            self._http.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            cycle.waiting_for_100_continue = False
            cycle.keep_alive = self._keeps_alive
        early, cycle.body = memoryview(cycle.body), bytearray()
        while early and self._reception is not None:
            space = self._reception.space()
            count = min(len(space), len(early))
            space[:count] = early[:count]
            early = early[count:]
            self._advance(count)
        if self._remaining and not cycle.disconnected:
            self._has_connection = True
            self._http.watch(None)
            self._http.transport.set_protocol(self)
            self._http.flow.resume_reading()

    def _drop_rest(self) -> None:
        """After a refusal: read on for a while, or the answer would be lost in a reset of the connection."""
        self._reception = None
        if self._remaining and self._has_connection and not self._is_lost:
            self._scratch = memoryview(bytearray(SCRATCH_BYTES))
            if self._is_paused:
                self._http.transport.resume_reading()

    def _advance(self, count: int) -> None:
        self._remaining -= count
        if self._reception is not None:
            self._reception.advance(count)
            if self._remaining and not self._reception.space():
                self._is_paused = True
                if self._has_connection:
                    self._http.transport.pause_reading()
                self._wake.set()

    # As the connection's protocol

    @override
    def get_buffer(self, sizehint: int) -> memoryview:
        space = self._scratch if self._reception is None else self._reception.space()
        return space[: self._remaining]

    @override
    def buffer_updated(self, nbytes: int) -> None:
        self._advance(nbytes)
        if not self._remaining:
            self._has_connection = False
            self._http.transport.set_protocol(self._http)
            self._http.start_over()
            self._wake.set()

    @override
    def eof_received(self) -> None:
        """The sender will send nothing further: the transport closes itself."""

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True
        self._wake.set()
        self._http.connection_lost(exc)

    @override
    def pause_writing(self) -> None:
        self._http.pause_writing()

    @override
    def resume_writing(self) -> None:
        self._http.resume_writing()


class AggregatorServer(uvicorn.Server):
    """uvicorn's server; tells the program when it serves and when it stops.

    Args:
        config: See `server_config`.
        started: Called once requests are answered.
        stopping: Called when the program was asked to stop, before connections are waited for.
    """

    def __init__(self, config: uvicorn.Config, *, started: Callable[[], None], stopping: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = started
        self._on_stopping = stopping

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_started()

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._on_stopping()
        await super().shutdown(sockets)

    @override
    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]  # uvicorn's is a generator
        return stop_on_signals(self._stop)

    def _stop(self) -> None:
        self.should_exit = True


def server_config(app: ASGIApp) -> uvicorn.Config:
    """Uvicorn's settings: its fastest parser and loop, nothing logged per request, no headers that nobody needs."""
    options: dict[str, Any] = {
        "http": AggregatorProtocol,
        "ws": "none",
        "lifespan": "off",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "date_header": False,
        "proxy_headers": False,
        "backlog": BACKLOG,
        "timeout_keep_alive": KEEP_ALIVE_SECONDS,
        "timeout_graceful_shutdown": SHUTDOWN_SECONDS,
    }
    return uvicorn.Config(app, **options)
