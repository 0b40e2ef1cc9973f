"""Clients with their real task machine, and an evaluator."""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import assert_never

from fedjob_aggregator.admission import Credentials
from fedjob_client.machine import Machine, step
from fedjob_client.work import (
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
from fedjob_protocol.errors import KINDS, Refusal, Word
from fedjob_protocol.messages import Base, FailureReport
from fedjob_protocol.reasons import Reason
from fedjob_protocol.tasks import (
    NON_FINITE_METRICS,
    EvaluateTask,
    EvaluationState,
    EvaluationView,
    InitTask,
    TaskView,
    TrainTask,
)
from tests.support.builders import info
from tests.support.world.aggregator import SimulatedAggregator
from tests.support.world.fences import Fence
from tests.support.world.network import Network, Reply
from tests.support.world.simulation import Simulation


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """How the clients of a job behave."""

    train_seconds: float = 2.0
    """Longest training."""
    poisonous: frozenset[int] = frozenset()
    """Clients whose updates are not finite."""
    failing: frozenset[int] = frozenset()
    """Clients whose trainer raises."""
    evaluate_seconds: float = 1.0
    """Longest evaluation."""
    diverged: int | None = None
    """Round whose model has no finite loss."""


class SimulatedClient:
    """One run of a client's program.

    Args:
        simulation: Time.
        network: Where the aggregator is.
        index: The client's.
        habits: How it behaves.
        trained: Told of every training that ended.
    """

    def __init__(
        self,
        simulation: Simulation,
        network: Network,
        *,
        index: int,
        habits: Habits,
        trained: Callable[[WorkId], None],
    ) -> None:
        self.alive = True
        self._simulation = simulation
        self._network = network
        self._index = index
        self._habits = habits
        self._trained = trained
        self._machine = Machine(client=index)
        self._fence = Fence(f"client {index}")

    def read_info(self, reply: Reply) -> None:
        """``GET /v1/info``."""
        reply(info(self._index))

    def post(self, number: int, task: TrainTask | InitTask, reply: Reply) -> None:
        """``POST /v1/rounds/{r}/train`` and ``POST /v1/init``."""
        goal = task.destination
        target = Target(
            term=goal.term,
            attempt=goal.attempt,
            boot_id=goal.boot_id,
            upload_url=goal.upload_url,
            failure_url=goal.failure_url,
            deadline=self._simulation.seconds + goal.deadline_seconds,
        )
        before = self._machine
        try:
            self._apply(Posted(work=_work(number, task), model=_model(task), target=target))
        except Refusal as refusal:
            reply(refusal)
            return
        self._fence.taken("a task", goal.term, has_effect=self._machine != before)
        current = self._machine.task
        assert current is not None
        reply(TaskView(round=number, state=current.state, term=goal.term, attempt=goal.attempt))

    def _apply(self, event: Event) -> None:
        self._machine, commands = step(self._machine, event)
        for command in commands:
            self._perform(command)

    def _perform(self, command: Command) -> None:
        match command:
            case FetchModel():
                self._later(command.delay_seconds, lambda: self._fetch(command))
            case Train():
                seconds = self._simulation.rng.random() * self._habits.train_seconds
                self._later(seconds, lambda: self._end_training(command))
            case Upload():
                self._later(command.delay_seconds, lambda: self._upload(command))
            case ReportFailure():
                self._later(command.delay_seconds, lambda: self._report(command))
            case CancelWork():
                pass  # the machine ignores what comes of it
            case _:
                assert_never(command)

    def _later(self, delay: float, effect: Callable[[], None]) -> None:
        self._simulation.later(delay, lambda: effect() if self.alive else None)

    def _fetch(self, command: FetchModel) -> None:
        number = int(command.model.url.rpartition("/")[2])

        def serve(aggregator: SimulatedAggregator, reply: Reply) -> None:
            aggregator.serve_model(number, reply)

        def answered(digest: str) -> None:
            assert digest == command.model.digest, "the model that is served is not the one that was announced"
            self._apply(Fetched(op=command.op))

        self._call(command.model.url, serve, op=command.op, answered=answered)

    def _end_training(self, command: Train) -> None:
        if self._machine.task is None or self._machine.task.op != command.op:
            return  # cancelled
        self._trained(command.work)
        if self._index in self._habits.failing:
            self._apply(TrainingFailed(op=command.op, reason=Reason.TRAINER_ERROR, message="ValueError: no"))
        else:
            self._apply(Trained(op=command.op, metrics={}))

    def _upload(self, command: Upload) -> None:
        assert self._machine.task is not None
        work, target = self._machine.task.work, command.target
        credentials = Credentials(
            job_uid=work.job_uid, term=target.term, attempt=target.attempt, boot_id=target.boot_id
        )
        word = Word.NON_FINITE if self._index in self._habits.poisonous else None

        def serve(aggregator: SimulatedAggregator, reply: Reply) -> None:
            aggregator.upload(work.round, self._index, credentials, word, 100, reply)

        self._call(target.upload_url, serve, op=command.op)

    def _report(self, command: ReportFailure) -> None:
        assert self._machine.task is not None
        work, target = self._machine.task.work, command.target
        report = FailureReport(
            job_uid=work.job_uid,
            term=target.term,
            attempt=target.attempt,
            boot_id=target.boot_id,
            reason=command.reason,
            message=command.message,
        )

        def serve(aggregator: SimulatedAggregator, reply: Reply) -> None:
            aggregator.report_failure(work.round, self._index, report, reply)

        self._call(target.failure_url, serve, op=command.op)

    def _call(
        self,
        url: str,
        serve: Callable[[SimulatedAggregator, Reply], None],
        *,
        op: int,
        answered: Callable[[str], None] | None = None,
    ) -> None:
        def failed(word: str | None, message: str) -> None:
            if self.alive:
                retryable = word is None or KINDS[Word(word)].retryable
                now = self._simulation.seconds
                self._apply(TransferFailed(op=op, now=now, retryable=retryable, message=message, word=word))

        def succeeded(answer: str) -> None:
            if not self.alive:
                return
            if answered is None:
                self._apply(Delivered(op=op))
            else:
                answered(answer)

        self._network.call(url, serve, answered=succeeded, failed=failed)

    def kill(self) -> None:
        """SIGKILL."""
        self.alive = False


class SimulatedEvaluator:
    """One run of the evaluator's program.

    Args:
        simulation: Time.
        habits: How long it takes.
    """

    def __init__(self, simulation: Simulation, habits: Habits) -> None:
        self.alive = True
        self._simulation = simulation
        self._habits = habits
        self._done: dict[Base, EvaluationView] = {}
        self._waiting: dict[Base, list[Reply]] = {}

    def read_info(self, reply: Reply) -> None:
        """``GET /v1/info``."""
        reply(info(0, role="Evaluator"))

    def evaluate(self, task: EvaluateTask, reply: Reply) -> None:
        """``POST /v1/evaluate?wait=``: one evaluation per model, however often it is asked for."""
        base = task.base
        if base in self._done:
            reply(self._done[base])
        elif base in self._waiting:
            self._waiting[base].append(reply)
        else:
            self._waiting[base] = [reply]
            self._simulation.soon(lambda: self._end(base), most=self._habits.evaluate_seconds)

    def _end(self, base: Base) -> None:
        diverged = base.round == self._habits.diverged
        self._done[base] = EvaluationView(
            base=base,
            state=EvaluationState.DONE,
            metrics={} if diverged else {"accuracy": accuracy_of(base.digest)},
            examples=50,
            message=NON_FINITE_METRICS + "accuracy, loss" if diverged else None,
        )
        for reply in self._waiting.pop(base):
            reply(self._done[base])

    def kill(self) -> None:
        """SIGKILL."""
        self.alive = False


def accuracy_of(digest: str) -> float:
    """The metric of a model: anything that depends on the model alone."""
    return int(digest[-4:], 16) / 0x10000


def _work(number: int, task: TrainTask | InitTask) -> WorkId:
    if isinstance(task, InitTask):
        return WorkId(job_uid=task.job_uid, round=number, base_digest=None, config_digest=str(task.seed))
    config = sha256(task.config.model_dump_json().encode()).hexdigest()
    return WorkId(job_uid=task.job_uid, round=number, base_digest=task.base.digest, config_digest=config)


def _model(task: TrainTask | InitTask) -> ModelSource | None:
    if isinstance(task, InitTask):
        return None
    return ModelSource(url=task.model_url, digest=task.base.digest, max_bytes=task.max_model_bytes)
