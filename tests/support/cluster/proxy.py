"""A plain HTTP proxy before an API server: it counts, remembers and spoils what the operator does."""

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web

from tests.support.cluster.access import Access

Document = dict[str, Any]

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "host", "content-length"}
VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_PATH = re.compile(
    r"^/(?:api/v1|apis/[^/]+/[^/]+)(?:/namespaces/(?P<namespace>[^/]+)(?=/[^/]))?"
    r"/(?P<resource>[^/]+)(?:/(?P<name>[^/]+))?(?:/(?P<sub>[^/]+))?$"
)
EXPIRED = {
    "kind": "Status",
    "apiVersion": "v1",
    "metadata": {},
    "status": "Failure",
    "message": "too old resource version: 1 (2)",
    "reason": "Expired",
    "code": 410,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request that was answered."""

    at: float
    """When the answer was there, in seconds of the monotonic clock."""
    verb: str
    """As in RBAC."""
    resource: str
    """With its subresource: ``federatedjobs/status``."""
    namespace: str
    name: str
    dry_run: bool
    body: Any
    code: int
    version: str
    """``resourceVersion`` of the object that was answered."""

    @property
    def is_write(self) -> bool:
        """Whether it may have changed something that is kept."""
        return self.verb in VERBS.values() and not self.dry_run


Spoil = Callable[[Call], int | None]
"""Told of a request before it is passed on (with ``code`` 0): a status to answer instead, or ``None``."""


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
        self.watches_started = 0
        self.refused = 0
        """Requests that were answered here, because they were to be spoilt."""
        self._access = access
        self._expire = 0
        self._expire_in_stream = 0
        self._watches: set[asyncio.Task[Any]] = set()
        self._session: aiohttp.ClientSession | None = None
        self._runner: web.ServerRunner | None = None
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
        self._runner = web.ServerRunner(web.Server(self._handle, access_log=None), shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def _hang_up(self) -> None:
        await self.drop_watches()
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        call = _call(request, body, 0, b"")
        if self.delay_seconds:
            await asyncio.sleep(self.delay_seconds)
        if (code := self.spoil(call)) is not None:
            self.refused += 1
            return web.json_response(
                {"kind": "Status", "status": "Failure", "code": code, "message": "spoilt"}, status=code
            )
        if request.query.get("watch") in ("1", "true"):
            return await self._watch(request)
        return await self._pass_on(request, body)

    async def _pass_on(self, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        assert self._session is not None
        url = self._access.url + request.path_qs
        async with self._session.request(request.method, url, data=body or None, headers=_headers(request)) as answer:
            content = await answer.read()
            self.calls.append(_call(request, body, answer.status, content if request.method in VERBS else b""))
            headers = {name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP}
            return web.Response(body=content, status=answer.status, headers=headers)

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
            if task.cancelled() and request.transport is not None:
                request.transport.abort()  # as a connection that breaks
        finally:
            task.cancel()
            self._watches.discard(task)
        return response

    async def _stream(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        assert self._session is not None
        url = self._access.url + request.path_qs
        with suppress(aiohttp.ClientError, ConnectionError):
            async with self._session.get(url, headers=_headers(request) | {"Accept-Encoding": "identity"}) as answer:
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)


def _headers(request: web.BaseRequest) -> dict[str, str]:
    return {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}


def _call(request: web.BaseRequest, body: bytes, code: int, answer: bytes) -> Call:
    found = _PATH.match(request.path)
    parts = found.groupdict() if found else {}
    resource = parts.get("resource") or request.path
    verb = VERBS.get(request.method) or ("get" if parts.get("name") else "list")
    document = _json(body)
    name = parts.get("name") or (document.get("metadata", {}).get("name", "") if isinstance(document, dict) else "")
    return Call(
        at=time.monotonic(),
        verb="watch" if request.query.get("watch") else verb,
        resource=f"{resource}/{parts['sub']}" if parts.get("sub") else resource,
        namespace=parts.get("namespace") or "",
        name=name,
        dry_run=bool(request.query.get("dryRun")),
        body=document,
        code=code,
        version=_version(_json(answer)),
    )


def _version(document: Any) -> str:
    metadata = document.get("metadata") if isinstance(document, dict) else None
    return str(metadata.get("resourceVersion", "")) if isinstance(metadata, dict) else ""


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None
