"""The headers of an upload as an `UploadRequest`, and its body where it comes piece by piece."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request

from fedjob_aggregator.admission import Credentials
from fedjob_aggregator.answers import whole_number
from fedjob_aggregator.reception import Reception
from fedjob_aggregator.uploads import UploadRequest
from fedjob_protocol.errors import Refusal, Word
from fedjob_protocol.routes import (
    ATTEMPT_HEADER,
    BOOT_HEADER,
    DIGEST_HEADER,
    EPOCHS_HEADER,
    EXAMPLES_HEADER,
    JOB_HEADER,
    MACHINE_HEADER,
    MAX_EPOCH_METRICS,
    MAX_MACHINE_LENGTH,
    MAX_METRICS_HEADER_BYTES,
    METRICS_HEADER,
    SECONDS_HEADER,
    TERM_HEADER,
)

MAX_TERM: Final = 2**63 - 1
MAX_METRICS: Final = 64
MAX_METRIC_NAME: Final = 64
MAX_BODY_BYTES: Final = 2**63 - 1
MAX_SECONDS: Final = 1e9
_DIGEST: Final = re.compile(r"xxh3-128:[0-9a-f]{32}")


def parse_upload(round_number: int, client: int, headers: Headers) -> UploadRequest:
    """Read the headers of an upload.

    Raises:
        Refusal: ``bad-request``: one is absent or not what it has to be. What only concerns the content, such as its
            length and the number of examples, is judged later, when it is known whose upload it is.
    """
    digest = headers.get(DIGEST_HEADER, "")
    if _DIGEST.fullmatch(digest) is None:
        _refuse(DIGEST_HEADER, "xxh3-128: and 32 hexadecimal digits", digest)
    length = headers.get("Content-Length")
    is_chunked = "Transfer-Encoding" in headers
    return UploadRequest(
        round=round_number,
        client=client,
        credentials=Credentials(
            job_uid=headers.get(JOB_HEADER, ""),
            term=whole_number(headers.get(TERM_HEADER), TERM_HEADER, MAX_TERM),
            attempt=whole_number(headers.get(ATTEMPT_HEADER), ATTEMPT_HEADER, MAX_TERM),
            boot_id=headers.get(BOOT_HEADER, ""),
        ),
        digest=digest,
        examples=_count(headers.get(EXAMPLES_HEADER)),
        metrics=_metrics(headers.get(METRICS_HEADER)),
        epochs=_epochs(headers.get(EPOCHS_HEADER)),
        train_seconds=_seconds(headers.get(SECONDS_HEADER)),
        machine=_machine(headers.get(MACHINE_HEADER)),
        length=None if length is None or is_chunked else whole_number(length, "Content-Length", MAX_BODY_BYTES),
        media_type=_media_type(headers.get("Content-Type")),
        content_encoding=headers.get("Content-Encoding"),
    )


class StreamedBody:
    """A body as Starlette hands it over.

    Args:
        request: The request.
        length: As announced.
    """

    def __init__(self, request: Request) -> None:
        self._request = request

    async def whole(self, length: int) -> bytes:
        """The whole body.

        Raises:
            Refusal: ``truncated``: the connection ended before the body did.
        """
        body = bytearray()
        try:
            async for piece in self._request.stream():
                body += piece
        except ClientDisconnect:
            pass
        if len(body) != length:
            raise _truncated(len(body), length)
        return bytes(body)

    async def into(self, reception: Reception, length: int) -> None:
        """Move the whole body into a reception.

        Raises:
            Refusal: ``truncated``: the connection ended before the body did; ``storage-full``.
        """
        try:
            async for piece in self._request.stream():
                rest = memoryview(piece)
                while rest:
                    await reception.room()
                    space = reception.space()
                    count = min(len(space), len(rest))
                    space[:count] = rest[:count]
                    reception.advance(count)
                    rest = rest[count:]
        except ClientDisconnect:
            raise _truncated(reception.received_bytes, length) from None


def _truncated(received: int, length: int) -> Refusal:
    return Refusal(Word.TRUNCATED, f"the connection ended after {received} of {length} bytes")


def _count(text: str | None) -> int | None:
    try:
        return whole_number(text, EXAMPLES_HEADER, 2**53)
    except Refusal:
        return None


def _media_type(text: str | None) -> str | None:
    return None if text is None else text.split(";")[0].strip().lower()


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        _refuse(SECONDS_HEADER, "a decimal number", text)
    if not 0 <= seconds <= MAX_SECONDS:
        _refuse(SECONDS_HEADER, f"a number from 0 to {MAX_SECONDS:g}", text)
    return seconds


def _metrics(text: str | None) -> Mapping[str, float]:
    if text is None:
        return {}
    if len(text) > MAX_METRICS_HEADER_BYTES:
        _refuse(METRICS_HEADER, f"at most {MAX_METRICS_HEADER_BYTES} bytes", f"{len(text)} bytes")
    try:
        metrics: Any = json.loads(text)
    except (ValueError, RecursionError):
        metrics = None
    if not isinstance(metrics, dict) or len(metrics) > MAX_METRICS or not all(map(_is_metric, metrics.items())):
        _refuse(METRICS_HEADER, f"a JSON object of at most {MAX_METRICS} finite numbers by name", text)
    return {name: float(value) for name, value in metrics.items()}


def _epochs(text: str | None) -> tuple[Mapping[str, float], ...]:
    if text is None:
        return ()
    if len(text) > MAX_METRICS_HEADER_BYTES:
        _refuse(EPOCHS_HEADER, f"at most {MAX_METRICS_HEADER_BYTES} bytes", f"{len(text)} bytes")
    try:
        epochs: Any = json.loads(text)
    except (ValueError, RecursionError):
        epochs = None
    if not isinstance(epochs, list) or len(epochs) > MAX_EPOCH_METRICS or not all(map(_is_epoch, epochs)):
        _refuse(EPOCHS_HEADER, f"a JSON list of at most {MAX_EPOCH_METRICS} objects of finite numbers by name", text)
    return tuple({name: float(value) for name, value in epoch.items()} for epoch in epochs)


def _machine(text: str | None) -> str | None:
    if not text:
        return None
    if len(text) > MAX_MACHINE_LENGTH or not (text.isascii() and text.isprintable()):
        _refuse(MACHINE_HEADER, f"at most {MAX_MACHINE_LENGTH} printable characters of ASCII", text)
    return text


def _is_epoch(epoch: Any) -> bool:
    return isinstance(epoch, dict) and 0 < len(epoch) <= MAX_METRICS + 1 and all(map(_is_metric, epoch.items()))


def _is_metric(item: tuple[str, Any]) -> bool:
    name, value = item
    if len(name) > MAX_METRIC_NAME or isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that no float holds
        return False


def _refuse(name: str, expected: str, seen: str) -> NoReturn:
    raise Refusal(Word.BAD_REQUEST, f"{name} must be {expected}, it is {seen[:80]!r}")
