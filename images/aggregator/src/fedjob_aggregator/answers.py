"""Requests in and answers out: limited bodies, problems, and the headers that every answer carries."""

import asyncio
import logging
import math
import re
import secrets
from collections.abc import Callable
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fedjob_protocol.errors import PROBLEM_MEDIA_TYPE, Refusal, Word
from fedjob_protocol.permits import model_permit
from fedjob_protocol.routes import MAX_JSON_BODY_BYTES, MODEL_PATH, PROTOCOL_HEADER, TOKEN_HEADER
from fedjob_protocol.version import PROTOCOL_VERSION, check_protocol

BODY_SECONDS: Final = 30.0
"""Within this a JSON body has to arrive."""
SHOWN_ERRORS: Final = 5
_ONE_MODEL: Final = re.compile(re.escape(MODEL_PATH).replace(re.escape("{which}"), r"(0|[1-9]\d{0,8})"), re.ASCII)
"""Path of a model by the number of its round, as `fedjob_protocol.routes.model_path` writes it."""

_log = logging.getLogger(__name__)
M = TypeVar("M", bound=BaseModel)


def answer(model: BaseModel, status: int = 200) -> Response:
    """A message as JSON."""
    return Response(model.model_dump_json(by_alias=True), status, media_type="application/json")


def problem(refusal: Refusal, headers: dict[str, str] | None = None) -> Response:
    """A refusal as ``application/problem+json``."""
    body = refusal.problem().model_dump_json()
    return Response(body, refusal.kind.status, headers, media_type=PROBLEM_MEDIA_TYPE)


async def read_body(request: Request, limit: int = MAX_JSON_BODY_BYTES) -> bytes:
    """The whole body of a request.

    Raises:
        Refusal: ``too-large``, or ``truncated`` when it does not arrive.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for piece in request.stream():
                body += piece
                if len(body) > limit:
                    raise Refusal(Word.TOO_LARGE, f"the body has more than {limit} bytes")
    except (ClientDisconnect, TimeoutError) as error:
        raise Refusal(Word.TRUNCATED, f"the body ended after {len(body)} bytes") from error
    return bytes(body)


async def read_message(request: Request, kind: type[M]) -> M:
    """The body of a request as a message; its media type is not looked at, as tools announce all sorts.

    Raises:
        Refusal: ``bad-request``, naming the fields that are wrong; ``too-large``; ``truncated``.
    """
    body = await read_body(request)
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise Refusal(Word.BAD_REQUEST, describe(error)) from None


def describe(error: ValidationError) -> str:
    """What is wrong with a message, field by field."""
    errors = error.errors(include_url=False, include_input=False)
    lines = [f"{'.'.join(str(part) for part in item['loc']) or 'body'}: {item['msg']}" for item in errors]
    rest = f"; and {len(lines) - SHOWN_ERRORS} more" if len(lines) > SHOWN_ERRORS else ""
    return ("; ".join(lines[:SHOWN_ERRORS]) + rest)[:1024]


def whole_number(text: str | None, name: str, most: int) -> int:
    """A decimal integer from 0 to ``most``.

    Raises:
        Refusal: ``bad-request``.
    """
    if text is None or not (text.isascii() and text.isdigit() and len(text) <= 19) or int(text) > most:
        seen = "absent" if text is None else repr(text[:40])
        raise Refusal(Word.BAD_REQUEST, f"{name} must be a whole number from 0 to {most}, it is {seen}")
    return int(text)


def wait_seconds(text: str | None) -> float:
    """The parameter ``wait`` of a request.

    Raises:
        Refusal: ``bad-request``.
    """
    try:
        seconds = float(text or 0)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise Refusal(Word.BAD_REQUEST, f"wait must be a number of seconds from 0, it is {(text or '')[:40]!r}")
    return seconds


class Gate:
    """Outermost: token and protocol of ``/v1``, the protocol's header on all answers, and no traceback to peers.

    Args:
        app: What it guards.
        token: What ``/v1`` wants; ``None``: nothing.
        other: Whether another token may do what a request asks for: that of a client that registered itself.
    """

    def __init__(
        self, app: ASGIApp, token: str | None, other: Callable[[str, str, str], bool] = lambda *_: False
    ) -> None:
        self._app = app
        self._token = None if token is None else token.encode()
        self._other = other

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_with_protocol(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)[PROTOCOL_HEADER] = str(PROTOCOL_VERSION)
            await send(message)

        try:
            if scope["path"].startswith("/v1"):
                self._check(Headers(scope=scope), scope["method"], scope["path"])
            await self._app(scope, receive, send_with_protocol)
        except Refusal as refusal:
            await problem(refusal)(scope, receive, send_with_protocol)
        except Exception:
            _log.exception("%s %s failed", scope["method"], scope["path"])
            if started:
                raise
            await problem(Refusal(Word.INTERNAL, "an error of the aggregator; its log says more"))(
                scope, receive, send_with_protocol
            )

    def _check(self, headers: Headers, method: str, path: str) -> None:
        if self._token is not None:
            given = headers.get(TOKEN_HEADER, "")
            is_known = secrets.compare_digest(given.encode(), self._token) or self._other(given, method, path)
            if not is_known and not _is_permitted(given.encode(), self._token, method, path):
                raise Refusal(Word.BAD_TOKEN, f"{TOKEN_HEADER} is absent or not the token of this job")
        check_protocol(headers.get(PROTOCOL_HEADER))


def _is_permitted(given: bytes, token: bytes, method: str, path: str) -> bool:
    """Whether this request reads the one model that the permit of another job stands for."""
    match = _ONE_MODEL.fullmatch(path)
    if match is None or method != "GET":
        return False
    return secrets.compare_digest(given, model_permit(token.decode(), int(match[1])).encode())


def not_found(path: str) -> Response:
    """The answer to a path that does not exist."""
    return problem(Refusal(Word.NOT_FOUND, f"there is nothing at {path[:200]!r}"))


def method_not_allowed(method: str, path: str, allow: str) -> Response:
    """The answer to a method that a path does not have."""
    refusal = Refusal(Word.METHOD_NOT_ALLOWED, f"{path[:200]!r} does not know {method[:20]!r}; it knows {allow}")
    return problem(refusal, {"Allow": allow})
