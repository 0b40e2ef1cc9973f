"""Puts the parts together: the service on its folder, and the application on the service. No globals."""

import platform
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from typing_extensions import override

from fedjob_aggregator.aggregation.backends import KernelChoice
from fedjob_aggregator.answers import Gate, method_not_allowed, not_found, problem
from fedjob_aggregator.checkpoints import CheckpointStore
from fedjob_aggregator.direct import DirectRoutes
from fedjob_aggregator.disk import Disk
from fedjob_aggregator.openapi import document
from fedjob_aggregator.recorder import SILENT, Recorder
from fedjob_aggregator.registrations import Registrations
from fedjob_aggregator.replacements import Replacements
from fedjob_aggregator.replica_service import Member, ReplicaService
from fedjob_aggregator.replica_store import ReplicaStore, open_replica
from fedjob_aggregator.routes_clients import CLIENT_MESSAGES, clients_routes, registration_routes
from fedjob_aggregator.routes_simple import SIMPLE_MESSAGES, simple_routes
from fedjob_aggregator.routes_training import TRAINING_MESSAGES, training_routes
from fedjob_aggregator.routes_v1 import V1_MESSAGES, v1_routes
from fedjob_aggregator.service import Service
from fedjob_aggregator.settings import Settings
from fedjob_aggregator.staging import StagingArea
from fedjob_aggregator.training_desk import TrainingDesk
from fedjob_aggregator.uploads import UploadDesk
from fedjob_aggregator.writer import Writer
from fedjob_protocol.errors import Problem, Refusal, Word
from fedjob_protocol.version import __version__

MESSAGES: Final[tuple[type[BaseModel], ...]] = (
    *V1_MESSAGES,
    *CLIENT_MESSAGES,
    *SIMPLE_MESSAGES,
    *TRAINING_MESSAGES,
    Problem,
)
"""Everything that routes take and give."""
KERNEL_FOLDER: Final = ".kernels"
"""Folder of compiled code in the aggregator's, unless ``NUMBA_CACHE_DIR`` says otherwise."""
DESCRIPTION: Final = "Receives, verifies and folds the updates of federated rounds, commits and serves their models."


def create_service(
    settings: Settings,
    *,
    boot_id: str,
    wall_clock: Callable[[], datetime],
    disk: Disk | None = None,
    recorder: Recorder = SILENT,
) -> Service:
    """Open the folder and make what serves it. Blocks while checkpoints are verified.

    Args:
        settings: The program's.
        boot_id: Identity of this run.
        wall_clock: The time of day, for the records.
        disk: Operations on files; tests make them fail.
        recorder: Who counts.

    Raises:
        FolderError: The folder cannot be served.
    """
    store: CheckpointStore
    replica: ReplicaStore | None = None
    if settings.replica is not None:
        store = replica = open_replica(settings.folder, disk, job_uid=settings.job_uid)
    else:
        store = CheckpointStore(settings.folder, disk, job_uid=settings.job_uid)
    kernels = KernelChoice(settings.folder / KERNEL_FOLDER)
    writer = Writer(store, kernels, fingerprint=fingerprint(), wall_clock=wall_clock)
    area = StagingArea(store.staging_folder, settings.staging_bytes)
    desk = UploadDesk(area, kernels, most=settings.most_uploads, idle_seconds=settings.idle_seconds)
    parts: dict[str, Any] = {"boot_id": boot_id, "job_uid": settings.job_uid}
    parts |= {"wall_clock": wall_clock, "recorder": recorder}
    parts |= {"replacements": Replacements(settings.folder, disk)}
    if replica is not None and settings.replica is not None:
        member = Member(name=settings.replica, token=token_of(settings))
        return ReplicaService(replica, writer, desk, member=member, **parts)
    return Service(store, writer, desk, **parts)


def token_of(settings: Settings) -> str | None:
    """The job's token, if there is one."""
    return None if settings.token is None else settings.token.get_secret_value()


def create_app(settings: Settings, service: Service, registrations: Registrations) -> FastAPI:
    """The application.

    Args:
        settings: The program's.
        service: Who answers.
        registrations: Clients that registered themselves.
    """
    desk = None
    if settings.sessions:
        desk = TrainingDesk(registrations, least_clients=0 if settings.session_clients else 1)
    app = Application(
        title="FederatedJob aggregator",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,  # the interactive pages load scripts from elsewhere
        redoc_url=None,
        exception_handlers={Refusal: _refused, HTTPException: _no_route},
    )
    routers = [
        v1_routes(service),
        clients_routes(service.replacements, registrations, service.check_leads),
        registration_routes(registrations, service, desk),
        simple_routes(service, registrations, desk),
        *([] if desk is None else [training_routes(desk)]),
    ]
    for router in routers:
        app.include_router(router)
    direct = DirectRoutes([route for router in routers for route in router.routes], app.serve)
    app.front = Gate(direct, token_of(settings), registrations.may)
    return app


def create_registrations(
    settings: Settings, *, wall_clock: Callable[[], datetime], disk: Disk | None = None
) -> Registrations:
    """Make what keeps clients that register themselves; the folder is there."""
    return Registrations(
        settings.folder, settings.registration, token=token_of(settings), wall_clock=wall_clock, disk=disk
    )


class Application(FastAPI):
    """FastAPI, with a front that knows most requests, and a document of routes that take the raw request."""

    front: ASGIApp | None = None

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self.front is not None
        await self.front(scope, receive, send)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve what the front does not know."""
        await super().__call__(scope, receive, send)

    @override
    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = document(self, MESSAGES)
        return self.openapi_schema


def fingerprint() -> dict[str, str]:
    """What the bits of a result may depend on, as far as this program is concerned."""
    return {
        "aggregator": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": platform.machine(),
    }


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return problem(error)


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        return method_not_allowed(request.method, request.url.path, (error.headers or {}).get("Allow", ""))
    if error.status_code == 404:
        return not_found(request.url.path)
    return problem(Refusal(Word.BAD_REQUEST, str(error.detail)))
