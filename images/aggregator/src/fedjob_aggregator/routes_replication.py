"""The part of ``/v1`` that is about several aggregators: parse, ask the service, answer. No decisions."""

from typing import Final

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from fedjob_aggregator.answers import answer, read_message, wait_seconds, whole_number
from fedjob_aggregator.models import ModelResponse
from fedjob_aggregator.openapi import Parameter, described
from fedjob_aggregator.replica_service import ReplicaService
from fedjob_aggregator.service import Service
from fedjob_protocol.errors import Refusal, Word
from fedjob_protocol.messages import AggregatorState, CheckpointInfo
from fedjob_protocol.replication import Holdings, Leadership, Progress
from fedjob_protocol.routes import COPY_PATH, COPY_STATE_PATH, LEADERSHIP_PATH, STANDBY_PATH

MAX_ROUND: Final = 1_000_000_000

REPLICATION_MESSAGES: Final[tuple[type[BaseModel], ...]] = (Leadership, Progress, Holdings)
"""What the routes take and give, for the OpenAPI document."""


def add_replication_routes(router: APIRouter, service: Service) -> None:
    """Add the routes.

    Args:
        router: Where to.
        service: Who answers; one without standbys refuses.
    """

    @router.put(LEADERSHIP_PATH, **described(AggregatorState, takes=Leadership))
    async def appoint(request: Request) -> Response:
        """Say who leads in a term. The same request again changes nothing."""
        leadership = await read_message(request, Leadership)
        return answer(await _replica(service).appoint(leadership))

    name = Parameter("name", "path", "Name of the standby.", kind="string")
    wait = Parameter("wait", "query", "Seconds to wait while the leader holds nothing else, at most 60.")

    @router.put(STANDBY_PATH, **described(Holdings, takes=Progress, parameters=[name, wait]))
    async def hear(request: Request) -> Response:
        """Say what a standby holds, and learn what the leader holds."""
        progress = await read_message(request, Progress)
        seconds = wait_seconds(request.query_params.get("wait"))
        return answer(await _replica(service).hear(request.path_params["name"], progress, seconds))

    number = Parameter("round_number", "path", "Number of a round whose checkpoint is kept.")

    @router.get(COPY_PATH, **described(None, parameters=[number]))
    async def copy(request: Request) -> Response:
        """A checkpoint as safetensors, also one that is not acknowledged yet."""
        wanted = whole_number(request.path_params["round_number"], "the round", MAX_ROUND)
        info = service.store.find(str(wanted))
        try:
            if info is not None:
                return ModelResponse(service.store.open(info), info, request.headers)
        except FileNotFoundError:
            pass
        raise Refusal(Word.NOT_FOUND, f"there is no checkpoint of round {wanted}")

    @router.get(COPY_STATE_PATH, **described(None, parameters=[number]))
    async def copy_state(request: Request) -> Response:
        """What the strategy remembers after a round, as safetensors; also of one that is not acknowledged yet."""
        wanted = whole_number(request.path_params["round_number"], "the round", MAX_ROUND)
        info = service.store.find(str(wanted))
        try:
            state = None if info is None else service.store.state_of(info)
            if state is not None:
                found = CheckpointInfo(round=wanted, digest=state.digest, parent=None, bytes=state.bytes)
                return ModelResponse(service.store.open_state(wanted), found, request.headers)
        except FileNotFoundError:
            pass
        raise Refusal(Word.NOT_FOUND, f"there is no state of a strategy after round {wanted}")


def _replica(service: Service) -> ReplicaService:
    if isinstance(service, ReplicaService):
        return service
    raise Refusal(Word.BAD_REQUEST, "this aggregator is the only one of its job; start it with --replica NAME")
