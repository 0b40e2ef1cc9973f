"""`KubeApi` over the asyncio client of the `kubernetes` package: raw documents, own retries, bounded concurrency."""

import asyncio
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio.client.api_client import ApiClient

from fedjob_operator.adapters.kube.api import DEADLINE_SECONDS, ApiRefusedError, ApiUnavailableError, Kind
from fedjob_operator.adapters.kube.documents import Document, entries, mapping, meta, name_of, text
from fedjob_operator.adapters.kube.login import Login

CONNECT_SECONDS: Final = 3.0
TRY_SECONDS: Final = 10.0
"""Longest time that one try of a request takes."""
FIRST_PAUSE_SECONDS: Final = 0.1
MAX_PAUSE_SECONDS: Final = 2.0
PAGE: Final = 500
"""Objects per piece of a list."""
MAX_MESSAGE: Final = 1024
"""Longest part of the server's words that is repeated, in characters."""

OnRequest = Callable[[str, str], None]
"""Called after each try of a request with its verb, as in RBAC, and the status that came back, or ``none``."""


class KubeClient:
    """`fedjob_operator.adapters.kube.api.KubeApi`.

    Every request is tried again after no answer, 429 and 5xx, until its deadline: all that we send is idempotent, by
    deterministic names, unique ids and resource versions.

    Args:
        login: The API server and our credentials.
        at_once: How many requests may be under way.
        on_request: Told of every try.
    """

    def __init__(self, login: Login, *, at_once: int = 20, on_request: OnRequest = lambda _verb, _code: None) -> None:
        self._login = login
        self._client = ApiClient(login.configuration)
        self._slots = asyncio.Semaphore(at_once)
        self._on_request = on_request

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()  # type: ignore[no-untyped-call] # the package has few types

    async def get(self, kind: Kind, namespace: str, name: str) -> Document:
        """Return an object."""
        return await self._request("get", "GET", kind.path(namespace, name))

    async def list(
        self, kind: Kind, namespace: str | None, *, labels: str = "", fields: str = "", most: int | None = None
    ) -> list[Document]:
        """Return the objects of a namespace, or of all, as they are now."""
        found: list[Document] = []
        proceed = ""
        while True:
            page = min(PAGE, most - len(found)) if most is not None else PAGE
            query = {"limit": str(page), "labelSelector": labels, "fieldSelector": fields, "continue": proceed}
            try:
                answer = await self._request("list", "GET", kind.path(namespace), query)
            except ApiRefusedError as error:
                if error.status == 410 and proceed:  # it took too long: what is left of that list is gone
                    found, proceed = [], ""
                    continue
                raise
            found += entries(answer.get("items"))
            proceed = text(meta(answer).get("continue"))
            if not proceed or (most is not None and len(found) >= most):
                return found

    async def create(self, kind: Kind, namespace: str, document: Document, *, dry_run: bool = False) -> Document:
        """Create an object, or only say whether that would be possible, and whether it knows all fields."""
        query = {"dryRun": "All", "fieldValidation": "Strict"} if dry_run else {}
        return await self._request("create", "POST", kind.path(namespace), query, document)

    async def replace(self, kind: Kind, namespace: str, document: Document) -> Document:
        """Replace an object of the version that the document names."""
        return await self._request("update", "PUT", kind.path(namespace, name_of(document)), {}, document)

    async def patch_status(self, kind: Kind, namespace: str, name: str, patch: Document) -> Document:
        """Merge a JSON merge patch into an object's status."""
        path = kind.path(namespace, name, "status")
        return await self._request("patch", "PATCH", path, {}, patch, content="application/merge-patch+json")

    async def delete(
        self, kind: Kind, namespace: str, name: str, *, uid: str, grace_seconds: int | None = None
    ) -> Document:
        """Delete the object with this unique id."""
        options: Document = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid},
            "propagationPolicy": "Background",
        }
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        return await self._request("delete", "DELETE", kind.path(namespace, name), {}, options)

    async def _request(
        self,
        verb: str,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Document | None = None,
        *,
        content: str = "application/json",
    ) -> Document:
        wanted = {key: value for key, value in (query or {}).items() if value}
        url = f"{self._login.server}{quote(path)}" + (f"?{urlencode(wanted)}" if wanted else "")
        request = _Request(verb=verb, method=method, path=path, url=url, body=body, content=content)
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                return await self._persist(request)
        except TimeoutError:
            raise ApiUnavailableError(f"{method} {path}: {request.last}") from None

    async def _persist(self, request: "_Request") -> Document:
        """Try until there is an answer."""
        pause = FIRST_PAUSE_SECONDS
        is_renewed = False
        while True:
            wait = 0.0
            try:
                status, headers, answer = await self._try(request)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                self._on_request(request.verb, "none")
                request.last = f"{type(error).__name__}: {error}"
            else:
                self._on_request(request.verb, str(status))
                if 200 <= status < 300:
                    return answer
                refusal = _refusal(request, status, answer)
                if status == HTTPStatus.UNAUTHORIZED and not is_renewed:
                    is_renewed = True
                    await self._login.renew()
                    continue
                if status != HTTPStatus.TOO_MANY_REQUESTS and status < HTTPStatus.INTERNAL_SERVER_ERROR:
                    raise refusal
                request.last = str(refusal)
                wait = _retry_after(headers)
            await asyncio.sleep(max(_jittered(pause), wait))
            pause = min(pause * 2, MAX_PAUSE_SECONDS)

    async def _try(self, request: "_Request") -> tuple[int, Mapping[str, str], Document]:
        headers = {"Accept": "application/json", "Content-Type": request.content, "User-Agent": "fedjob-operator"}
        headers |= await self._login.authorization()
        timeout = aiohttp.ClientTimeout(total=TRY_SECONDS, sock_connect=CONNECT_SECONDS)
        async with self._slots:
            response = await self._client.call_api(
                request.method, request.url, header_params=headers, body=request.body, _request_timeout=timeout
            )
            try:
                raw = await response.read()  # type: ignore[no-untyped-call] # as above
            finally:
                response.response.close()  # after a whole body the connection is in the pool already
        return response.status, response.headers, _document(raw)


@dataclass(slots=True, kw_only=True)
class _Request:
    verb: str
    method: str
    path: str
    url: str
    body: Document | None
    content: str
    last: str = "no answer"
    """What came of the last try."""


def _document(raw: bytes | None) -> Document:
    """Read a body; one that is no JSON object, from something between us and the API server, counts as empty."""
    try:
        return mapping(json.loads(raw or b"{}"))
    except ValueError:
        return {}


def _refusal(request: _Request, status: int, answer: Document) -> ApiRefusedError:
    message = text(answer.get("message"))[:MAX_MESSAGE] or f"{request.method} {request.path}: status {status}"
    return ApiRefusedError(message, status=status, reason=text(answer.get("reason")))


def _retry_after(headers: Mapping[str, Any]) -> float:
    value = str(headers.get("Retry-After", ""))
    return float(value) if value.isascii() and value.isdigit() and len(value) < 6 else 0.0


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(0.5, 1.0)  # noqa: S311 - spreads retries, decides nothing
