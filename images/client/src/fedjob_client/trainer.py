"""The interface between the client program and what it trains: write a `Trainer`, and it is a client of a job.

A manifest names the class as ``trainer: my_package.client:MyTrainer``. A scikit-learn estimator::

    import numpy as np
    from sklearn.linear_model import SGDClassifier
    from fedjob_client.trainer import ClientContext, EvalConfig, Metrics, Params, TrainConfig, Update

    class MyTrainer:
        def __init__(self, context: ClientContext) -> None:
            self.data = context.load_data()

        def init(self, seed: int) -> Params:
            return {"w": np.zeros((10, 64), np.float32), "b": np.zeros(10, np.float32)}

        def train(self, params: Params, config: TrainConfig) -> Update:
            model = SGDClassifier(loss="log_loss", random_state=config.seed % 2**32)
            model.coef_, model.intercept_ = params["w"], params["b"]
            for _ in range(config.epochs):
                model.partial_fit(self.data.train.x, self.data.train.y, classes=np.arange(10))
            return Update(params={"w": model.coef_, "b": model.intercept_}, num_examples=len(self.data.train))

        def evaluate(self, params: Params, config: EvalConfig) -> Metrics:
            scores = self.data.test.x @ params["w"].T + params["b"]
            return {"accuracy": float(np.mean(scores.argmax(1) == self.data.test.y))}

A PyTorch module is in the README of this distribution. Nothing here does I/O except `load_trainer`, which imports the
class.
"""

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias, cast, runtime_checkable

import numpy.typing as npt

from fedjob_client.data.dataset import Dataset
from fedjob_client.data.registry import load_dataset
from fedjob_client.errors import Cancelled, ClientError, TrainerError
from fedjob_protocol.config import DataConfig, Device, ModelConfig, Role

__all__ = [
    "Array",
    "Cancelled",
    "ClientContext",
    "EvalConfig",
    "Metrics",
    "OptimizerSettings",
    "Params",
    "TrainConfig",
    "Trainer",
    "Update",
    "load_trainer",
    "make_trainer",
]

MESSAGE_END: Final = 450
"""Of the message of an exception that is told in one line, so much of its beginning and of its end is kept."""
Array: TypeAlias = npt.NDArray[Any]
Params: TypeAlias = dict[str, Array]
"""A model: arrays by name, float32 or float64."""
Metrics: TypeAlias = dict[str, float]
"""Numbers by name; those that are not finite are left out of reports."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerSettings:
    """The optimizer as the manifest names it."""

    name: str = "SGD"
    parameters: Mapping[str, float] = field(default_factory=dict)


def _ignore_epoch(epoch: int, metrics: Mapping[str, float]) -> None:
    """Nobody listens: a trainer used without a client."""


def _never_cancelled() -> None:
    """Nobody cancels: a trainer used without a client."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """One local training, as the manifest's ``training`` says."""

    round: int
    """The round that is being trained, from 1."""
    epochs: int = 1
    """Passes over the client's data."""
    batch_size: int = 32
    learning_rate: float = 0.1
    """With the manifest's schedule already applied."""
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    proximal_mu: float = 0.0
    """Where the strategy is FedProx, its mu: add ``mu · (w - w_start)`` to the gradient. 0 means no such term."""
    seed: int = 0
    """The only source of randomness that a training may use, or the same job gives another model the next time."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """``training.parameters`` of the manifest, for trainers of your own."""
    on_epoch: Callable[[int, Mapping[str, float]], None] = _ignore_epoch
    """Call it after each epoch (from 1) with its metrics: they become the progress that people see.

    Raises `Cancelled` when nobody wants the result any more; let it pass.
    """
    check_cancelled: Callable[[], None] = _never_cancelled
    """Call it now and then within long epochs; raises `Cancelled` like `on_epoch`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalConfig:
    """One evaluation of a committed model."""

    round: int
    """The round that committed the model."""
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What one training found.

    Raises:
        TrainerError: Not exactly one of `params` and `delta` is given.
    """

    params: Params | None = None
    """The trained model; or else"""
    delta: Params | None = None
    """what to add to the model that the training started from."""
    num_examples: int
    """Training examples behind the update: its weight in the mean, from 1."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Training metrics, for the round log."""

    def __post_init__(self) -> None:
        if (self.params is None) == (self.delta is None):
            raise TrainerError("an Update has either params or delta: give exactly one of them")


@runtime_checkable
class Trainer(Protocol):
    """What a client needs from the thing it trains. All of it is called in one worker thread, one call at a time.

    `init` and `train` are needed to take part; `evaluate` only in an evaluator; `predict` only to answer ``/predict``.
    A trainer may have two attributes: ``num_examples``, the number of training examples that it holds (it is announced
    to the aggregator, and then no update may claim more), and ``num_test_examples``, the number of held-out ones.
    """

    def init(self, seed: int) -> Params:
        """Make the initial model. The client with the lowest index does it once per job."""
        ...

    def train(self, params: Params, config: TrainConfig) -> Update:
        """Train on the client's own data, starting from ``params`` (a copy that may be changed)."""
        ...

    def evaluate(self, params: Params, config: EvalConfig) -> Metrics:
        """Evaluate on held-out data."""
        ...

    def predict(self, params: Params, inputs: Array) -> Array:
        """Return one output per row of ``inputs``: values, or class probabilities as a matrix.

        ``params`` is read-only.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientContext:
    """Who a client is and what its job told it; given to the constructor of a trainer that wants it."""

    index: int
    """The client's index, unique in the job."""
    name: str
    group: str
    seed: int
    """The job's seed; the seed of one training is `TrainConfig.seed`."""
    model: ModelConfig
    """The manifest's ``model``."""
    data: DataConfig
    """The manifest's ``data`` for this client, with its part of the partition."""
    device: Device = Device.AUTO
    threads: int = 1
    """Threads that the client was told to compute with, from 1."""
    role: Role = Role.TRAINER

    def load_data(self) -> Dataset:
        """Read this client's part of the data that the manifest names.

        Raises:
            DataError: The data set is unknown or its files cannot be used.
        """
        return load_dataset(self.data, seed=self.seed, index=self.index, role=self.role)


TrainerFactory: TypeAlias = Callable[..., Any]


def load_trainer(reference: str, path: str | None = None) -> TrainerFactory:
    """Import a trainer class.

    Args:
        reference: ``package.module:Class``.
        path: Folder that is put in front of the import path.

    Raises:
        TrainerError: It cannot be imported, or is nothing that makes trainers.
    """
    module_name, _, attribute = reference.partition(":")
    if path is not None and path not in sys.path:
        sys.path.insert(0, path)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        where = path or "the installed packages"
        raise TrainerError(
            f"trainer {reference}: there is no module {error.name} (looked in {where}); install it or correct the name"
        ) from error
    except Exception as error:
        raise TrainerError(f"trainer {reference}: importing {module_name} failed: {one_line(error)}") from error
    target: Any = module
    for part in attribute.split("."):
        target = getattr(target, part, None)
    if not callable(target):
        raise TrainerError(f"trainer {reference}: {module_name} has no class {attribute}")
    return cast("TrainerFactory", target)


def make_trainer(factory: TrainerFactory, context: ClientContext) -> Trainer:
    """Construct a trainer, with the context if its constructor takes an argument, without if not.

    Raises:
        TrainerError: The constructor failed, or the result has no ``init`` and ``train``.
        ClientError: What the constructor raised on purpose, such as a `DataError` of `ClientContext.load_data`.
    """
    name = getattr(factory, "__qualname__", repr(factory))
    try:
        trainer = factory(context) if _takes_an_argument(factory) else factory()
    except ClientError:
        raise
    except Exception as error:
        raise TrainerError(f"trainer {name}: its constructor failed: {one_line(error)}") from error
    missing = [method for method in ("init", "train") if not callable(getattr(trainer, method, None))]
    if missing:
        raise TrainerError(f"trainer {name} has no method {' and no method '.join(missing)}")
    return cast("Trainer", trainer)


def one_line(error: BaseException) -> str:
    """An exception in one line: its type and message, the middle of a long one left out."""
    words = " ".join(str(error).split())
    if len(words) > 2 * MESSAGE_END + 5:
        words = f"{words[:MESSAGE_END]} ... {words[-MESSAGE_END:]}"
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def _takes_an_argument(factory: TrainerFactory) -> bool:
    try:
        inspect.signature(factory).bind(object())
    except (TypeError, ValueError):
        return False
    return True
