"""The border of the HTTP surface: who may call, how much is read, and what an error looks like."""

import hmac
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fedjob_client.access import Access
from fedjob_protocol import PROTOCOL_VERSION, routes
from fedjob_protocol.errors import PROBLEM_MEDIA_TYPE, Refusal, Word
from fedjob_protocol.version import check_protocol

_log = logging.getLogger(__name__)

PROTECTED_PREFIX: Final = "/v1/"
WORD_OF_STATUS: Final = {401: Word.BAD_TOKEN, 403: Word.FORBIDDEN, 404: Word.NOT_FOUND, 405: Word.METHOD_NOT_ALLOWED}


class Guard:
    """Checks token, protocol version and size of every request before anything else sees it.

    Args:
        app: The application behind it.
        access: What ``/v1`` wants in its header.
    """

    def __init__(self, app: ASGIApp, *, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or let the application answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name: value for name, value in scope["headers"] if name in _READ}

        async def send_with_version(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], _VERSION]
            await send(message)

        try:
            if scope["path"].startswith(PROTECTED_PREFIX):
                self._check_token(headers.get(_TOKEN))
                version = headers.get(_PROTOCOL)
                check_protocol(None if version is None else version.decode("latin-1"))
            limited = _limited(receive, headers.get(b"content-length"))
        except Refusal as refusal:
            await problem_response(refusal)(scope, receive, send_with_version)
            return
        await self._app(scope, limited, send_with_version)

    def _check_token(self, given: bytes | None) -> None:
        self._access.check_open()
        if not has_token(self._access.token, given):
            raise Refusal(Word.BAD_TOKEN, f"this client wants the job's token in the header {routes.TOKEN_HEADER}")


_TOKEN: Final = routes.TOKEN_HEADER.lower().encode()
_PROTOCOL: Final = routes.PROTOCOL_HEADER.lower().encode()
_READ: Final = frozenset({_TOKEN, _PROTOCOL, b"content-length"})
_VERSION: Final = (_PROTOCOL, str(PROTOCOL_VERSION).encode())


def has_token(token: str | None, given: bytes | None) -> bool:
    """Whether a request may do what wants the token; compared in constant time."""
    return token is None or (given is not None and hmac.compare_digest(given, token.encode()))


def problem_response(refusal: Refusal) -> Response:
    """An error answer."""
    problem = refusal.problem()
    return Response(problem.model_dump_json(), status_code=problem.status, media_type=PROBLEM_MEDIA_TYPE)


def add_error_answers(app: FastAPI) -> None:
    """Answer every error as a problem: never a traceback."""
    app.add_exception_handler(Refusal, _on_refusal)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_status)
    app.add_exception_handler(Exception, _on_bug)


def first_problem(errors: Any, known: str = "") -> str:
    """The first of pydantic's errors in one line; ``known`` are the names that exist."""
    first = errors[0]
    where = ".".join(str(part) for part in first["loc"]) or "body"
    if first["type"] == "extra_forbidden":
        return f"{where} is not known{f'; known: {known}' if known else ''}"
    return f"{where}: {first['msg']}"


async def _on_refusal(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return problem_response(error)


async def _on_invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return problem_response(Refusal(Word.BAD_REQUEST, first_problem(error.errors())))


async def _on_status(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    word = WORD_OF_STATUS.get(error.status_code, Word.BAD_REQUEST)
    return problem_response(Refusal(word, f"{request.method} {request.url.path}: {error.detail}"))


async def _on_bug(request: Request, error: Exception) -> Response:
    _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return problem_response(Refusal(Word.INTERNAL, "the client failed; its log says why"))


def _limited(receive: Receive, length: bytes | None) -> Receive:
    """A `receive` that never gives more than the largest body.

    Raises:
        Refusal: ``too-large``: the announced length is larger already.
    """
    limit = routes.MAX_JSON_BODY_BYTES
    if length is not None and length.isdigit():
        if int(length) > limit:
            raise Refusal(Word.TOO_LARGE, f"the body has {int(length)} bytes, at most {limit} are read")
        return receive  # the server reads no more than was announced
    return _counted(receive, limit)


def _counted(receive: Callable[[], Awaitable[Message]], limit: int) -> Receive:
    total = 0

    async def counting() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > limit:
            raise Refusal(Word.TOO_LARGE, f"the body has more than {limit} bytes")
        return message

    return counting
