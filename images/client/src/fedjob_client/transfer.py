"""Everything that a client sends and fetches: models in, updates and failure reports out. Decides nothing.

One HTTP session for the life of the process, so that connections are kept. Bytes that come in are bounded before they
are read, and believed only when their digest is right.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from pydantic import ValidationError

from fedjob_client.payload import PatientRequest, UpdatePayload
from fedjob_client.recorder import SILENT, Recorder
from fedjob_client.updates import Body
from fedjob_client.work import ModelSource, Target
from fedjob_protocol import PROTOCOL_VERSION, routes
from fedjob_protocol.digests import Sha256
from fedjob_protocol.errors import KINDS, FedJobError, Problem, Word
from fedjob_protocol.messages import FailureReport
from fedjob_protocol.reasons import Reason
from fedjob_protocol.registration import Heartbeat, HeartbeatAnswer, RegisteredAnswer

EXPECT_BYTES: Final = 1 << 20
"""Larger updates ask before they are sent (``Expect: 100-continue``), so that a refused one costs nothing."""
ANSWER_SECONDS: Final = 300.0
"""How long the answer to an update may take once all of it is sent: it is verified and folded, but not committed."""
ONE_PIECE_BYTES: Final = 64 << 10
"""Smaller updates are sent in one piece with their headers."""
CONNECT_SECONDS: Final = 5.0
SILENCE_SECONDS: Final = 60.0
"""Longest silence of a server before a transfer is given up."""
SHORTEST_TRY_SECONDS: Final = 1.0
"""A transfer may take this long even where its deadline is nearer."""
MAX_ANSWER_BYTES: Final = 64 << 10
"""Most that is read of an answer which is no model."""
TAIL_SECONDS: Final = 1.0
"""How long the body of a success may take: all that it is good for is that its connection can be used again."""

RETRYABLE_STATUS: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})


class TransferError(FedJobError):
    """A transfer did not get through, or was refused.

    Args:
        message: What was seen.
        retryable: Whether the same transfer may succeed later.
        word: The machine word of the refusal, if there was one.
    """

    def __init__(self, message: str, *, retryable: bool, word: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retryable = retryable
        self.word = word


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """An update, ready to be sent."""

    body: Body
    examples: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    train_seconds: float = 0.0
    epochs: Sequence[Mapping[str, float]] = ()
    """Metrics after each epoch, with its number as ``epoch``."""
    machine: str = ""
    """What computed it: `fedjob_client.info.machine`."""


class Transfer:
    """The client's side of the aggregator's API.

    Redirects are not followed: they would carry the job's token to somebody else.

    Args:
        session: Used for all calls; closed by whoever made it.
        job_uid: The job that updates belong to.
        root: URL of the only server that is called, whatever host a task names: that of a client outside, which
            reaches it by another address than those inside, and sends its updates nowhere else.
        recorder: Who counts.
    """

    def __init__(
        self, session: aiohttp.ClientSession, *, job_uid: str, root: str | None = None, recorder: Recorder = SILENT
    ) -> None:
        self._session = session
        self._recorder = recorder
        self._root = root.rstrip("/") if root else None
        self.job_uid = job_uid
        self.token: str | None = None
        """What a client that registered itself was given, sent with every call."""

    async def fetch(self, model: ModelSource, *, seconds: float) -> bytearray:
        """Get a model's file into memory.

        Args:
            model: Where it is, its SHA-256, and how large it may be.
            seconds: How long it may take.

        Raises:
            TransferError: It did not come, is too large, or is another one.
        """
        timeout = _timeout()
        url = self._url(model.url)
        headers = {"Accept-Encoding": "identity", **self._authority()}
        if model.permit is not None:
            headers[routes.TOKEN_HEADER] = model.permit  # in the place of the own token, whatever that is
        try:
            async with (
                asyncio.timeout(max(seconds, SHORTEST_TRY_SECONDS)),
                self._session.get(url, headers=headers, timeout=timeout, allow_redirects=False) as response,
            ):
                if response.status != HTTPStatus.OK:
                    raise await _refusal(response)
                data, digest = await _read_model(response, model)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _broken(model.url, error) from error
        self._recorder.received(len(data))
        if digest != model.digest:
            raise TransferError(
                f"{model.url} has the digest {digest}, {model.digest} is expected",
                retryable=True,
                word=Word.DIGEST_MISMATCH,
            )
        return data

    async def upload(self, target: Target, parcel: Parcel, *, seconds: float) -> None:
        """Send an update, without copying it.

        Raises:
            TransferError: It did not get through, or was refused.
        """
        headers = {
            "Content-Type": routes.SAFETENSORS_MEDIA_TYPE,
            routes.JOB_HEADER: self.job_uid,
            routes.TERM_HEADER: str(target.term),
            routes.ATTEMPT_HEADER: str(target.attempt),
            routes.BOOT_HEADER: target.boot_id,
            routes.EXAMPLES_HEADER: str(parcel.examples),
            routes.DIGEST_HEADER: parcel.body.digest,
            routes.METRICS_HEADER: metrics_header(parcel.metrics),
            routes.EPOCHS_HEADER: epochs_header(parcel.epochs),
            routes.SECONDS_HEADER: f"{parcel.train_seconds:.6f}",
            routes.MACHINE_HEADER: parcel.machine,
            **self._authority(),
        }
        body = parcel.body
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
        try:
            async with asyncio.timeout(max(seconds, SHORTEST_TRY_SECONDS)) as limit:
                data = (
                    b"".join(body.blocks)
                    if body.size <= ONE_PIECE_BYTES
                    else UpdatePayload(body, partial(_shorten, limit))
                )
                asks = body.size > EXPECT_BYTES
                async with self._session.put(
                    self._url(target.upload_url),
                    data=data,
                    headers=headers,
                    expect100=asks,
                    timeout=timeout,
                    allow_redirects=False,
                ) as response:
                    await _expect_success(response)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _broken(target.upload_url, error) from error
        self._recorder.sent(body.size)

    async def report_failure(self, target: Target, reason: Reason, message: str, *, seconds: float) -> None:
        """Tell the aggregator that this client will not report.

        Raises:
            TransferError: It did not get through, or was refused.
        """
        report = FailureReport(
            job_uid=self.job_uid,
            term=target.term,
            attempt=target.attempt,
            boot_id=target.boot_id,
            reason=reason,
            message=message,
        )
        url = self._url(target.failure_url)
        await self._send_json("PUT", url, report.model_dump_json(by_alias=True), seconds=seconds)

    async def register(
        self, server_url: str, *, client_url: str, boot_id: str, group: str | None, shown: str | None, seconds: float
    ) -> RegisteredAnswer:
        """Tell an aggregator where this client is.

        Args:
            server_url: The aggregator's.
            client_url: Where it reaches this client.
            boot_id: Identity of this run of the client.
            group: The client group to be in, if any is asked for.
            shown: The token that is shown, if any.
            seconds: How long it may take.

        Raises:
            TransferError: It did not get through, was refused, or the answer is none.
        """
        given = {"client_url": client_url, "boot_id": boot_id, **({"group": group} if group else {})}
        raw = await self._send_json(
            "POST",
            server_url.rstrip("/") + routes.REGISTER_PATH,
            json.dumps(given),
            seconds=seconds,
            headers={routes.TOKEN_HEADER: shown} if shown else {},
        )
        try:
            return RegisteredAnswer.model_validate_json(raw)
        except ValidationError:
            # An aggregator of the release before: it lists the address, and answers no more than that.
            return RegisteredAnswer(client_url=client_url, registered=0)

    async def beat(self, server_url: str, heartbeat: Heartbeat, *, seconds: float) -> HeartbeatAnswer:
        """Tell an aggregator that this client is still there.

        Raises:
            TransferError: It did not get through, was refused, or the answer is none.
        """
        url = server_url.rstrip("/") + routes.CLIENTS_PATH
        raw = await self._send_json(
            "PUT", url, heartbeat.model_dump_json(by_alias=True), seconds=seconds, headers=self._authority()
        )
        try:
            return HeartbeatAnswer.model_validate_json(raw)
        except ValidationError as error:
            raise TransferError(f"{url}: the answer is no heartbeat's", retryable=True) from error

    async def silence_at(self, url: str, *, seconds: float) -> str | None:
        """Ask for ``/health`` at an address, without any token; say why there is no answer, or ``None`` for one."""
        try:
            async with (
                asyncio.timeout(seconds),
                self._session.get(url + routes.HEALTH_PATH, timeout=_timeout(), allow_redirects=False),
            ):
                return None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return f"{type(error).__name__}: {error}".rstrip(": ")

    async def _send_json(
        self, method: str, url: str, body: str, *, seconds: float, headers: Mapping[str, str] | None = None
    ) -> bytes:
        given = {"Content-Type": "application/json", **(self._authority() if headers is None else headers)}
        try:
            async with (
                asyncio.timeout(max(seconds, SHORTEST_TRY_SECONDS)),
                self._session.request(
                    method, url, data=body.encode(), headers=given, timeout=_timeout(), allow_redirects=False
                ) as response,
            ):
                return await _expect_success(response)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _broken(url, error) from error

    def _authority(self) -> dict[str, str]:
        return {routes.TOKEN_HEADER: self.token} if self.token else {}

    def _url(self, url: str) -> str:
        if self._root is None:
            return url
        parts = urlsplit(url)
        return f"{self._root}{parts.path}{f'?{parts.query}' if parts.query else ''}"


def open_session(token: str | None) -> aiohttp.ClientSession:
    """The session of a process; call it in its event loop, and close it there.

    Args:
        token: The job's token, sent with every call; ``None`` sends none.
    """
    headers = {routes.PROTOCOL_HEADER: str(PROTOCOL_VERSION)}
    if token:
        headers[routes.TOKEN_HEADER] = token
    return aiohttp.ClientSession(
        headers=headers,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        connector=aiohttp.TCPConnector(limit=8),
        request_class=PatientRequest,
    )


def metrics_header(metrics: Mapping[str, float]) -> str:
    """Metrics as JSON in ASCII; as many of the first as fit."""
    kept: dict[str, float] = {}
    text = "{}"
    for name, value in metrics.items():
        kept[name] = value
        longer = json.dumps(kept, allow_nan=False)
        if len(longer) > routes.MAX_METRICS_HEADER_BYTES:
            break
        text = longer
    return text


def epochs_header(epochs: Sequence[Mapping[str, float]]) -> str:
    """Metrics of epochs as JSON in ASCII: of many some, evenly spaced, as many as fit; the last is always there."""
    most = min(len(epochs), routes.MAX_EPOCH_METRICS)
    while most > 0:
        places = [len(epochs) - 1 - round(step * (len(epochs) - 1) / max(most - 1, 1)) for step in range(most)]
        kept = [{name: float(f"{value:.6g}") for name, value in epochs[place].items()} for place in reversed(places)]
        text = json.dumps(kept, allow_nan=False, separators=(",", ":"))
        if len(text) <= routes.MAX_METRICS_HEADER_BYTES:
            return text
        most //= 2
    return "[]"


async def _read_model(response: aiohttp.ClientResponse, model: ModelSource) -> tuple[bytearray, str]:
    length = response.content_length
    if length is None:
        raise TransferError(f"{model.url} answers without a Content-Length", retryable=False)
    if length > model.max_bytes:
        raise TransferError(
            f"{model.url} has {length} bytes, at most {model.max_bytes} are accepted",
            retryable=False,
            word=Word.TOO_LARGE,
        )
    data = bytearray(length)  # not touched until bytes come: a lying length takes no memory
    hasher = Sha256()
    position = 0
    async for chunk in response.content.iter_any():
        if position + len(chunk) > length:
            break
        data[position : position + len(chunk)] = chunk
        hasher.update(chunk)
        position += len(chunk)
    if position != length:
        raise TransferError(f"{model.url} ended after {position} of {length} bytes", retryable=True)
    return data, hasher.digest()


async def _expect_success(response: aiohttp.ClientResponse) -> bytes:
    """Take in an answer whose body matters little; return what came of it.

    Raises:
        TransferError: It is no success.
    """
    if not HTTPStatus.OK <= response.status < HTTPStatus.MULTIPLE_CHOICES:
        raise await _refusal(response)
    with suppress(aiohttp.ClientError, OSError, TimeoutError):  # then the connection is not used again
        async with asyncio.timeout(TAIL_SECONDS):
            return await _read_bounded(response)
    return b""


async def _read_bounded(response: aiohttp.ClientResponse) -> bytes:
    """The body, or as much of it as is read of any answer."""
    body = b""
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) >= MAX_ANSWER_BYTES:
            break
    return body


async def _refusal(response: aiohttp.ClientResponse) -> TransferError:
    """An answer that is no success, as an error."""
    raw = await _read_bounded(response)
    status = response.status
    by_status = status in RETRYABLE_STATUS or status >= HTTPStatus.INTERNAL_SERVER_ERROR
    try:
        problem = Problem.model_validate_json(raw)
    except ValidationError:
        return TransferError(f"{response.method} {response.url} answers with status {status}", retryable=by_status)
    try:
        retryable = KINDS[Word(problem.word)].retryable
    except ValueError:  # a newer server knows more words
        retryable = by_status
    return TransferError(problem.detail, retryable=retryable, word=problem.word)


def _shorten(limit: asyncio.Timeout) -> None:
    """An update was sent: from now on its answer is waited for, not its way."""
    end = asyncio.get_running_loop().time() + ANSWER_SECONDS
    when = limit.when()
    if when is not None and when > end:
        limit.reschedule(end)


def _broken(url: str, error: Exception) -> TransferError:
    return TransferError(f"{url}: {type(error).__name__}: {error}".rstrip(": "), retryable=True)


def _timeout() -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS)
