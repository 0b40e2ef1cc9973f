"""Calls to aggregator and clients: the only module that talks to them."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from http import HTTPStatus
from types import MappingProxyType
from typing import Final, TypeVar

import aiohttp
from pydantic import BaseModel, ValidationError

from fedjob_operator.adapters.outside import MAX_ANSWER_BYTES as MAX_OUTSIDE_BYTES
from fedjob_operator.adapters.outside import check_outside
from fedjob_operator.core.actions import (
    Action,
    Appoint,
    CheckPods,
    ConfigureClient,
    CreatePod,
    DeleteJob,
    DeletePod,
    Evaluate,
    FetchInfo,
    FindOrigin,
    ListReplaced,
    OpenRound,
    ReadState,
    RecordEvaluation,
    ReportFailure,
    ServeModel,
    StartTask,
    TurnAway,
    WatchRound,
)
from fedjob_operator.observations import Answer
from fedjob_operator.ports import CallError
from fedjob_protocol import PROTOCOL_VERSION, routes
from fedjob_protocol.clients import ReplacedClients
from fedjob_protocol.errors import Problem, Refusal, Word
from fedjob_protocol.messages import AggregatorState, RoundView
from fedjob_protocol.registration import client_token
from fedjob_protocol.tasks import ClientInfo, EvaluationView, InitTask, TaskView
from fedjob_protocol.version import OLDEST_SUPPORTED, check_protocol

WATCH_SECONDS: Final = 5
"""How long one look at an open round waits for its end; progress is seen that often."""
EVALUATE_WAIT_SECONDS: Final = 25
"""How long one look at an evaluation waits for its end."""
APPOINT_SECONDS: Final = 20
"""How much longer than others an aggregator may take to change its role: a checkpoint may be being written."""
CONNECT_SECONDS: Final = 3.0
ANSWER_SECONDS: Final = 10.0
"""How long a call may take beyond what it asked to wait."""
MAX_ANSWER_BYTES: Final = 64 << 20
"""Largest answer that is read."""

LOAD_SECONDS: Final = 60
"""How much longer than others a client may take to load the data and the trainer of a job."""
MAX_OLDER: Final = 1000
"""How many programs of the release before are remembered as such."""

_JSON: Final = MappingProxyType({"Content-Type": "application/json"})
OnClient = FetchInfo | ConfigureClient | TurnAway | StartTask | Evaluate
"""Calls to a client or an evaluator."""
AnswerModel = TypeVar("AnswerModel", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """How clients that registered themselves are called."""

    session: aiohttp.ClientSession
    """Used for all calls to them; its resolver is a `GuardedResolver`."""
    refused: Collection[str] = ()
    """Hosts and addresses that are never called: the API server's."""
    allows_loopback: bool = True
    """Whether they may be on this machine."""


class HttpPrograms:
    """`fedjob_operator.ports.Programs` over HTTP.

    Args:
        session: Used for all calls; closed by whoever made it.
        token: The job's token, sent with every call; ``None`` sends none.
        outside: Where clients that registered themselves may be; absent means anywhere but where no client lives.
        via: Returns the URL that a program's URL is reached by from here; absent where that is the same. May raise a
            `CallError` where there is none.
        most_bytes: Largest answer that is read; absent means `MAX_ANSWER_BYTES`.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        *,
        token: str | None,
        via: Callable[[str], str] | None = None,
        outside: Outside | None = None,
        most_bytes: int | None = None,
    ) -> None:
        self._session = session
        self._outside = outside or Outside(session=session)
        self._token = token
        self._via = via or (lambda url: url)
        # Nothing is compressed on the way: a small answer could become a large one when it is unpacked.
        self._headers = {"Accept-Encoding": "identity"}
        if token:
            self._headers[routes.TOKEN_HEADER] = token
        self._older: dict[str, int] = {}
        self._most_bytes = MAX_ANSWER_BYTES if most_bytes is None else most_bytes

    async def perform(self, action: Action) -> Answer:
        """Make the call of an action.

        Raises:
            CallError: There was no answer, or it was a problem, or it could not be read.
        """
        match action:
            case FetchInfo() | ConfigureClient() | TurnAway() | StartTask() | Evaluate():
                return await self._perform_on_client(action)
            case ReadState():
                return await self._call(AggregatorState, "GET", action.url + routes.STATE_PATH)
            case ListReplaced():
                return await self._call(ReplacedClients, "GET", action.url + routes.CLIENTS_PATH)
            case Appoint():
                return await self._call(
                    AggregatorState, "PUT", action.url + routes.LEADERSHIP_PATH, action.leadership, wait=APPOINT_SECONDS
                )
            case OpenRound():
                return await self._call(RoundView, "PUT", action.url + routes.round_path(action.round), action.spec)
            case WatchRound():
                settled = "" if action.settled is None else f"&settled={action.settled}"
                url = f"{action.url}{routes.round_path(action.round)}?wait={WATCH_SECONDS}{settled}"
                return await self._call(RoundView, "GET", url, wait=WATCH_SECONDS)
            case ReportFailure():
                url = action.url + routes.failure_path(action.round, action.client)
                return await self._call(RoundView, "PUT", url, action.report)
            case RecordEvaluation():
                url = action.url + routes.evaluation_path(action.round)
                return await self._call(RoundView, "PUT", url, action.evaluation)
            case CreatePod() | DeletePod() | CheckPods() | DeleteJob() | FindOrigin() | ServeModel():
                raise TypeError(f"{action.key} is no HTTP call")

    async def _perform_on_client(self, action: OnClient) -> Answer:
        """Make a call to a client or evaluator.

        Raises:
            CallError: As `perform`; or the address is one where no client lives.
        """
        if action.boot_id is not None:
            return await self._perform_outside(action, action.boot_id)
        match action:
            case FetchInfo():
                return await self._call(ClientInfo, "GET", action.url + routes.INFO_PATH)
            case ConfigureClient():
                url = action.url + routes.JOB_PATH
                return await self._call(ClientInfo, "PUT", url, action.config, wait=LOAD_SECONDS)
            case TurnAway():
                return await self._call(ClientInfo, "POST", action.url + routes.TURNED_AWAY_PATH, action.notice)
            case StartTask():
                is_init = isinstance(action.task, InitTask)
                path = routes.INIT_PATH if is_init else routes.train_path(action.round)
                return await self._call(TaskView, "POST", action.url + path, action.task)
            case Evaluate():
                url = f"{action.url}{routes.EVALUATE_PATH}?wait={EVALUATE_WAIT_SECONDS}"
                return await self._call(EvaluationView, "POST", url, action.task, wait=EVALUATE_WAIT_SECONDS)

    async def _perform_outside(self, action: OnClient, boot_id: str) -> Answer:
        """Make a call to an address that somebody gave: with that client's own token, never with the job's."""
        outside = self._outside
        check_outside(action.url, refused=outside.refused, allows_loopback=outside.allows_loopback)
        programs = HttpPrograms(outside.session, token=client_token(self._token, boot_id))
        programs._older, programs._most_bytes = self._older, MAX_OUTSIDE_BYTES
        return await programs.perform(replace(action, boot_id=None))

    async def _call(
        self, answer: type[AnswerModel], method: str, url: str, body: BaseModel | None = None, *, wait: float = 0.0
    ) -> AnswerModel:
        program = url.partition("/v1/")[0]
        status, raw, peer = await self._send(method, url, body, wait, self._older.get(program, PROTOCOL_VERSION))
        if status == HTTPStatus.UPGRADE_REQUIRED and (older := _older_version(peer)) is not None:
            # A program of the release before refuses what is newer than itself, and says what it speaks.
            while len(self._older) >= MAX_OLDER:
                del self._older[next(iter(self._older))]
            self._older[program] = older
            status, raw, peer = await self._send(method, url, body, wait, older)
        if status >= HTTPStatus.MULTIPLE_CHOICES:
            raise _problem(method, url, status, raw)
        try:
            check_protocol(peer)
        except Refusal as error:
            raise CallError(f"{error.detail} ({method} {url})", word=Word.UNSUPPORTED_PROTOCOL) from error
        try:
            return answer.model_validate_json(raw)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise CallError(f"{method} {url}: the answer is no {answer.__name__}: {where}: {first['msg']}") from error

    async def _send(
        self, method: str, url: str, body: BaseModel | None, wait: float, version: int
    ) -> tuple[int, bytes, str | None]:
        """Return status, body, and the protocol version that the answer names."""
        data = body.model_dump_json(by_alias=True).encode() if body is not None else None
        timeout = aiohttp.ClientTimeout(total=wait + ANSWER_SECONDS, sock_connect=CONNECT_SECONDS)
        headers = {**self._headers, routes.PROTOCOL_HEADER: str(version), **({} if data is None else _JSON)}
        try:
            # A redirect would carry the token to somebody else.
            async with self._session.request(
                method, self._via(url), data=data, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                return (
                    response.status,
                    await _read(response, self._most_bytes),
                    response.headers.get(routes.PROTOCOL_HEADER),
                )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise CallError(f"{method} {url}: {type(error).__name__}: {error}") from error


def _older_version(header: str | None) -> int | None:
    """Return the version of a peer that is older than we are, and that we speak."""
    try:
        version = check_protocol(header)
    except Refusal:
        return None
    return version if OLDEST_SUPPORTED <= version < PROTOCOL_VERSION else None


async def _read(response: aiohttp.ClientResponse, most: int) -> bytes:
    """Read a body of bounded size, as it came over the wire."""
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise CallError(
            f"{response.method} {response.url}: the answer is encoded as {encoding!r}, nobody asked for that"
        )
    length = response.content_length
    if length is not None and length > most:
        raise CallError(f"{response.method} {response.url}: the answer has {length} bytes, more than {most}")
    if length is not None:
        return await response.read()
    chunks, total = [], 0
    async for chunk in response.content.iter_any():
        total += len(chunk)
        if total > most:
            raise CallError(f"{response.method} {response.url}: the answer has more than {most} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def _problem(method: str, url: str, status: int, raw: bytes) -> CallError:
    try:
        problem = Problem.model_validate_json(raw)
    except ValidationError:
        return CallError(f"{method} {url}: status {status}")
    return CallError(f"{problem.detail} ({method} {url}: {problem.word})", word=problem.word)
