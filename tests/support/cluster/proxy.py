"""A plain HTTP proxy before an API server: it counts, remembers and spoils what the operator does."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
from aiohttp import web

from tests.support.cluster.access import Access, path
from tests.support.cluster.calls import CALL, VERBS, Call, call_of, is_watch, pod_of
from tests.support.cluster.streams import EXPIRED, Streams

Document = dict[str, Any]

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "host", "content-length"}
TIMED = "leases"
"""Written as time passes, whatever happens: these writes have no numbers."""
BUFFER_BYTES = 1 << 22
"""Longest line of a watch."""
SHUTDOWN_SECONDS = 0.1
LATE_TURNS = 5
"""Turns of the event loop after which a connection that was being accepted is there."""

Spoil = Callable[[Call], int | None]
"""Told of a request before it is passed on (with ``code`` 0): a status to answer instead, or ``None``."""
Meet = Callable[[Call], Awaitable[bool]]
"""Awaited with a request, or with the answer on its way back; unless it returns true that goes no further."""


async def let_pass(_: Call) -> bool:
    """Do nothing."""
    return True


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def response(self) -> web.Response:
        return web.Response(body=self.body, status=self.status, headers=self.headers)


class Proxy:
    """The proxy.

    Args:
        access: The API server; who calls is left to the caller's own headers.
    """

    def __init__(self, access: Access) -> None:
        self.calls: list[Call] = []
        self.delay_seconds = 0.0
        """Before each request is passed on."""
        self.spoil: Spoil = lambda _: None
        self.retry_after_seconds: int | None = None
        """What a spoilt answer asks the caller to wait."""
        self.before: Meet = let_pass
        """Each request but watches, before it is passed on."""
        self.after: Meet = let_pass
        """Each answer, before it is given."""
        self.streams = Streams()
        """The events of watches."""
        self.watches_started = 0
        self.refused = 0
        """Requests that were answered here, because they were to be spoilt."""
        self.numbered: Counter[str] = Counter()
        """How many requests have arrived that have a number: ``write`` and ``call``."""
        self._access = access
        self._expire = 0
        self._expire_in_stream = 0
        self._watches: set[asyncio.Task[Any]] = set()
        self._asked: dict[str, dict[str, str]] = {}
        self._stale: dict[str, _Answer] = {}
        self._session: aiohttp.ClientSession | None = None
        self._runner: web.ServerRunner | None = None
        self._server: web.Server[web.BaseRequest] | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Begin to listen."""
        tls = self._access.tls()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls if tls is not None else True, limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
        )
        await self._listen()

    async def stop(self) -> None:
        """Close everything."""
        await self._hang_up()
        if self._session:
            await self._session.close()

    # What can be provoked

    async def refuse(self) -> None:
        """Be unreachable: close all connections, take no more."""
        await self._hang_up()

    async def accept(self) -> None:
        """Be reachable again, under the same address."""
        await self._listen()

    async def drop_watches(self) -> int:
        """Cut all watches off; return how many there were."""
        watches = list(self._watches)
        for task in watches:
            task.cancel()
        return len(watches)

    def expire_watches(self, count: int, *, in_stream: bool) -> None:
        """Answer 410 to the next watches: as the response, or as the first event of its stream."""
        if in_stream:
            self._expire_in_stream = count
        else:
            self._expire = count

    async def go_stale(self) -> None:
        """Answer all that was read so far as it is now, whatever becomes of it; watches tell nothing new."""
        self.streams.hold()
        for path_and_query, headers in tuple(self._asked.items()):
            self._stale[path_and_query] = await self._fetch("GET", path_and_query, b"", headers)

    def catch_up(self) -> None:
        """Answer what is true, and tell the watches what they have missed."""
        self._stale.clear()
        self.streams.proceed()

    # What can be asked

    def writes(self, namespace: str | None = None) -> Counter[str]:
        """Writes so far, by verb and resource."""
        return Counter(
            f"{call.verb} {call.resource}"
            for call in self.calls
            if call.is_write and (namespace is None or call.namespace == namespace)
        )

    # Passing on

    async def _listen(self) -> None:
        self._server = web.Server(self._handle, access_log=None)
        self._runner = web.ServerRunner(self._server, shutdown_timeout=SHUTDOWN_SECONDS)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def _hang_up(self) -> None:
        await self.drop_watches()
        if self._runner:
            await self._runner.cleanup()
            self._runner = None
        if self._server:
            # What was being accepted meanwhile is connected only a few turns of the loop later, to nobody.
            for _ in range(LATE_TURNS):
                await asyncio.sleep(0)
            await self._server.shutdown(SHUTDOWN_SECONDS)
            self._server = None

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        call = self._numbered(call_of(request, body))
        if self.delay_seconds:
            await asyncio.sleep(self.delay_seconds)
        if (code := self.spoil(call)) is not None:
            self.refused += 1
            return self._spoilt(code)
        if is_watch(request):
            return await self._watch(request)
        if not await self.before(call):
            return _cut(request)
        answer = await self._answer(request, body)
        done = call_of(request, body, answer.status, answer.body if request.method in VERBS else b"")
        done = replace(done, nth=call.nth)
        self.calls.append(done)
        if not await self.after(done):
            return _cut(request)
        return answer.response()

    def _numbered(self, call: Call) -> Call:
        if call.verb != CALL and (not call.is_write or call.resource == TIMED):
            return call
        kind = CALL if call.verb == CALL else "write"
        self.numbered[kind] += 1
        return replace(call, nth=self.numbered[kind])

    def _spoilt(self, code: int) -> web.Response:
        after = self.retry_after_seconds
        headers = {} if after is None else {"Retry-After": str(after)}
        status = {"kind": "Status", "status": "Failure", "code": code, "message": "spoilt"}
        return web.json_response(status, status=code, headers=headers)

    async def _answer(self, request: web.BaseRequest, body: bytes) -> _Answer:
        if pod := pod_of(request.path):
            return await self._ask_pod(request, body, pod)
        if request.method == "GET":
            if (stale := self._stale.get(request.path_qs)) is not None:
                return stale
            self._asked[request.path_qs] = _headers(request)
        return await self._fetch(request.method, request.path_qs, body, _headers(request))

    async def _fetch(self, method: str, path_and_query: str, body: bytes, headers: dict[str, str]) -> _Answer:
        assert self._session is not None
        url = self._access.url + path_and_query
        async with self._session.request(method, url, data=body or None, headers=headers) as answer:
            return _Answer(answer.status, _kept(answer.headers), await answer.read())

    async def _ask_pod(self, request: web.BaseRequest, body: bytes, pod: dict[str, str]) -> _Answer:
        """Do what the API server's own proxy does; a real one refuses to call loopback addresses."""
        assert self._session is not None
        found = await self._fetch("GET", path("pods", pod["namespace"], pod["name"]), b"", _headers(request))
        if found.status != 200:
            return found
        address = json.loads(found.body)["status"].get("podIP")
        query = f"?{request.query_string}" if request.query_string else ""
        headers = {name: value for name, value in _headers(request).items() if name.lower() != "authorization"}
        url = f"http://{address}:{pod['port']}{pod['path']}{query}"
        try:
            async with self._session.request(request.method, url, data=body or None, headers=headers) as answer:
                return _Answer(answer.status, _kept(answer.headers), await answer.read())
        except aiohttp.ClientError as error:
            status = {"kind": "Status", "status": "Failure", "code": 503, "message": f"error trying to reach: {error}"}
            return _Answer(503, {"Content-Type": "application/json"}, json.dumps(status).encode())

    async def _watch(self, request: web.BaseRequest) -> web.StreamResponse:
        self.watches_started += 1
        if self._expire > 0:
            self._expire -= 1
            return web.json_response(EXPIRED, status=410)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        if self._expire_in_stream > 0:
            self._expire_in_stream -= 1
            await response.write(json.dumps({"type": "ERROR", "object": EXPIRED}).encode() + b"\n")
            return response
        task = asyncio.create_task(self._stream(request, response))
        self._watches.add(task)
        try:
            await asyncio.wait({task})
            if task.cancelled():
                _cut(request)
        finally:
            task.cancel()
            self._watches.discard(task)
        return response

    async def _stream(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        assert self._session is not None
        url = self._access.url + request.path_qs
        headers = _headers(request) | {"Accept-Encoding": "identity"}
        with suppress(aiohttp.ClientError, ConnectionError):
            async with self._session.get(url, headers=headers, read_bufsize=BUFFER_BYTES) as answer:
                async for line in self.streams.passed_on(aiter(answer.content)):
                    await response.write(line)


def _headers(request: web.BaseRequest) -> dict[str, str]:
    return _kept(request.headers)


def _kept(headers: Any) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in HOP_BY_HOP}


def _cut(request: web.BaseRequest) -> web.Response:
    """End as a connection that breaks."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
