"""``/v1/clients``: having a client replaced, and who was. Parse, ask, answer."""

from collections.abc import Callable
from typing import Final

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from fedjob_aggregator.answers import answer, whole_number
from fedjob_aggregator.openapi import Parameter, described
from fedjob_aggregator.replacements import MAX_GENERATION, Replacements
from fedjob_aggregator.routes_v1 import CLIENT, MAX_CLIENT
from fedjob_protocol.clients import ReplacedClient, ReplacedClients
from fedjob_protocol.routes import CLIENT_PATH, CLIENTS_PATH

CLIENT_MESSAGES: Final[tuple[type[BaseModel], ...]] = (ReplacedClient, ReplacedClients)
"""What the routes give, for the OpenAPI document."""


def clients_routes(replacements: Replacements, check_leads: Callable[[], None]) -> APIRouter:
    """The routes of ``/v1/clients``.

    Args:
        replacements: Keeps who is to be replaced.
        check_leads: Refuses what only a leader takes, where it does not lead.
    """
    router = APIRouter(tags=["v1"])
    generation = Parameter(
        "generation", "query", "Which program of this index: how often it was replaced before, 0 unless given."
    )

    @router.get(CLIENTS_PATH, **described(ReplacedClients))
    async def list_clients(_request: Request) -> Response:
        """Clients that somebody had replaced."""
        return answer(replacements.listed())

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
