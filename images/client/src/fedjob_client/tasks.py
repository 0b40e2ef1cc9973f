"""The shell of the task machine: carries its commands out and tells it what became of them. Decides nothing."""

import asyncio
import logging
import time
from dataclasses import dataclass
from functools import partial
from typing import Final, assert_never

from fedjob_client.machine import Machine, step, task_of
from fedjob_client.model_cache import LoadedModel, ModelCache
from fedjob_client.recorder import SILENT, Recorder
from fedjob_client.trainer import Trainer, one_line
from fedjob_client.training import Failure, Progress, config_digest, guarded, initial, train
from fedjob_client.transfer import Parcel, Transfer, TransferError
from fedjob_client.work import (
    CancelRequested,
    CancelWork,
    Command,
    Delivered,
    Event,
    Fetched,
    FetchModel,
    ModelSource,
    Posted,
    ReportFailure,
    Target,
    Train,
    Trained,
    TrainingFailed,
    TransferFailed,
    Upload,
    WorkId,
)
from fedjob_client.worker import Worker
from fedjob_protocol.reasons import Reason
from fedjob_protocol.tasks import Destination, InitTask, TaskState, TaskView, TrainTask, WarmInitTask

ENDED: Final = frozenset({TaskState.REPORTED, TaskState.FAILED, TaskState.CANCELLED})

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Assignment:
    """The task document behind the machine's piece of work."""

    work: WorkId
    task: TrainTask | InitTask


class Tasks:
    """The one task of a client.

    Args:
        client: The client's index.
        trainer: What is trained; called in the worker's thread.
        worker: The thread.
        transfer: The aggregator's API.
        models: The last model.
        initial_model: What round 0 starts from instead of the trainer's ``init``.
        recorder: Who counts.
    """

    def __init__(
        self,
        *,
        client: int,
        trainer: Trainer,
        worker: Worker,
        transfer: Transfer,
        models: ModelCache,
        initial_model: LoadedModel | None = None,
        recorder: Recorder = SILENT,
    ) -> None:
        self._machine = Machine(client=client)
        self._trainer, self._worker = trainer, worker
        self._transfer, self._models, self._initial_model = transfer, models, initial_model
        self._recorder = recorder
        self._assignment: _Assignment | None = None
        self._base: LoadedModel | None = None
        self._parcel: Parcel | None = None
        self._progress = Progress()
        self._running: dict[int, asyncio.Task[None]] = {}

    def post(self, round_number: int, task: TrainTask | InitTask) -> TaskView:
        """Accept a task, or a new destination for the one that there is.

        Raises:
            Refusal: It is older than what was accepted before; see `fedjob_client.machine.step`.
        """
        model = _source(task)
        work = WorkId(
            job_uid=task.job_uid,
            round=round_number,
            base_digest=model.digest if model else None,
            config_digest=config_digest(task),
        )
        machine, commands = step(self._machine, Posted(work=work, model=model, target=_target(task.destination)))
        if self._assignment is None or self._assignment.work != work:
            self._assignment, self._parcel, self._progress = _Assignment(work, task), None, self._fresh_progress()
        self._obey(machine, commands)
        return self.view(round_number)

    def cancel(self, round_number: int, order: tuple[int, int] | None) -> TaskView:
        """Stop working on a round.

        Raises:
            Refusal: ``not-found``, or an older operator asks.
        """
        self._feed(CancelRequested(round=round_number, order=order))
        return self.view(round_number)

    def view(self, round_number: int) -> TaskView:
        """Where a round's task is.

        Raises:
            Refusal: ``not-found``.
        """
        task = task_of(self._machine, round_number)
        document = self._assignment.task if self._assignment is not None else None
        return TaskView(
            round=round_number,
            state=task.state,
            term=task.target.term,
            attempt=task.target.attempt,
            epoch=self._progress.epoch,
            epochs=document.config.epochs if isinstance(document, TrainTask) else 0,
            metrics=dict(task.metrics or self._progress.metrics),
            reason=task.reason,
            message=task.message,
            trainings=task.trainings,
            transfers_repeated=task.transfers_repeated,
        )

    async def close(self) -> None:
        """Stop everything; a training in the worker's thread goes on until it notices."""
        self._progress.is_cancelled = True
        running = list(self._running.values())
        for command in running:
            command.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _fresh_progress(self) -> Progress:
        self._progress.is_cancelled = True
        return Progress()

    def _feed(self, event: Event) -> None:
        self._obey(*step(self._machine, event))

    def _obey(self, machine: Machine, commands: tuple[Command, ...]) -> None:
        before = self._machine.task
        self._machine = machine
        if machine.task is not None and (before is None or before.state is not machine.task.state):
            self._tell_state(machine)
        for command in commands:
            if isinstance(command, CancelWork):
                self._stop(command.op)
            else:
                self._running[command.op] = asyncio.create_task(self._run(command))

    def _tell_state(self, machine: Machine) -> None:
        task = machine.task
        assert task is not None
        level = logging.WARNING if task.state is TaskState.FAILED else logging.DEBUG
        _log.log(level, "round %d: %s %s", task.work.round, task.state, task.message or "")
        if task.state in ENDED:
            self._recorder.task_ended(task.state)

    def _stop(self, op: int) -> None:
        self._progress.is_cancelled = True
        self._running.pop(op).cancel()

    async def _run(self, command: FetchModel | Train | Upload | ReportFailure) -> None:
        event = await self._perform(command)
        del self._running[command.op]
        self._feed(event)

    async def _perform(self, command: FetchModel | Train | Upload | ReportFailure) -> Event:
        try:
            match command:
                case FetchModel():
                    return await self._fetch(command)
                case Train():
                    return await self._train(command)
                case Upload():
                    return await self._upload(command)
                case ReportFailure():
                    return await self._report(command)
                case _:
                    assert_never(command)
        except TransferError as error:
            return TransferFailed(
                op=command.op, now=_now(), retryable=error.retryable, message=error.message, word=error.word
            )
        except Exception as error:  # noqa: BLE001 - a bug of ours: the round has to go on
            _log.exception("%s failed", type(command).__name__)
            message = f"the client failed: {one_line(error)}"
            if isinstance(command, Train):
                return TrainingFailed(op=command.op, reason=Reason.CRASHED, message=message)
            return TransferFailed(op=command.op, now=_now(), retryable=False, message=message)

    async def _fetch(self, command: FetchModel) -> Event:
        await _pause(command.delay_seconds)
        assert self._assignment is not None
        number = _source_round(self._assignment.task)
        seconds = command.deadline - _now()
        self._base = await self._models.load(command.model, round_number=number, seconds=seconds)
        return Fetched(op=command.op)

    async def _train(self, command: Train) -> Event:
        assert self._assignment is not None
        task = self._assignment.task
        self._progress = progress = Progress()
        if isinstance(task, TrainTask):
            assert self._base is not None  # fetched
            work = partial(train, self._trainer, self._base, command.work.round, task, progress)
        else:
            given = self._base if isinstance(task, WarmInitTask) else self._initial_model
            work = partial(initial, self._trainer, given, task)
        began = time.perf_counter()
        result = await self._worker.run(guarded(work, f"round {command.work.round}: training"))
        self._recorder.trained(time.perf_counter() - began)
        if isinstance(result, Failure):
            return TrainingFailed(op=command.op, reason=result.reason, message=result.message)
        self._parcel = result
        return Trained(op=command.op, metrics=result.metrics)

    async def _upload(self, command: Upload) -> Event:
        await _pause(command.delay_seconds)
        assert self._parcel is not None  # trained
        await self._transfer.upload(command.target, self._parcel, seconds=command.target.deadline - _now())
        return Delivered(op=command.op)

    async def _report(self, command: ReportFailure) -> Event:
        await _pause(command.delay_seconds)
        seconds = command.target.deadline - _now()
        await self._transfer.report_failure(command.target, command.reason, command.message, seconds=seconds)
        return Delivered(op=command.op)


def _source(task: TrainTask | InitTask) -> ModelSource | None:
    """The model that a task starts from; ``None`` for an initial model that is made here."""
    if isinstance(task, TrainTask):
        return ModelSource(url=task.model_url, digest=task.base.digest, max_bytes=task.max_model_bytes)
    if isinstance(task, WarmInitTask):
        origin = task.origin
        return ModelSource(
            url=origin.model_url, digest=origin.digest, max_bytes=origin.max_model_bytes, permit=origin.permit
        )
    return None


def _source_round(task: TrainTask | InitTask) -> int:
    if isinstance(task, TrainTask):
        return task.base.round
    assert isinstance(task, WarmInitTask)  # nothing is fetched for an initial model that is made here
    return task.origin.round


async def _pause(seconds: float) -> None:
    if seconds > 0:
        await asyncio.sleep(seconds)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _target(destination: Destination) -> Target:
    return Target(
        term=destination.term,
        attempt=destination.attempt,
        boot_id=destination.boot_id,
        upload_url=destination.upload_url,
        failure_url=destination.failure_url,
        deadline=_now() + destination.deadline_seconds,
    )
