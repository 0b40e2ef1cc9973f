"""``fedjob serve``: a long-lived aggregator with its page, and training sessions over clients that register there."""

import asyncio
import logging
import os
import secrets
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Final, TypeVar

import aiohttp
from pydantic import BaseModel, ValidationError

from fedjob.engine import Interrupted, interruptible, open_session, utc_now
from fedjob.failure import Failure
from fedjob.folder import RunFolder
from fedjob.progress import display_for, say
from fedjob.sessions import (
    History,
    Template,
    begun_record,
    read_history,
    session_job,
    with_progress,
    write_history,
)
from fedjob_operator.adapters.http import HttpPrograms
from fedjob_operator.adapters.local import JobFile, LocalPods, LocalSettings
from fedjob_operator.api.v1alpha1 import FederatedJob, FederatedJobStatus
from fedjob_operator.core.actions import CreatePod, DeletePod
from fedjob_operator.core.conditions import is_finished
from fedjob_operator.core.observed import PodPhase, PodRole, PodView
from fedjob_operator.reconcile import Reconciler
from fedjob_protocol import PROTOCOL_VERSION, routes
from fedjob_protocol.messages import AggregatorState, RoundLog
from fedjob_protocol.sessions import SessionOrder, SessionRecord, SessionReport, SessionState, TrainingRequest

WAIT_SECONDS: Final = 20.0
"""How long one look for an order waits for it."""
ANSWER_SECONDS: Final = 10.0
"""How long a call to the aggregator may take beyond what it asked to wait."""
RETRY_SECONDS: Final = 0.5
"""Pause after the aggregator did not answer."""

log = logging.getLogger(__name__)

AnswerModel = TypeVar("AnswerModel", bound=BaseModel)


class _SilentError(Exception):
    """The aggregator does not answer now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One server."""

    template: Template
    folder: RunFolder
    manifest_folder: Path
    """Trainers of the evaluator are imported from here, and relative data paths start here."""
    host: str
    port: int


def serve(served: Served) -> None:
    """Serve until interrupted; a session that is under way goes on at the next start.

    Raises:
        Failure: The aggregator cannot be started.
    """
    try:
        interruptible(lambda: _Server(served).run())
    except Interrupted:
        say("the server ends; start it again with the same --dir to go on")


@dataclass(slots=True)
class _State:
    """What is reported to the aggregator."""

    history: History
    state: SessionState = SessionState.IDLE
    message: str = ""
    refused: str | None = None
    """Why the last order was not taken, until that is told."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def report(self) -> SessionReport:
        """What is reported now."""
        last = self.history.last
        return SessionReport(
            state=self.state,
            session=last.number if last else 0,
            message=self.message[:1024],
            refused=self.refused[:1024] if self.refused is not None else None,
            history=self.history.newest(),
        )


class _Server:
    """The aggregator's process, and one session at a time."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._token = secrets.token_urlsafe(32)
        self._file = served.folder.path / "sessions.json"
        self._state = _State(history=read_history(self._file, uid=served.template.job.metadata.uid))
        self._store = JobFile(served.folder.job_file)
        self._pods = LocalPods(self._settings(), clock=utc_now)
        self._woken = asyncio.Event()
        self._pods.on_event(self._woken.set)

    async def run(self) -> None:
        """Serve until cancelled."""
        async with open_session() as self._session:
            try:
                await self._keep()
                url = await self._url()
                say(f"serving at {url}, {self._served.folder.path}")
                say(f"clients: SERVER_URL={url} CLIENT_URL=http://127.0.0.1:8001 fedjob-client --port 8001")
                await self._go_on()
                while True:
                    await self._next()
            finally:
                await self._pods.close()

    def _settings(self) -> LocalSettings:
        served = self._served
        return LocalSettings(
            folder=served.folder.path.resolve(),
            token=self._token,
            trainer_path=str(served.manifest_folder),
            environment=dict(os.environ),
            host=served.host,
            port=served.port,
            sessions=("--sessions", "--session-clients", str(served.template.places)),
        )

    async def _go_on(self) -> None:
        """Take up the session that was under way when the server ended."""
        last = self._state.history.last
        if last is None or last.ended is not None:
            return
        try:
            job = self._store.load()
        except (OSError, ValueError) as error:
            raise Failure(f"{self._served.folder.job_file} cannot be read: {str(error).splitlines()[0]}") from error
        say(f"session {last.number} goes on")
        if is_finished(job.status):
            self._note(job)
        else:
            await self._drive()

    async def _next(self) -> None:
        """Wait for an order, and run the session, or say why it cannot begin."""
        order = await self._ask()
        if order is None or order.session is None or order.request is None:
            return
        try:
            record, job = await self._begin(order.session, order.request, clients=order.clients)
        except ValidationError as error:
            self._state.refused = error.errors()[0]["msg"]
        except _SilentError as error:
            self._state.refused = f"the aggregator does not answer: {error}"
        except OSError as error:
            self._state.refused = f"{error.filename or self._served.folder.path}: {error.strerror or error}"
        else:
            await self._run(record, job)
            return
        say(f"session {order.session} is not begun: {self._state.refused}", stream=sys.stderr)

    async def _begin(
        self, number: int, request: TrainingRequest, *, clients: int
    ) -> tuple[SessionRecord, FederatedJob]:
        """Make a session's job, durably."""
        state = await self._get(AggregatorState, routes.STATE_PATH)
        term = self._last_term()
        job = session_job(self._served.template, request, clients=clients, begun=state, term=term, now=utc_now())
        before = await self._metric_of(state, job)
        record = begun_record(job, number=number, clients=clients, before=before, now=utc_now())
        history = self._state.history.with_last(record)
        self._store.create(job)
        write_history(self._file, history)
        self._state.history = history
        return record, job

    async def _run(self, record: SessionRecord, job: FederatedJob) -> None:
        """Drive a session that has begun."""
        say(
            f"session {record.number}: {record.clients} clients, rounds {record.first_round} to {job.spec.rounds}, "
            f"learning rate {record.learning_rate:g}, {record.epochs} epochs, batches of {record.batch_size}"
        )
        await self._drive()

    async def _drive(self) -> None:
        """Run a session to its end, telling the aggregator how it is."""
        self._state.state, self._state.message = SessionState.CLIENTS_TRAINING, "the session begins"
        telling = asyncio.create_task(self._tell())
        try:
            with display_for(sys.stdout) as display:

                def on_change(changed: FederatedJob, before: FederatedJobStatus) -> None:
                    self._note(changed)
                    display.update(changed, before)

                reconciler = Reconciler(
                    store=self._store,
                    pods=self._pods,
                    programs=HttpPrograms(self._session, token=self._token),
                    clock=utc_now,
                    on_change=on_change,
                )
                self._pods.on_event(reconciler.wake)
                ended = await reconciler.run()
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
            self._pods.on_event(self._woken.set)
        self._state.state = SessionState.IDLE
        if ended is not None:
            self._note(ended)
            last = self._state.history.last
            say(f"session {last.number if last else '?'} is over: {self._state.message}")

    def _note(self, job: FederatedJob) -> None:
        """Take in how the session is; what is durable is written when a round was committed, and at the end."""
        last = self._state.history.last
        if last is None:
            return
        record = with_progress(last, job, now=utc_now())
        self._state.message = f"session {record.number}: {job.status.phase}: {job.status.message or ''}"
        history = self._state.history.with_last(record)
        if (record.last_round, record.state) != (last.last_round, last.state):
            try:
                write_history(self._file, history)
            except OSError as error:  # what was trained is the aggregator's to keep
                say(f"{self._file} cannot be written: {error.strerror or error}", stream=sys.stderr)
        self._state.history = history
        self._state.changed.set()

    async def _tell(self) -> None:
        """Report as long as a session runs: at once when something changed, and now and then."""
        while True:
            self._state.changed.clear()
            with suppress(_SilentError):
                await self._put(SessionOrder, routes.SESSIONS_PATH, self._state.report(), wait=0)
            with suppress(TimeoutError):
                async with asyncio.timeout(WAIT_SECONDS):
                    await self._state.changed.wait()
            await asyncio.sleep(RETRY_SECONDS)  # at most so often

    async def _ask(self) -> SessionOrder | None:
        """Report that nothing is done, and wait a while for an order."""
        await self._keep()
        try:
            report, self._state.refused = self._state.report(), None
            return await self._put(SessionOrder, routes.SESSIONS_PATH, report, wait=WAIT_SECONDS)
        except _SilentError as error:
            log.debug("%s", error)
            await asyncio.sleep(RETRY_SECONDS)
            return None

    async def _keep(self) -> None:
        """Have the aggregator run, between sessions; while one runs its own decision does."""
        newest = self._aggregator()
        if newest is not None and newest.phase is not PodPhase.EXITED:
            return
        if newest is not None:
            await self._pods.delete(_deletion(newest))
        ordinal = newest.ordinal + 1 if newest else 0
        await self._pods.create(self._served.template.job, CreatePod(role=PodRole.AGGREGATOR, index=0, ordinal=ordinal))
        await self._url()

    def _aggregator(self) -> PodView | None:
        views = [view for view in self._pods.pods() if view.role is PodRole.AGGREGATOR]
        return max(views, key=lambda view: view.ordinal, default=None)

    async def _url(self) -> str:
        """Wait until the aggregator serves; return where.

        Raises:
            Failure: It ended before.
        """
        while True:
            self._woken.clear()
            pod = self._aggregator()
            if pod is not None and pod.phase is PodPhase.READY and pod.url:
                return pod.url
            if pod is not None and pod.exit is not None:
                logs = self._served.folder.path / "logs" / "aggregator.log"
                raise Failure(f"the aggregator ended: {pod.exit.message}; {_last_line(logs)}")
            await self._woken.wait()

    def _last_term(self) -> int:
        try:
            return self._store.load().status.term
        except (OSError, ValueError):
            return 0

    async def _metric_of(self, state: AggregatorState, job: FederatedJob) -> float | None:
        """The objective's metric of the model that a session begins with, if it was evaluated."""
        if state.committed is None or job.spec.objective is None:
            return None
        log_page = await self._get(RoundLog, f"{routes.ROUNDS_PATH}?since={state.committed.round}")
        metrics = log_page.rounds[0].metrics if log_page.rounds else None
        return (metrics or {}).get(job.spec.objective.metric)

    async def _get(self, kind: type[AnswerModel], path: str) -> AnswerModel:
        return await self._call(kind, "GET", path, None, wait=0)

    async def _put(self, kind: type[AnswerModel], path: str, body: BaseModel, *, wait: float) -> AnswerModel:
        return await self._call(kind, "PUT", f"{path}?wait={wait:g}", body.model_dump_json(by_alias=True), wait=wait)

    async def _call(
        self, kind: type[AnswerModel], method: str, path: str, body: str | None, *, wait: float
    ) -> AnswerModel:
        pod = self._aggregator()
        url = (pod.url if pod else None) or ""
        headers = {
            "Content-Type": "application/json",
            routes.TOKEN_HEADER: self._token,
            routes.PROTOCOL_HEADER: str(PROTOCOL_VERSION),
        }
        timeout = aiohttp.ClientTimeout(total=wait + ANSWER_SECONDS)
        try:
            async with self._session.request(method, url + path, data=body, headers=headers, timeout=timeout) as answer:
                raw = await answer.read()
                if answer.status != HTTPStatus.OK:
                    raise _SilentError(f"{method} {path}: status {answer.status}: {raw[:200]!r}")
                return kind.model_validate_json(raw)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise _SilentError(f"{method} {path}: {error}") from error


def _deletion(pod: PodView) -> DeletePod:
    return DeletePod(role=pod.role, index=pod.index, ordinal=pod.ordinal, incarnation=pod.incarnation)


def _last_line(file: Path) -> str:
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1] if lines else "it said nothing"
