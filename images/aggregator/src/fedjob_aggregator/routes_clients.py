"""``/clients`` and ``/v1/clients``: who registers itself, and having a client replaced. Parse, ask, answer."""

from collections.abc import Callable
from typing import Final

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fedjob_aggregator.answers import answer, read_body, read_message, whole_number
from fedjob_aggregator.openapi import Parameter, described
from fedjob_aggregator.registrations import Registrations
from fedjob_aggregator.registry import Applicant
from fedjob_aggregator.replacements import MAX_GENERATION, Replacements
from fedjob_aggregator.routes_v1 import CLIENT, MAX_CLIENT
from fedjob_aggregator.same_origin import check_same_origin
from fedjob_aggregator.service import Service
from fedjob_aggregator.simple import parse_json
from fedjob_aggregator.training_desk import TrainingDesk
from fedjob_protocol.clients import RegisteredClient, ReplacedClient, ReplacedClients
from fedjob_protocol.errors import Refusal, Word, quote
from fedjob_protocol.hosts import checked_url
from fedjob_protocol.registration import Heartbeat, HeartbeatAnswer, RegisteredAnswer
from fedjob_protocol.routes import CLIENT_PATH, CLIENTS_PATH, REGISTER_PATH, TOKEN_HEADER

MAX_REGISTRATION_BYTES: Final = 16 << 10
MAX_NAME: Final = 253


class RegisterRequest(BaseModel):
    """Body of ``POST /clients``."""

    model_config = ConfigDict(extra="allow")

    client_url: str
    boot_id: str | None = None
    """Identity of this run of the client, a secret of its own; without it, it is listed and never given work."""
    group: str | None = None
    """The client group that it wants to be in."""


class ListedClient(BaseModel):
    """A client, as people see it."""

    client_url: str
    client: int | None
    """Its index; ``None`` for one that was registered by hand."""
    state: str
    """``connected`` or ``lost``."""
    silent_seconds: float
    since: str


class ListedClients(BaseModel):
    """Answer of ``GET /clients``."""

    clients: list[ListedClient]


CLIENT_MESSAGES: Final[tuple[type[BaseModel], ...]] = (
    ReplacedClient,
    ReplacedClients,
    RegisteredClient,
    RegisterRequest,
    RegisteredAnswer,
    Heartbeat,
    HeartbeatAnswer,
    ListedClient,
    ListedClients,
)
"""What the routes give, for the OpenAPI document."""


def registration_routes(registrations: Registrations, service: Service, desk: TrainingDesk | None) -> APIRouter:
    """The routes by which clients register themselves.

    Args:
        registrations: Keeps who did.
        service: Says which round it is.
        desk: Of a server of training sessions.
    """
    router = APIRouter(tags=["clients"])

    async def register(request: Request) -> Response:
        """Register a client's address; again is fine. Where a token is wanted, the header `Fedjob-Token` shows it."""
        check_same_origin(request)
        applicant = _applicant(await read_body(request, MAX_REGISTRATION_BYTES), request, registrations)
        registered = await registrations.register(applicant)
        return JSONResponse(registered.model_dump(exclude_none=True), 201)

    arguments = described(RegisteredAnswer, takes=RegisterRequest, status=201)
    router.post(REGISTER_PATH, name="register", **arguments)(register)
    router.post("/client", name="register_alias", **arguments)(register)

    @router.get(REGISTER_PATH, **described(ListedClients))
    async def clients(_request: Request) -> Response:
        """The clients that registered, oldest first."""
        return JSONResponse({"clients": registrations.shown()})

    @router.put(CLIENTS_PATH, **described(HeartbeatAnswer, takes=Heartbeat))
    async def beat(request: Request) -> Response:
        """A registered client is still there; it wants the token that the client was given."""
        heartbeat = await read_message(request, Heartbeat)
        state = service.state
        number = state.current.round if state.current is not None else None
        if number is None and state.last is not None:
            number = state.last.record.round
        status = None if desk is None else str(desk.state)
        return answer(await registrations.beat(heartbeat, round_number=number, status=status))

    return router


def _applicant(body: bytes, request: Request, registrations: Registrations) -> Applicant:
    """Who wants to register.

    Raises:
        Refusal: ``bad-request`` or ``forbidden``, with what is wrong.
    """
    message, settings = parse_json(body), registrations.settings
    url = checked_url(message.get("client_url"), refused=settings.refused_hosts, allowed=settings.allowed_hosts)
    return Applicant(
        url=url,
        boot_id=_name(message, "boot_id"),
        peer=request.client.host if request.client else "",
        shown=request.headers.get(TOKEN_HEADER),
        group=_name(message, "group"),
    )


def _name(message: dict[str, object], key: str) -> str | None:
    value = message.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_NAME or not value.isascii() or not value.isprintable():
        raise Refusal(Word.BAD_REQUEST, f"{key} must be 1 to {MAX_NAME} printable characters, it is {quote(value)}")
    return value


def clients_routes(
    replacements: Replacements, registrations: Registrations, check_leads: Callable[[], None]
) -> APIRouter:
    """The routes of ``/v1/clients`` for who makes the clients.

    Args:
        replacements: Keeps who is to be replaced.
        registrations: Keeps who registered itself.
        check_leads: Refuses what only a leader takes, where it does not lead.
    """
    router = APIRouter(tags=["v1"])
    generation = Parameter(
        "generation", "query", "Which program of this index: how often it was replaced before, 0 unless given."
    )

    @router.get(CLIENTS_PATH, **described(ReplacedClients))
    async def list_clients(_request: Request) -> Response:
        """Clients that somebody had replaced, and clients that registered themselves."""
        return answer(replacements.listed().model_copy(update={"registered": registrations.listed()}))

    @router.delete(CLIENT_PATH, **described(ReplacedClient, parameters=[CLIENT, generation]))
    async def replace_client(request: Request) -> Response:
        """Have a client that left for good replaced: another pod, or process, takes its index and its data.

        The same request again changes nothing: to have the replacement replaced, name its generation.
        """
        check_leads()
        client = whole_number(request.path_params["client"], "the client", MAX_CLIENT)
        which = whole_number(request.query_params.get("generation", "0"), "generation", MAX_GENERATION)
        return answer(await replacements.replace(client, which))

    return router
