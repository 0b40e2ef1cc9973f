"""The routes without ``/v1``: health, the page, and the plain forms that work with curl. No token is asked for."""

from typing import Final

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response

from fedjob_aggregator.answers import read_body
from fedjob_aggregator.openapi import described
from fedjob_aggregator.page import PAGE_HEADERS, SHOWN_ROUNDS, Sessions, html_page, sessions_line, status_line
from fedjob_aggregator.registrations import Registrations
from fedjob_aggregator.service import Service
from fedjob_aggregator.simple import plain_mean
from fedjob_aggregator.training_desk import TrainingDesk
from fedjob_protocol.messages import RoundRecord
from fedjob_protocol.routes import HEALTH_PATH, READY_PATH
from fedjob_protocol.version import __version__


class _Simple(BaseModel):
    model_config = ConfigDict(extra="allow")


class Status(_Simple):
    """Answer of ``/health`` and ``/ready``."""

    status: str


class Entry(_Simple):
    """What one client trained."""

    w: float
    b: float
    num_examples: int | None = None
    """In all entries or in none: the weight in the mean."""


class AggregateRequest(_Simple):
    """Body of ``POST /aggregate``."""

    clients: list[Entry]


class AggregateAnswer(_Simple):
    """The mean."""

    global_w: float
    global_b: float


SIMPLE_MESSAGES: Final[tuple[type[BaseModel], ...]] = (
    Status,
    AggregateRequest,
    AggregateAnswer,
)
"""What the routes take and give, for the OpenAPI document."""


def simple_routes(service: Service, registrations: Registrations, desk: TrainingDesk | None = None) -> APIRouter:
    """The routes without ``/v1``.

    Args:
        service: Whose state the page shows.
        registrations: Clients that the page shows.
        desk: Of a server of training sessions.
    """
    router = APIRouter(tags=["simple"])
    _add_status_routes(router, service, registrations, desk)
    _add_forms(router)
    return router


def _add_status_routes(
    router: APIRouter, service: Service, registrations: Registrations, desk: TrainingDesk | None
) -> None:
    @router.get(HEALTH_PATH, **described(Status))
    async def health(_request: Request) -> Response:
        """Whether the process lives."""
        return JSONResponse({"status": "ok", "version": __version__, "boot_id": service.state.boot_id})

    @router.get(READY_PATH, **described(Status))
    async def ready(_request: Request) -> Response:
        """Whether rounds can be opened; answered only once the folder is read and locked."""
        return JSONResponse({"status": "ready", "committed": service.state.committed})

    @router.get("/", include_in_schema=False)
    async def page(request: Request) -> Response:
        """Status for people: a page, or a line with ``Accept: text/plain``."""
        state = service.overview()
        accepted = request.headers.get("Accept", "")
        if "text/plain" in accepted and "text/html" not in accepted:
            return PlainTextResponse(status_line(state) if desk is None else sessions_line(desk.state))
        sessions = None
        if desk is not None:
            clients = registrations.shown()
            sessions = Sessions(state=desk.state, message=desk.message, history=desk.history, clients=clients)
        return HTMLResponse(html_page(state, _last_records(service), sessions), headers=PAGE_HEADERS)


def _add_forms(router: APIRouter) -> None:
    @router.post("/aggregate", **described(AggregateAnswer, takes=AggregateRequest))
    async def aggregate(request: Request) -> Response:
        """The mean of what clients trained, by `num_examples` where given."""
        return JSONResponse(plain_mean(await read_body(request)))


def _last_records(service: Service) -> list[RoundRecord]:
    log, last = service.store.log, service.state.last
    records = [] if last is None or last.record.round <= log.last_round else [last.record]
    for number in range(log.last_round, max(-1, log.last_round - SHOWN_ROUNDS), -1):
        record = log.record(number)
        if record is not None:
            records.append(record)
    return records
