"""What the worker thread does for a task: call the trainer, check what it returns, make the bytes to upload."""

import hashlib
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeVar

import numpy as np

from fedjob_client.errors import ArchitectureError, Cancelled, ClientError, GpuFailedError, TrainerError
from fedjob_client.info import machine
from fedjob_client.model_cache import LoadedModel
from fedjob_client.personal import Personal
from fedjob_client.trainer import EvalConfig, Metrics, OptimizerSettings, Params, TrainConfig, Trainer, one_line
from fedjob_client.transfer import Parcel
from fedjob_client.updates import body_of, check_examples, checked_params, delta_of, finite_metrics
from fedjob_protocol.errors import Refusal
from fedjob_protocol.manifest import Manifest, compare_manifest
from fedjob_protocol.process import EXIT_FATAL, exit_now, leave_termination
from fedjob_protocol.reasons import Reason
from fedjob_protocol.tasks import EvaluateTask, InitTask, TrainTask

_log = logging.getLogger(__name__)

Result = TypeVar("Result")

MAX_KEPT_EPOCHS: Final = 1000
"""Epochs whose metrics are kept for the round log."""
MAX_TOLD_EPOCHS: Final = 100
"""Lines about epochs in the log of one training: of more epochs some are told, and always the last."""


def _tell_nobody(epoch: int, metrics: Mapping[str, float]) -> None:
    """Nobody listens."""


def epoch_teller(round_number: int, epochs: int) -> Callable[[int, Mapping[str, float]], None]:
    """Return what writes a line about an epoch into the log.

    Args:
        round_number: Which round is trained.
        epochs: How many epochs it has.
    """
    every = -(-epochs // MAX_TOLD_EPOCHS)

    def tell(epoch: int, metrics: Mapping[str, float]) -> None:
        if epoch % every == 0 or epoch == epochs:
            _log.info("round %d: epoch %d of %d: %s", round_number, epoch, epochs, _words(metrics))

    return tell


def _words(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in sorted(metrics.items())) or "no metrics"


@dataclass(slots=True)
class Progress:
    """How far a training is: written by the worker thread, read by the event loop, one reference at a time."""

    epoch: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    is_cancelled: bool = False
    told: Callable[[int, Mapping[str, float]], None] = _tell_nobody
    """Told of each epoch; called in the worker thread."""
    epochs: deque[Mapping[str, float]] = field(default_factory=lambda: deque(maxlen=MAX_KEPT_EPOCHS))
    """The last ones, with their numbers as ``epoch``; read once the training has ended."""

    def on_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """`TrainConfig.on_epoch`."""
        self.check_cancelled()
        self.metrics = finite_metrics(metrics)[0]
        self.epoch = int(epoch)
        self.epochs.append({"epoch": self.epoch} | self.metrics | {"epoch": self.epoch})
        self.told(self.epoch, self.metrics)

    def check_cancelled(self) -> None:
        """`TrainConfig.check_cancelled`."""
        if self.is_cancelled:
            raise Cancelled("the training was cancelled")


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a trainer gave no result, as the job's status will show it."""

    reason: Reason
    message: str


def config_digest(task: TrainTask | InitTask) -> str:
    """Digest of everything in a task that its result depends on, besides job, round and base."""
    text = task.config.model_dump_json() if isinstance(task, TrainTask) else f"init {task.seed}"
    return hashlib.sha256(text.encode()).hexdigest()


def train(trainer: Trainer, base: LoadedModel, round_number: int, task: TrainTask, progress: Progress) -> Parcel:
    """Train once.

    Raises:
        Cancelled: Nobody wants the result any more.
        ClientError: The trainer returned something else than an update.
        Exception: Whatever the trainer raised.
    """
    began = time.perf_counter()
    # Copies: the difference is taken to what the training started from, whatever the trainer does to its arguments.
    params = {name: np.array(array) for name, array in base.params.items()}
    config = task.config
    _log.info(
        "round %d: training begins: %d epochs, batches of %d, learning rate %g",
        round_number, config.epochs, config.batch_size, config.learning_rate,
    )  # fmt: skip
    progress.told = epoch_teller(round_number, config.epochs)
    update = trainer.train(
        params,
        TrainConfig(
            round=round_number,
            epochs=config.epochs,
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            optimizer=OptimizerSettings(name=config.optimizer.name, parameters=config.optimizer.parameters),
            proximal_mu=config.proximal_mu,
            seed=config.seed,
            parameters=config.parameters,
            on_epoch=progress.on_epoch,
            check_cancelled=progress.check_cancelled,
        ),
    )
    seconds = time.perf_counter() - began
    progress.check_cancelled()
    delta = delta_of(update, base.params, announced=announced_examples(trainer))
    metrics, left_out = finite_metrics(update.metrics)
    if left_out:
        _log.warning("round %d: metrics left out because they are not finite: %s", round_number, left_out)
    told = _words(metrics)
    _log.info("round %d: trained on %d examples in %.2f s: %s", round_number, update.num_examples, seconds, told)
    return Parcel(
        body=body_of(delta),
        examples=int(update.num_examples),
        metrics=metrics,
        train_seconds=seconds,
        epochs=tuple(progress.epochs),
        machine=machine(trainer_backend(trainer)),
    )


def initial(trainer: Trainer, given: LoadedModel | None, task: InitTask) -> Parcel:
    """Make the initial model: the given one, if the job starts from a checkpoint, else the trainer's.

    Of a given one, tensors that ``model.exclude`` names are left out: a whole model may be what others go on from.

    Raises:
        ArchitectureError: The given one has other tensors than the trainer's own.
        ClientError: The trainer returned something else than a model.
        Exception: Whatever the trainer raised.
    """
    began = time.perf_counter()
    checked = checked_params(trainer.init(task.seed))
    if given is not None:
        arrays = checked_params(given.params, what="the checkpoint")
        checked = _fitting(trainer.shared(arrays) if isinstance(trainer, Personal) else arrays, checked)
    params = {name: np.array(array) for name, array in checked.items()}  # the trainer may use its arrays again
    seconds = time.perf_counter() - began
    return Parcel(
        body=body_of(params),
        examples=announced_examples(trainer) or 1,
        train_seconds=seconds,
        machine=machine(trainer_backend(trainer)),
    )


def _fitting(given: Params, own: Params) -> Params:
    """Return the given model, if it has the tensors of the trainer's own.

    Raises:
        ArchitectureError: It has not; names the first that differs.
    """
    try:
        compare_manifest(Manifest.of_arrays(own), Manifest.of_arrays(given))
    except Refusal as refusal:
        message = f"the checkpoint of model.initFrom does not fit the model: {refusal.detail}"
        raise ArchitectureError(message) from refusal
    return given


def evaluate(trainer: Trainer, model: LoadedModel, task: EvaluateTask) -> tuple[Metrics, list[str]]:
    """Evaluate a model: finite metrics, and the names of those that are not.

    Raises:
        TrainerError: The trainer cannot evaluate, or returned no metrics.
        Exception: Whatever the trainer raised.
    """
    if not callable(getattr(trainer, "evaluate", None)):
        raise TrainerError(f"trainer {type(trainer).__name__} has no method evaluate")
    params = {name: np.array(array) for name, array in model.params.items()}
    metrics = trainer.evaluate(params, EvalConfig(round=task.base.round, parameters=task.parameters))
    return finite_metrics(metrics, what="evaluate")


def trainer_backend(trainer: Trainer) -> Literal["cpu", "gpu"]:
    """Where a trainer computes: ``cpu``, unless it says ``gpu``."""
    return "gpu" if getattr(trainer, "backend", "cpu") == "gpu" else "cpu"


def announced_examples(trainer: Trainer) -> int | None:
    """The number of training examples that a trainer says it holds.

    Raises:
        TrainerError: It is no positive integer.
    """
    count = getattr(trainer, "num_examples", None)
    if count is None:
        return None
    check_examples(count, None)
    return int(count)


def explain(error: Exception, what: str) -> Failure:
    """Put an exception out of a trainer into one line; the traceback goes to the log."""
    if isinstance(error, ClientError):
        _log.error("%s: %s", what, error)
        return Failure(reason=error.reason, message=str(error))
    _log.error("%s failed", what, exc_info=error)
    return Failure(reason=Reason.TRAINER_ERROR, message=one_line(error))


def guarded(function: Callable[[], Result], what: str) -> Callable[[], Result | Failure]:
    """A function that returns a `Failure` where the other raises."""

    def run() -> Result | Failure:
        try:
            return function()
        except GpuFailedError as error:
            # Whatever this process asks of its GPU fails from now on; its successor gets the same task again.
            _log.error("%s failed", what, exc_info=error)
            leave_termination(os.environ, error.reason, str(error))
            exit_now(EXIT_FATAL)
        except Cancelled as error:
            _log.info("%s: %s", what, error)
            return Failure(reason=Reason.TRAINER_ERROR, message=one_line(error))
        except Exception as error:  # noqa: BLE001 - trainers raise what they like
            return explain(error, what)
        except SystemExit as error:
            return explain(RuntimeError(f"the trainer called sys.exit({error.code})"), what)

    return run
