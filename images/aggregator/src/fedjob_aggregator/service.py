"""The thin shell around the round machine: owns its state, performs its commands, hands it the time.

The only owner of mutable state. Everything here runs on the event loop; what takes time is in `writer` and `uploads`.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, assert_never

from fedjob_aggregator.admission import Admission, admit
from fedjob_aggregator.checkpoints import CheckpointStore
from fedjob_aggregator.events import (
    Cancel,
    Claim,
    Command,
    Commit,
    CommitFailed,
    Committed,
    DeadlinePassed,
    Evaluate,
    Event,
    Fold,
    Folded,
    KeepRecord,
    Offer,
    Open,
    RecordClosed,
    ReportFailure,
    StartAttempt,
    StopUploads,
    SumsLost,
    Update,
    UploadRefused,
)
from fedjob_aggregator.gathering import VerifiedUpload
from fedjob_aggregator.machine import step
from fedjob_aggregator.nextmodel import UnusableModelError
from fedjob_aggregator.reading import Reading
from fedjob_aggregator.recorder import SILENT, Recorder
from fedjob_aggregator.replacements import Replacements
from fedjob_aggregator.uploads import Incoming, RequestBody, UploadDesk, UploadRequest
from fedjob_aggregator.views import restored
from fedjob_aggregator.writer import Writer
from fedjob_protocol.errors import Refusal, Word
from fedjob_protocol.messages import Evaluation, FailureReport, RefusedUpdate, RoundRecord, RoundSpec, RoundView
from fedjob_protocol.round import GIVEN_UP

MAX_DETAIL_CHARACTERS: Final = 1024

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verified:
    """An upload between its verification and its fold."""

    upload: VerifiedUpload
    folded: "asyncio.Future[None]"


class Service(Reading):
    """One job's rounds.

    Args:
        store: The folder, open.
        writer: Folds and commits.
        desk: Receives uploads.
        boot_id: Identity of this run of the program.
        job_uid: Whose aggregator this is; ``None``: of the job whose round is opened first.
        wall_clock: The time of day, for the records.
        replacements: Clients that somebody had replaced.
        recorder: Who counts.
    """

    def __init__(
        self,
        store: CheckpointStore,
        writer: Writer,
        desk: UploadDesk,
        *,
        boot_id: str,
        job_uid: str | None,
        wall_clock: Callable[[], datetime],
        replacements: Replacements,
        recorder: Recorder = SILENT,
    ) -> None:
        self._writer = writer
        self._desk = desk
        self._wall_clock = wall_clock
        self._recorder = recorder
        record = store.record
        state = restored(
            boot_id=boot_id,
            job_uid=store.manifest.job_uid or job_uid,
            term=store.manifest.term,
            record=record,
            is_closed=record is not None and record.round == store.log.last_round,
            best=store.manifest.best,
        )
        super().__init__(store, state, replacements)
        recorder.restored(state.committed)
        self._operator = asyncio.Lock()
        self._verified: dict[tuple[int, int, int], _Verified] = {}
        self._deadline: asyncio.TimerHandle | None = None
        self._commit: asyncio.Task[None] | None = None
        if store.tensors is not None:
            desk.expect(store.tensors)

    # Requests of the operator, one after the other

    async def open_round(self, round_number: int, spec: RoundSpec) -> RoundView:
        """Open a round, or answer where it is.

        Raises:
            Refusal: As `machine.step`; ``storage-full``: term or record could not be made durable.
        """
        async with self._operator:
            await self._claim_as_leader(spec.job_uid, spec.term)
            if self._is_held(round_number):
                return self.view(round_number)
            if round_number == self._state.committed + 1:
                self._writer.strategy(spec)
            event = Open(round=round_number, spec=spec, now=time.monotonic(), at=self._wall_clock())
            await self._settle(self._apply(event))
            last = self._state.last
            if last is not None and last.record.round == round_number - 1 and self._state.current is None:
                await self._settle(self._apply(event))  # the record of the round before had to be closed first
            return self.view(round_number)

    async def cancel(self, round_number: int, term: int, attempt: int) -> RoundView:
        """Cancel an attempt.

        Raises:
            Refusal: As `machine.step`.
        """
        async with self._operator:
            if self._state.job_uid is not None:
                await self._claim_as_leader(self._state.job_uid, term)
            self._apply(Cancel(round=round_number, attempt=attempt))
            return self.view(round_number)

    async def evaluate(self, round_number: int, evaluation: Evaluation) -> RoundView:
        """Close the record of a round with its evaluation.

        Raises:
            Refusal: As `machine.step`; ``storage-full``: the record could not be made durable.
        """
        async with self._operator:
            await self._claim_as_leader(evaluation.job_uid, evaluation.term)
            await self._settle(self._apply(Evaluate(round=round_number, evaluation=evaluation)))
            return self.view(round_number)

    async def _claim_as_leader(self, job_uid: str, term: int) -> None:
        self.check_leads()
        await self._claim(job_uid, term)
        self.check_leads()

    async def _claim(self, job_uid: str, term: int) -> None:
        claim = Claim(job_uid=job_uid, term=term)
        claimed = step(self._state, claim).state
        if (claimed.job_uid, claimed.term) != (self._state.job_uid, self._state.term) or self._is_unclaimed():
            await self._settle([self._writer.claim(job_uid, term)])
        self._apply(claim)

    def _is_unclaimed(self) -> bool:
        return self.store.manifest.job_uid is None or self.store.manifest.term < self._state.term

    # Requests of the clients

    async def upload(self, request: UploadRequest, body: RequestBody) -> Update:
        """Receive, verify and fold an update.

        Raises:
            Refusal: As `admission.admit`, `UploadDesk.check`, `UploadDesk.receive` and `machine.step`.
        """
        self.check_leads()
        incoming = Incoming()
        admission: Admission | Update | None = None
        self._recorder.upload_began()
        try:
            admission = admit(self._state, request.round, request.client, request.credentials, request.digest)
            if isinstance(admission, Update):
                return admission
            update, upload = await self._desk.receive(request, admission, body, incoming)
            await self._fold(request.round, admission.attempt.spec.attempt, update, upload)
        except Refusal as refusal:
            self._recorder.update_refused(refusal.word)
            admitted = admission.attempt.spec.attempt if isinstance(admission, Admission) else None
            self._note(request, refusal, incoming.received_bytes, admitted)
            raise
        finally:
            self._recorder.upload_ended(incoming.received_bytes)
        return update

    async def _fold(self, round_number: int, attempt: int, update: Update, upload: VerifiedUpload) -> None:
        key = (round_number, attempt, update.client)
        folded: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        verified = _Verified(upload=upload, folded=folded)
        if key in self._verified:
            upload.staged.close()
            raise Refusal(Word.ALREADY_REPORTED, f"another update of client {update.client} is being folded")
        self._verified[key] = verified
        try:
            self._apply(Offer(round=round_number, attempt=attempt, update=update))
        except Refusal:
            del self._verified[key]
            upload.staged.close()
            raise
        await asyncio.shield(folded)

    def _note(self, request: UploadRequest, refusal: Refusal, received: int, admitted: int | None) -> None:
        """Remember a refused upload: in the attempt that it was admitted to, otherwise in the current one."""
        current = self._state.current
        if current is None or refusal.word is Word.WRONG_JOB:
            return
        _log.info("update of client %d for round %d refused: %s", request.client, request.round, refusal)
        refused = RefusedUpdate(
            client=request.client,
            word=refusal.word,
            detail=refusal.detail[:MAX_DETAIL_CHARACTERS],
            bytes=received,
            attempt=current.spec.attempt if admitted is None else admitted,
        )
        self._apply(UploadRefused(round=current.round if admitted is None else request.round, refused=refused))

    def report_failure(self, round_number: int, client: int, report: FailureReport) -> None:
        """Take note that a participant will not report in this attempt.

        Raises:
            Refusal: As `machine.step`.
        """
        self.check_leads()
        self._apply(ReportFailure(round=round_number, client=client, report=report))

    def stop(self) -> None:
        """End what is under way; nothing that is not durable yet will be."""
        self._stopping = True
        self._desk.stop_all(Refusal(Word.UNAVAILABLE, "the aggregator stops"))
        self._wake()
        if self._deadline is not None:
            self._deadline.cancel()
        if self._commit is not None:
            self._commit.cancel()
        self._writer.stop()
        self._desk.stop()

    # What is more where there are standbys: see `replica_service`

    def check_leads(self) -> None:
        """Refuse a request that only a leader takes: this one leads."""

    def _is_held(self, round_number: int) -> bool:  # noqa: ARG002 - of those that override it
        """Whether a round is durable here and waits for others: it counts at once."""
        return False

    def _leads_in(self) -> int | None:
        """The term in which this aggregator leads; ``None``: whoever asks may commit."""
        return None

    async def _acknowledged(self, record: RoundRecord) -> None:
        """Wait until a durable round counts: it does at once."""

    # The machine

    def _apply(self, event: Event) -> "list[asyncio.Future[Any]]":
        """Let something happen; returns what is under way because of it.

        Raises:
            Refusal: A request is refused; nothing happened.
        """
        before = self._state
        following = step(before, event)
        self._state = following.state
        futures = [future for command in following.commands if (future := self._perform(command)) is not None]
        if before.current is not self._state.current or before.last is not self._state.last:
            self._wake()
            if self._state.current is not None and self._state.current.state in GIVEN_UP:
                self._writer.release()
        return futures

    def _perform(self, command: Command) -> "asyncio.Future[Any] | None":
        match command:
            case StartAttempt():
                return self._start(command)
            case Fold():
                return self._start_fold(command)
            case Commit():
                self._commit = asyncio.create_task(self._run_commit(command))
                return None
            case KeepRecord():
                return self._keep(command.record)
            case StopUploads():
                self._desk.stop_all(Refusal(Word.ROUND_CLOSED, command.detail))
                return None
            case _:
                assert_never(command)

    def _start(self, command: StartAttempt) -> "asyncio.Future[None]":
        attempt = command.attempt
        key = {"round": attempt.round, "attempt": attempt.spec.attempt}
        if self._deadline is not None:
            self._deadline.cancel()
        loop = asyncio.get_running_loop()
        passed = DeadlinePassed(**key)
        self._deadline = loop.call_later(attempt.spec.deadline_seconds, lambda: self._apply(passed))
        started = self._writer.start_attempt(attempt.spec)
        started.add_done_callback(lambda future: self._lost_if_failed(future, **key))
        return started

    def _start_fold(self, command: Fold) -> "asyncio.Future[None]":
        verified = self._verified[command.round, command.attempt, command.client]
        assert self._state.current is not None
        folding = self._writer.fold(verified.upload, command, scale_bits=self._state.current.spec.scale_bits)
        folding.add_done_callback(lambda future: self._folded(command, future))
        return folding

    def _folded(self, command: Fold, folding: "asyncio.Future[None]") -> None:
        verified = self._verified.pop((command.round, command.attempt, command.client))
        if folding.cancelled():  # the program stops
            verified.folded.cancel()
            return
        if command.round > 0:
            verified.upload.staged.close()
        if self._lost_if_failed(folding, round=command.round, attempt=command.attempt):
            verified.folded.set_exception(Refusal(Word.UNAVAILABLE, "the update could not be read again from staging"))
            verified.folded.exception()  # the client may be gone
            return
        now = time.monotonic()
        self._apply(Folded(round=command.round, attempt=command.attempt, client=command.client, now=now))
        verified.folded.set_result(None)
        self._recorder.update_accepted()

    def _lost_if_failed(self, future: "asyncio.Future[None]", *, round: int, attempt: int) -> bool:  # noqa: A002 - as in the events
        error = None if future.cancelled() else future.exception()
        if error is not None:
            _log.error("attempt %d of round %d lost its sums", attempt, round, exc_info=error)
            self._apply(SumsLost(round=round, attempt=attempt, message=f"the sums are lost: {error}"))
        return error is not None

    def _keep(self, record: RoundRecord) -> "asyncio.Future[None]":
        kept = self._writer.keep(record)

        def done(future: "asyncio.Future[None]") -> None:
            if future.cancelled():
                return
            error = future.exception()
            if error is None:
                self._apply(RecordClosed(record=record))
            else:  # asked for again when the next round opens, and in any case before its commit
                _log.error("the record of round %d cannot be written: %s", record.round, error)

        kept.add_done_callback(done)
        return kept

    async def _run_commit(self, command: Commit) -> None:
        attempt = command.attempt
        await asyncio.sleep(command.after_seconds)
        try:
            record = await self._writer.commit(attempt, term=self._leads_in())
        except Exception as error:  # noqa: BLE001 - whatever it is: the sums are there, and the view has to say why
            _log.exception("round %d cannot be committed", attempt.round)
            definitive = isinstance(error, UnusableModelError)
            message = str(error) if definitive else f"cannot write the checkpoint of round {attempt.round}: {error}"
            self._recorder.commit_failed()
            key = {"round": attempt.round, "attempt": attempt.spec.attempt}
            self._apply(CommitFailed(**key, message=message, is_definitive=definitive))
            return
        await self._acknowledged(record)
        if attempt.round > 0:
            self._writer.release()
        else:
            self._writer.drop_initial()
            assert self.store.tensors is not None
            self._desk.expect(self.store.tensors)
        if self._deadline is not None:
            self._deadline.cancel()
        self._recorder.committed(record)
        self._apply(Committed(record=record))

    async def _settle(self, futures: "list[asyncio.Future[Any]]") -> None:
        """Wait for what a request has caused.

        Raises:
            Refusal: ``storage-full``: it could not be made durable, or there is no memory for it.
        """
        for future in futures:
            try:
                await asyncio.shield(future)
            except (OSError, MemoryError) as error:
                raise Refusal(Word.STORAGE_FULL, f"nothing was changed, try again: {error!r}") from error
