"""The evaluator's side: one evaluation at a time, the same task again reads its result."""

import asyncio
import logging
import time
from functools import partial
from typing import Final

from fedjob_client.model_cache import LoadedModel, ModelCache, load_in_time
from fedjob_client.recorder import SILENT, Recorder
from fedjob_client.trainer import Metrics, Trainer
from fedjob_client.training import Failure, evaluate, guarded
from fedjob_client.transfer import TransferError
from fedjob_client.work import ModelSource
from fedjob_client.worker import Worker
from fedjob_protocol.messages import Base
from fedjob_protocol.reasons import Reason
from fedjob_protocol.tasks import NON_FINITE_METRICS, EvaluateTask, EvaluationState, EvaluationView

FETCH_SECONDS: Final = 60.0
"""How long the model may take to come, tries included; posting the task again tries again."""

_log = logging.getLogger(__name__)


class Evaluations:
    """Evaluates committed models; remembers the last result.

    Args:
        trainer: What evaluates; called in the worker's thread.
        worker: The thread.
        models: The last model.
        recorder: Who counts.
    """

    def __init__(self, *, trainer: Trainer, worker: Worker, models: ModelCache, recorder: Recorder = SILENT) -> None:
        self._trainer, self._worker, self._models = trainer, worker, models
        self._recorder = recorder
        self._identity: tuple[str, Base] | None = None
        self._fetching: str | None = None
        """URL that the model is being fetched from; ``None`` once it is here."""
        self._view: EvaluationView | None = None
        self._running: asyncio.Task[EvaluationView] | None = None

    async def post(self, task: EvaluateTask, *, wait_seconds: float) -> EvaluationView:
        """Evaluate, or read what became of it; waits up to ``wait_seconds`` for the end."""
        is_another = (task.job_uid, task.base) != self._identity
        if is_another or self._is_worth_another_try() or self._has_moved(task):
            self._cancel()
            self._identity, self._view = (task.job_uid, task.base), None
            self._fetching = task.model_url
            self._running = asyncio.create_task(self._evaluate(task))
        running = self._running
        if running is not None and not running.done() and wait_seconds > 0:
            await asyncio.wait({running}, timeout=wait_seconds)
        if self._running is running and self._view is not None:
            return self._view
        return EvaluationView(base=task.base, state=EvaluationState.RUNNING)

    async def close(self) -> None:
        """Stop; an evaluation in the worker's thread goes on until it ends."""
        running = self._running
        self._cancel()
        if running is not None:
            await asyncio.gather(running, return_exceptions=True)

    def _cancel(self) -> None:
        if self._running is not None:
            self._running.cancel()

    def _is_worth_another_try(self) -> bool:
        """A transfer that failed may succeed now; an evaluation that failed would fail again."""
        return self._view is not None and self._view.reason == Reason.TRANSFER_FAILED

    def _has_moved(self, task: EvaluateTask) -> bool:
        """Whether the model is being fetched from where it may not be any more: an aggregator was started again."""
        return self._fetching not in {None, task.model_url}

    async def _evaluate(self, task: EvaluateTask) -> EvaluationView:
        self._view = view = await self._result(task)
        self._recorder.evaluated(view.state, view.seconds)
        return view

    async def _result(self, task: EvaluateTask) -> EvaluationView:
        try:
            model = await self._fetch(task)
        except TransferError as error:
            return _failed(task, Reason.TRANSFER_FAILED, error.message)
        self._fetching = None
        began = time.perf_counter()
        work = partial(evaluate, self._trainer, model, task)
        result = await self._worker.run(guarded(work, f"evaluation of round {task.base.round}"))
        if isinstance(result, Failure):
            return _failed(task, result.reason, result.message)
        return self._done(task, *result, seconds=time.perf_counter() - began)

    async def _fetch(self, task: EvaluateTask) -> LoadedModel:
        source = ModelSource(url=task.model_url, digest=task.base.digest, max_bytes=task.max_model_bytes)
        key = f"{task.job_uid}/evaluator/{task.base.round}"
        return await load_in_time(self._models, source, round_number=task.base.round, seconds=FETCH_SECONDS, key=key)

    def _done(self, task: EvaluateTask, metrics: Metrics, left_out: list[str], *, seconds: float) -> EvaluationView:
        count = getattr(self._trainer, "num_test_examples", None)
        message = NON_FINITE_METRICS + ", ".join(left_out) if left_out else None
        return EvaluationView(
            base=task.base,
            state=EvaluationState.DONE,
            metrics=metrics,
            examples=int(count) if count is not None else None,
            seconds=seconds,
            reason=Reason.NON_FINITE_METRIC if left_out else None,
            message=message,
        )


def _failed(task: EvaluateTask, reason: Reason, message: str) -> EvaluationView:
    _log.warning("evaluation of round %d: %s: %s", task.base.round, reason, message)
    return EvaluationView(base=task.base, state=EvaluationState.FAILED, reason=reason, message=message)
