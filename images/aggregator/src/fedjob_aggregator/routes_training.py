"""``/training``: asking for a session by curl or by the page's form; and ``/v1/sessions`` for who drives them."""

from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

from fastapi import APIRouter
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from fedjob_aggregator.answers import answer, describe, problem, read_body, read_message, wait_seconds
from fedjob_aggregator.openapi import Parameter, described
from fedjob_aggregator.page import PAGE_HEADERS, training_page
from fedjob_aggregator.same_origin import check_same_origin
from fedjob_aggregator.simple import parse_json
from fedjob_aggregator.training_desk import TrainingDesk
from fedjob_protocol.errors import Refusal, Word
from fedjob_protocol.routes import SESSIONS_PATH, TRAINING_PATH
from fedjob_protocol.sessions import SessionOrder, SessionReport, TrainingRequest

MAX_FORM_BYTES: Final = 16 << 10


class TrainingStarted(BaseModel):
    """Answer of ``POST /training``: the session began."""

    session: int
    status: str
    clients: int
    """How many are there; those who take part are chosen round by round."""


TRAINING_MESSAGES: Final[tuple[type[BaseModel], ...]] = (TrainingRequest, TrainingStarted, SessionReport, SessionOrder)
"""What the routes take and give, for the OpenAPI document."""


def training_routes(desk: TrainingDesk) -> APIRouter:
    """The routes of a server of sessions."""
    router = APIRouter(tags=["training"])
    _add_form(router, desk)
    wait = Parameter("wait", "query", "Seconds to wait for an order.")

    @router.put(SESSIONS_PATH, **described(SessionOrder, takes=SessionReport, parameters=[wait]))
    async def sessions(request: Request) -> Response:
        """Tell what the driver of the sessions does; answered with the session that somebody asked for, if any."""
        seconds = wait_seconds(request.query_params.get("wait"))
        return answer(await desk.exchange(await read_message(request, SessionReport), seconds))

    return router


def _add_form(router: APIRouter, desk: TrainingDesk) -> None:
    @router.get(TRAINING_PATH, include_in_schema=False)
    async def form(request: Request) -> Response:
        """The page with the form; with ``?start=1`` it starts a session, as a POST does."""
        query = dict(request.query_params)
        if query.pop("start", "") != "1":
            return HTMLResponse(training_page(desk.state), headers=PAGE_HEADERS)
        return await _started(desk, request, lambda: _request_of(query))

    @router.post(TRAINING_PATH, **described(TrainingStarted, takes=TrainingRequest, status=202))
    async def start(request: Request) -> Response:
        """Start a training session over the registered clients; refused while one is under way."""
        body = await read_body(request, MAX_FORM_BYTES)
        media = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        is_form = media == "application/x-www-form-urlencoded" and not body.lstrip().startswith(b"{")
        return await _started(desk, request, lambda: _request_of(_form(body) if is_form else _json(body)))


async def _started(desk: TrainingDesk, request: Request, parse: Callable[[], TrainingRequest]) -> Response:
    """Start a session, and answer as the asker likes it."""
    is_person = "text/html" in request.headers.get("Accept", "")
    try:
        check_same_origin(request)
        order = await desk.ask(parse())
    except Refusal as refusal:
        if is_person:
            page = training_page(desk.state, problem=refusal.detail)
            return HTMLResponse(page, refusal.kind.status, headers=PAGE_HEADERS)
        return problem(refusal)
    if is_person:
        return RedirectResponse("/", 303)
    return JSONResponse({"session": order.session, "status": desk.state, "clients": order.clients}, 202)


def _json(body: bytes) -> dict[str, Any]:
    return parse_json(body) if body.strip() else {}


def _form(body: bytes) -> dict[str, Any]:
    try:
        return dict(parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=20))
    except (UnicodeDecodeError, ValueError) as error:
        raise Refusal(Word.BAD_REQUEST, f"the form cannot be read: {error}") from None


def _request_of(fields: Mapping[str, Any]) -> TrainingRequest:
    """What was asked for; a field that was left empty is the server's.

    Raises:
        Refusal: ``bad-request``, naming the fields.
    """
    given = {name: value for name, value in fields.items() if value != ""}
    try:
        return TrainingRequest.model_validate(given)
    except ValidationError as error:
        raise Refusal(Word.BAD_REQUEST, describe(error)) from None
