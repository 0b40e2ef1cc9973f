"""The ``/v1`` API: parse, ask the service, answer. No decisions.

The handlers take the raw request, since checking headers and streaming bodies by hand is several times cheaper than by
FastAPI's dependencies; `openapi` says what they take and give.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from fedjob_aggregator.answers import answer, read_message, wait_seconds, whole_number
from fedjob_aggregator.models import ModelResponse
from fedjob_aggregator.openapi import UPLOAD_BODY, Parameter, described
from fedjob_aggregator.routes_replication import REPLICATION_MESSAGES, add_replication_routes
from fedjob_aggregator.server import BODY_EXTENSION
from fedjob_aggregator.service import Service
from fedjob_aggregator.upload_headers import MAX_TERM, StreamedBody, parse_upload
from fedjob_aggregator.uploads import RequestBody
from fedjob_protocol.errors import Refusal, Word
from fedjob_protocol.messages import (
    AggregatorState,
    Evaluation,
    FailureReport,
    RoundLog,
    RoundSpec,
    RoundView,
)
from fedjob_protocol.reasons import Reason
from fedjob_protocol.routes import (
    ATTEMPT_HEADER,
    BOOT_HEADER,
    DIGEST_HEADER,
    EPOCHS_HEADER,
    EVALUATION_PATH,
    EXAMPLES_HEADER,
    FAILURE_PATH,
    JOB_HEADER,
    MACHINE_HEADER,
    METRICS_HEADER,
    MODEL_PATH,
    ROUND_PATH,
    ROUNDS_PATH,
    SECONDS_HEADER,
    STATE_PATH,
    TERM_HEADER,
    UPDATE_PATH,
)
from fedjob_protocol.wire import Answer

MAX_ROUND: Final = 1_000_000_000
MAX_CLIENT: Final = 1_000_000
DEFAULT_PAGE: Final = 100
LARGEST_PAGE: Final = 1000

ROUND: Final = Parameter("round_number", "path", "Number of the round, from 0.")
CLIENT: Final = Parameter("client", "path", "Index of the client.")
Handler = Callable[[Request], Awaitable[Response]]


class Accepted(Answer):
    """Answer of ``PUT /v1/rounds/{r}/updates/{client}``: the update is in the sums, once, however often it was sent."""

    round: int
    client: int
    digest: str
    examples: int


V1_MESSAGES: Final[tuple[type[BaseModel], ...]] = (
    RoundSpec,
    RoundView,
    Evaluation,
    FailureReport,
    RoundLog,
    AggregatorState,
    Accepted,
    *REPLICATION_MESSAGES,
)
"""What the routes take and give, for the OpenAPI document."""


def v1_routes(service: Service) -> APIRouter:
    """The routes of ``/v1``.

    Args:
        service: Who answers.
    """
    router = APIRouter(tags=["v1"])
    for add in (_add_operator_routes, _add_client_routes, _add_reading_routes, add_replication_routes):
        add(router, service)
    return router


def _add_operator_routes(router: APIRouter, service: Service) -> None:
    @router.put(ROUND_PATH, **described(RoundView, takes=RoundSpec, parameters=[ROUND]))
    async def open_round(request: Request) -> Response:
        """Open a round. The same request again changes nothing; a round that is committed answers its record."""
        spec = await read_message(request, RoundSpec)
        return answer(await service.open_round(_round(request), spec))

    term = Parameter("term", "query", "The operator's term.", required=True)
    attempt = Parameter("attempt", "query", "The attempt to cancel.", required=True)

    @router.delete(ROUND_PATH, **described(RoundView, parameters=[ROUND, term, attempt]))
    async def cancel(request: Request) -> Response:
        """Cancel an attempt; what is committed stays."""
        query = request.query_params
        return answer(
            await service.cancel(
                _round(request),
                whole_number(query.get("term"), "term", MAX_TERM),
                whole_number(query.get("attempt"), "attempt", MAX_TERM),
            )
        )

    @router.put(EVALUATION_PATH, **described(RoundView, takes=Evaluation, parameters=[ROUND]))
    async def evaluate(request: Request) -> Response:
        """Close the record of the committed round with its evaluation."""
        evaluation = await read_message(request, Evaluation)
        return answer(await service.evaluate(_round(request), evaluation))


UPLOAD_HEADERS: Final = (
    Parameter(JOB_HEADER, "header", "The job's uid.", required=True, kind="string"),
    Parameter(TERM_HEADER, "header", "The operator's term, from the task.", required=True),
    Parameter(ATTEMPT_HEADER, "header", "The attempt, from the task.", required=True),
    Parameter(BOOT_HEADER, "header", "The aggregator's boot id, from the task.", required=True, kind="string"),
    Parameter(DIGEST_HEADER, "header", "`xxh3-128:` and 32 hexadecimal digits.", required=True, kind="string"),
    Parameter(EXAMPLES_HEADER, "header", "Number of training examples.", required=True),
    Parameter(METRICS_HEADER, "header", "Training metrics: a JSON object of finite numbers.", kind="string"),
    Parameter(EPOCHS_HEADER, "header", "Metrics after each epoch: a JSON list of such objects.", kind="string"),
    Parameter(SECONDS_HEADER, "header", "Seconds that the client trained."),
    Parameter(MACHINE_HEADER, "header", "What computed the update, for the round log.", kind="string"),
)


def _add_client_routes(router: APIRouter, service: Service) -> None:
    @router.put(UPDATE_PATH, **described(Accepted, body=UPLOAD_BODY, parameters=[ROUND, CLIENT, *UPLOAD_HEADERS]))
    async def upload(request: Request) -> Response:
        """Upload a delta in float32, or in round 0 the initial model. The same bytes again change nothing."""
        round_number = _round(request)
        upload_request = parse_upload(round_number, _client(request), request.headers)
        update = await service.upload(upload_request, _body(request))
        return answer(
            Accepted(round=round_number, client=update.client, digest=update.digest, examples=update.examples)
        )

    @router.put(FAILURE_PATH, **described(RoundView, takes=FailureReport, parameters=[ROUND, CLIENT]))
    async def report_failure(request: Request) -> Response:
        """Say that a participant will not report in this attempt."""
        report = await read_message(request, FailureReport)
        if report.reason not in {reason.value for reason in Reason}:
            raise Refusal(Word.BAD_REQUEST, f"reason: {report.reason[:80]!r} is not known")
        round_number = _round(request)
        service.report_failure(round_number, _client(request), report)
        return answer(service.view(round_number))


def _add_reading_routes(router: APIRouter, service: Service) -> None:
    wait = Parameter("wait", "query", "Seconds to wait while the round is open or being committed, at most 60.")

    settled = Parameter("settled", "query", "Wait no longer than exactly so many participants have reported or failed.")

    @router.get(ROUND_PATH, **described(RoundView, parameters=[ROUND, wait, settled]))
    async def read_round(request: Request) -> Response:
        """Where a round is."""
        query = request.query_params
        seconds, known = wait_seconds(query.get("wait")), query.get("settled")
        count = None if known is None else whole_number(known, "settled", MAX_CLIENT)
        return answer(await service.wait(_round(request), seconds, count))

    since = Parameter("since", "query", "First round, 0 unless given.")
    limit = Parameter("limit", "query", f"Most records, {DEFAULT_PAGE} unless given, at most {LARGEST_PAGE}.")

    @router.get(ROUNDS_PATH, **described(RoundLog, parameters=[since, limit]))
    async def read_rounds(request: Request) -> Response:
        """The round log, oldest first."""
        query = request.query_params
        first = whole_number(query.get("since", "0"), "since", MAX_ROUND)
        most = whole_number(query.get("limit", str(DEFAULT_PAGE)), "limit", LARGEST_PAGE)
        lines, more = service.records(first, most)
        body = b'{"rounds":[%b],"more":%b}' % (b",".join(lines), b"true" if more else b"false")
        return Response(body, media_type="application/json")

    @router.get(STATE_PATH, **described(AggregatorState))
    async def read_state(_request: Request) -> Response:
        """Everything about this aggregator."""
        return answer(service.overview())

    which = Parameter("which", "path", "`latest`, `best` or the number of a round whose model is kept.", kind="string")

    @router.get(MODEL_PATH, **described(None, parameters=[which]))
    async def read_model(request: Request) -> Response:
        """A committed model as safetensors; understands `Range`, `If-Range` and `If-None-Match`."""
        name = request.path_params["which"]
        info = service.find(name)
        if info is None:
            raise Refusal(
                Word.NOT_FOUND, f"there is no model {name[:80]!r}: the newest, the one before and the best are kept"
            )
        try:
            file = service.store.open(info)
        except FileNotFoundError:
            raise Refusal(Word.NOT_FOUND, f"the model of round {info.round} is not kept any more") from None
        return ModelResponse(file, info, request.headers)


def _round(request: Request) -> int:
    return whole_number(request.path_params["round_number"], "the round", MAX_ROUND)


def _client(request: Request) -> int:
    return whole_number(request.path_params["client"], "the client", MAX_CLIENT)


def _body(request: Request) -> RequestBody:
    extension = request.scope.get("extensions", {}).get(BODY_EXTENSION)
    if extension is None:
        return StreamedBody(request)
    body: RequestBody = extension["body"]
    return body
