"""The client's HTTP application."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from fedjob_client import routes_simple, routes_v1
from fedjob_client.access import Access
from fedjob_client.problems import Guard, add_error_answers
from fedjob_client.recorder import SILENT, Recorder
from fedjob_client.registration import Registrar
from fedjob_client.service import Loaded, Service
from fedjob_client.settings import Settings
from fedjob_client.transfer import open_session
from fedjob_protocol import __version__


def create_app(
    settings: Settings, loaded: Loaded | None, *, boot_id: str | None = None, recorder: Recorder = SILENT
) -> FastAPI:
    """Build the application of one process.

    Args:
        settings: The process.
        loaded: Its job, or ``None`` for the simple forms.
        boot_id: Identity of this run of the program; absent means a fresh one.
        recorder: Who counts.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # A client that registers itself calls with the token that it is given then.
        async with open_session(settings.token if settings.server_url is None else None) as session:
            service = Service(settings, loaded, session, access=access, boot_id=boot_id, recorder=recorder)
            app.state.service = service
            registering = _start_registering(service)
            try:
                yield
            finally:
                if registering is not None:
                    registering.cancel()
                    await asyncio.gather(registering, return_exceptions=True)
                await service.close()

    access = Access(token=settings.token, is_closed=settings.server_url is not None and settings.token is None)
    app = FastAPI(title="FederatedJob client", version=__version__, lifespan=lifespan)
    app.state.lab = routes_simple.Lab()
    app.add_middleware(Guard, access=access)
    app.include_router(routes_v1.router)
    app.include_router(routes_simple.router)
    add_error_answers(app)
    return app


def _start_registering(service: Service) -> asyncio.Task[None] | None:
    settings = service.settings
    if settings.server_url is None or settings.client_url is None:
        return None
    registrar = Registrar(
        transfer=service.transfer,
        access=service.access,
        server_url=settings.server_url,
        client_url=settings.client_url.rstrip("/"),
        boot_id=service.boot_id,
        shown=settings.registration_token,
        group=settings.group,
    )
    return asyncio.create_task(registrar.run())
