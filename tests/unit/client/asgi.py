"""Calls to the application without a network."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from fedjob_client.app import create_app
from fedjob_client.service import Loaded
from fedjob_client.settings import Settings


class Answer:
    """Status, headers and JSON of an answer."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.raw = b""

    @property
    def json(self) -> Any:
        return json.loads(self.raw)


class Caller:
    """A client of the application."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app

    async def __call__(
        self, method: str, target: str, body: bytes | str | None = None, *, length: int | None = None, **headers: str
    ) -> Answer:
        path, _, query = target.partition("?")
        data = body.encode() if isinstance(body, str) else body or b""
        sent = {name.replace("_", "-").lower(): value for name, value in headers.items()}
        if length is not None:
            sent["content-length"] = str(length)
        answer, blocks = Answer(), [data[begin : begin + 65536] for begin in range(0, len(data) or 1, 65536)]

        async def receive() -> dict[str, Any]:
            block = blocks.pop(0)
            return {"type": "http.request", "body": block, "more_body": bool(blocks)}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {name.decode().lower(): value.decode() for name, value in message["headers"]}
            else:
                answer.raw += message.get("body", b"")

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8000),
            "state": {},
        }
        await self.app(scope, receive, send)
        return answer


@asynccontextmanager
async def serving(settings: Settings | None = None, loaded: Loaded | None = None) -> AsyncIterator[Caller]:
    """The application of one process, started."""
    app = create_app(settings or Settings(), loaded)
    async with app.router.lifespan_context(app):
        yield Caller(app)
