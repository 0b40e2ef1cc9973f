"""Runs the application under uvicorn until it is told to stop."""

import logging
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import uvicorn
from fastapi import FastAPI
from typing_extensions import override

from fedjob_client.app import create_app
from fedjob_client.recorder import SILENT, Recorder
from fedjob_client.service import Loaded
from fedjob_client.settings import Settings
from fedjob_protocol.process import announce, base_url, stop_on_signals

_log = logging.getLogger(__name__)

PROGRAM: Final = "fedjob-client"
GRACE_SECONDS: Final = 1
"""How long answers under way may take after the program was told to stop."""
KEEP_ALIVE_SECONDS: Final = 75
"""How long an idle connection is kept: an operator comes back every round."""


class Server(uvicorn.Server):
    """uvicorn that announces its address once it serves, and ends with success when it is told to stop.

    Args:
        app: The application.
        config: uvicorn's settings.
        listening: The socket that is served.
        boot_id: Identity of this run of the program.
    """

    def __init__(self, app: FastAPI, config: uvicorn.Config, listening: socket.socket, boot_id: str) -> None:
        super().__init__(config)
        self._app = app
        self._listening = listening
        self._boot_id = boot_id

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to serve, then say where."""
        await super().startup(sockets)
        if self.started:
            url = base_url(self._listening)
            _log.info("serving at %s", url)
            announce(PROGRAM, url, self._boot_id)

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End what would keep answers waiting, then the answers, then the application."""
        if self.started:
            await self._app.state.service.close()
        await super().shutdown(sockets)

    @override
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals end the program cleanly: uvicorn's own would raise them again."""
        with stop_on_signals(self._ask_to_stop):
            yield

    def _ask_to_stop(self) -> None:
        self.should_exit = True


def serve(settings: Settings, loaded: Loaded | None, listening: socket.socket, recorder: Recorder = SILENT) -> bool:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: The process.
        loaded: Its job, or ``None`` for the simple forms.
        listening: The socket that is served.
        recorder: Who counts.

    Returns:
        Whether it ever served.
    """
    boot_id = uuid.uuid4().hex
    app = create_app(settings, loaded, boot_id=boot_id, recorder=recorder)
    config = uvicorn.Config(
        app,
        http="httptools",
        loop="auto",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    server = Server(app, config, listening, boot_id)
    server.run(sockets=[listening])
    return server.started
