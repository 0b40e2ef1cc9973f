"""Uploads on their way in: what their headers say, where they are staged, who may interrupt them.

One upload per client at a time: a newer one takes the place of an older one, since a client that starts again after a
crash must not wait for its own dead connection.
"""

import asyncio
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from fedjob_aggregator.admission import Admission, Credentials
from fedjob_aggregator.aggregation.backends import KernelChoice
from fedjob_aggregator.aggregation.fixed_point import check_range
from fedjob_aggregator.attempts import weight
from fedjob_aggregator.events import Update
from fedjob_aggregator.gathering import VerifiedUpload
from fedjob_aggregator.reception import Body, Reception
from fedjob_aggregator.staging import HeldBytes, StagingArea
from fedjob_aggregator.verification import LENGTH_BYTES, Check, DeltaCheck, InitialCheck, Verifier, most_header_bytes
from fedjob_protocol.errors import Refusal, Word, quote
from fedjob_protocol.messages import Participant
from fedjob_protocol.routes import EXAMPLES_HEADER, SAFETENSORS_MEDIA_TYPE
from fedjob_protocol.weights import Manifest

SMALL_BODY_BYTES: Final = 256 << 10
"""Bodies up to this are received whole and verified on the event loop, in less time than the way to a thread takes."""
MEDIA_TYPES: Final = frozenset({SAFETENSORS_MEDIA_TYPE, "application/octet-stream"})


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadRequest:
    """The headers of ``PUT /v1/rounds/{r}/updates/{client}``, parsed."""

    round: int
    client: int
    credentials: Credentials
    digest: str
    examples: int | None
    """``None``: absent or not a whole number in range."""
    metrics: Mapping[str, float]
    train_seconds: float | None
    epochs: tuple[Mapping[str, float], ...] = ()
    machine: str | None = None
    length: int | None
    """``None``: not announced."""
    media_type: str | None
    content_encoding: str | None


class RequestBody(Body, Protocol):
    """A request's body, whole or piece by piece."""

    async def whole(self, length: int) -> bytes:
        """The whole body.

        Raises:
            Refusal: ``truncated``.
        """


class Incoming:
    """One upload on its way; can be interrupted until it has been received and verified."""

    def __init__(self) -> None:
        self.received_bytes = 0
        self._task = asyncio.current_task()
        self._refusal: Refusal | None = None

    def interrupt(self, refusal: Refusal) -> None:
        """End the upload with this answer."""
        if self._refusal is None and self._task is not None:
            self._refusal = refusal
            self._task.cancel()

    def interrupted(self) -> Refusal | None:
        """Why the task was cancelled, if it was by `interrupt`; it goes on then."""
        if self._refusal is not None and self._task is not None:
            self._task.uncancel()
        return self._refusal


class UploadDesk:
    """Receives and verifies uploads.

    Args:
        area: Where they are staged.
        kernels: Loops that scan the values.
        most: Uploads that are received at the same time; further ones wait with their bodies unread.
        idle_seconds: An upload of which nothing arrives for so long is given up.
    """

    def __init__(self, area: StagingArea, kernels: KernelChoice, *, most: int, idle_seconds: float) -> None:
        self._area = area
        self._kernels = kernels
        self._slots = asyncio.Semaphore(most)
        self._idle_seconds = idle_seconds
        self._workers = ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="verify")
        self._incoming: dict[int, Incoming] = {}
        self._delta: Manifest | None = None
        self._most_delta_bytes = 0

    def expect(self, tensors: Manifest) -> None:
        """The model's tensors became known."""
        self._delta = tensors.as_delta()
        self._most_delta_bytes = LENGTH_BYTES + most_header_bytes(self._delta) + self._delta.total_bytes
        # Memory is mapped after compiling, since the compiler's own would come on top of it.
        self._kernels.prepare(self._delta.total_bytes, afterwards=self._area.expect(self._most_delta_bytes))

    def stop_all(self, refusal: Refusal) -> None:
        """End all uploads that are on their way with this answer."""
        for incoming in list(self._incoming.values()):
            incoming.interrupt(refusal)

    def stop(self) -> None:
        """Start no further work."""
        self._workers.shutdown(wait=False, cancel_futures=True)

    async def receive(
        self, request: UploadRequest, admission: Admission, body: RequestBody, incoming: Incoming
    ) -> tuple[Update, VerifiedUpload]:
        """Receive and verify an admitted upload.

        Args:
            request: Its headers.
            admission: What it was admitted to.
            body: Its bytes.
            incoming: Notes the progress, and can interrupt it.

        Raises:
            Refusal: As `judge_headers`, before the body is read; or the body is not what it has to be; or it was
                interrupted.
        """
        initial = admission.attempt.round == 0
        most = admission.attempt.spec.max_model_bytes if initial else self._most_delta_bytes
        length, examples = judge_headers(request, admission.participant, most)
        older = self._incoming.get(request.client)
        if older is not None:
            older.interrupt(Refusal(Word.TRUNCATED, "a newer upload of this client took its place"))
        self._incoming[request.client] = incoming
        try:
            async with self._slots:
                started = time.monotonic()
                check = self._check(admission, examples)
                upload = await self._verified(request.digest, Verifier(check, length), length, body, incoming)
        except asyncio.CancelledError:
            refusal = incoming.interrupted()
            if refusal is None:
                raise
            raise refusal from None
        finally:
            if self._incoming.get(request.client) is incoming:
                del self._incoming[request.client]
        update = Update(
            client=request.client,
            examples=examples,
            bytes=length,
            digest=request.digest,
            transfer_seconds=time.monotonic() - started,
            train_seconds=request.train_seconds,
            epochs=request.epochs,
            metrics=request.metrics,
            machine=request.machine,
        )
        return update, upload

    def _check(self, admission: Admission, examples: int) -> Check:
        if self._delta is None:
            return InitialCheck()
        spec = admission.attempt.spec
        fits = partial(
            check_range,
            weight=weight(spec, examples),
            participants=len(spec.participants),
            scale_bits=spec.scale_bits,
        )
        return DeltaCheck(self._delta, self._kernels.current, fits)

    async def _verified(
        self, digest: str, verifier: Verifier, length: int, body: RequestBody, incoming: Incoming
    ) -> VerifiedUpload:
        if length > SMALL_BODY_BYTES:
            return await self._staged(digest, verifier, length, body, incoming)
        content = await body.whole(length)
        incoming.received_bytes = length
        verifier.feed(memoryview(content))
        return VerifiedUpload(header=verifier.finish(digest), staged=HeldBytes(content))

    async def _staged(
        self, digest: str, verifier: Verifier, length: int, body: RequestBody, incoming: Incoming
    ) -> VerifiedUpload:
        try:
            sink = self._area.open(length)
        except OSError as error:
            raise Refusal(Word.STORAGE_FULL, f"the upload cannot be staged: {error}") from error
        reception = Reception(sink, verifier, self._workers)
        watch = asyncio.create_task(self._watch(reception, incoming))
        try:
            await body.into(reception, length)
            await reception.finish()
            header = verifier.finish(digest)
        except BaseException:
            await reception.settle()
            sink.close()
            raise
        finally:
            incoming.received_bytes = reception.received_bytes
            watch.cancel()
        return VerifiedUpload(header=header, staged=sink)

    async def _watch(self, reception: Reception, incoming: Incoming) -> None:
        """Give an upload up that does not move, though there is room for more."""
        seen = -1
        while reception.received_bytes != seen or not reception.space():
            seen = reception.received_bytes
            await asyncio.sleep(self._idle_seconds)
        detail = f"nothing arrived for {self._idle_seconds:g} s after {seen} bytes"
        incoming.interrupt(Refusal(Word.TRUNCATED, detail))


def judge_headers(request: UploadRequest, participant: Participant, most_bytes: int) -> tuple[int, int]:
    """Judge the headers of an admitted upload.

    Args:
        request: The headers.
        participant: Whose upload it is.
        most_bytes: Longest body that is accepted.

    Returns:
        The length of the body, and the number of examples.

    Raises:
        Refusal: ``unsupported-media``, ``length-required``, ``too-large`` or ``bad-examples``.
    """
    if request.content_encoding not in {None, "identity"} or request.media_type not in {None, *MEDIA_TYPES}:
        raise Refusal(
            Word.UNSUPPORTED_MEDIA,
            f"an update is {SAFETENSORS_MEDIA_TYPE} as it is, not {quote(request.media_type)} with encoding "
            f"{quote(request.content_encoding)}",
        )
    if request.length is None:
        raise Refusal(Word.LENGTH_REQUIRED, "an update announces its length in Content-Length and is not chunked")
    if request.length > most_bytes:
        raise Refusal(Word.TOO_LARGE, f"the body has {request.length} bytes, at most {most_bytes} are accepted")
    limit = 2**53 if participant.max_examples is None else participant.max_examples
    if request.examples is None or request.examples > limit:
        seen = "something else" if request.examples is None else request.examples
        raise Refusal(
            Word.BAD_EXAMPLES, f"{EXAMPLES_HEADER} must be a whole number from 0 to {limit} (announced), it is {seen}"
        )
    return request.length, request.examples
