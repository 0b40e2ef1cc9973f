"""Calls the handlers of a router without FastAPI's routing and dependencies, which cost more than most handlers do.

The handlers take the raw request and give a response, so nothing is lost: FastAPI keeps the same routes for its
document, and serves what is not found here, such as a method that a path does not have.
"""

import re
from collections.abc import Awaitable, Callable, Iterable

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, compile_path
from starlette.types import ASGIApp, Receive, Scope, Send

Handler = Callable[[Request], Awaitable[Response]]


class DirectRoutes:
    """An application that dispatches to handlers by itself.

    Args:
        routes: The routes; those that are not FastAPI's own are left to ``otherwise``.
        otherwise: Who serves everything else.
    """

    def __init__(self, routes: Iterable[BaseRoute], otherwise: ASGIApp) -> None:
        self._otherwise = otherwise
        self._handlers: dict[str, list[tuple[re.Pattern[str], Handler]]] = {}
        for route in routes:
            if isinstance(route, APIRoute):
                pattern = compile_path(route.path)[0]
                for method in route.methods or ():
                    self._handlers.setdefault(method, []).append((pattern, route.endpoint))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http":
            path = scope["path"]
            for pattern, handler in self._handlers.get(scope["method"], ()):
                if match := pattern.match(path):
                    scope["path_params"] = match.groupdict()
                    response = await handler(Request(scope, receive, send))
                    await response(scope, receive, send)
                    return
        await self._otherwise(scope, receive, send)
