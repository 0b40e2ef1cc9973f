"""The simple forms: linear and logistic regression on one feature, as people try it with curl. Pure.

Linear: x uniform in (-5, 5), ``y = 3.5 x + 2 + noise``, the noise normal with standard deviation 0.5; full-batch
gradient descent of the mean squared error ``1/n Σ (w x + b - y)²``. From ``b = 0`` the intercept approaches 2 as
``2 (1 - (1 - 2 · learning_rate)^epochs)``: after 50 epochs at 0.01 it is 1.27, the bias of an optimiser that was
stopped.

Logistic: the same x, y is 1 with probability ``sigmoid(1.5 x - 0.75)``; full-batch gradient descent of the mean
cross-entropy. The answer has ``accuracy`` on the training examples besides ``w``, ``b`` and ``loss``.
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final

import numpy as np
from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from fedjob_client.data.dataset import Dataset, Split
from fedjob_client.data.synthetic import generator, linear_examples, logistic_examples
from fedjob_client.models.builtin import MODELS, BuiltinTrainer
from fedjob_client.models.logistic import LogisticRegression
from fedjob_client.trainer import Array, EvalConfig, TrainConfig
from fedjob_protocol.config import Device
from fedjob_protocol.errors import Refusal, Word

DEFAULT_EPOCHS: Final = 500
DEFAULT_SAMPLES: Final = 1000
MAX_EPOCHS: Final = 1_000_000
MAX_SAMPLES: Final = 1_000_000
MAX_WORK: Final = 2_000_000_000
"""Largest ``epochs * num_samples``: seconds to a minute."""
MAX_INPUTS: Final = 200_000


class SimpleModel(StrEnum):
    """The models of the simple forms."""

    LINEAR = "linear"
    LOGISTIC = "logistic"


LEARNING_RATE: Final = {SimpleModel.LINEAR: 0.01, SimpleModel.LOGISTIC: 0.1}
"""Defaults: with 500 epochs both come to rest."""

Finite = Annotated[float, Field(ge=-1e9, le=1e9, allow_inf_nan=False)]


class SimpleTrainRequest(BaseModel):
    """Body of ``POST /train``; all of it may be absent."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    w: Finite = 0.0
    """Slope to start from."""
    b: Finite = 0.0
    """Intercept to start from."""
    epochs: int = Field(
        default=DEFAULT_EPOCHS, ge=0, le=MAX_EPOCHS, validation_alias=AliasChoices("epochs", "num_epochs")
    )
    """Steps of gradient descent; ``num_epochs`` is the same."""
    learning_rate: float | None = Field(default=None, gt=0, le=1e3, allow_inf_nan=False)
    """Default 0.01 for linear, 0.1 for logistic regression."""
    num_samples: int = Field(default=DEFAULT_SAMPLES, ge=1, le=MAX_SAMPLES)
    """Examples to make."""
    noise: float = Field(default=0.5, ge=0, le=1e6, allow_inf_nan=False)
    """Standard deviation of the noise; linear only."""
    seed: int | None = Field(default=None, ge=0, le=2**63 - 1)
    """Of the examples; default is the client's index, so that each client has its own."""
    model: SimpleModel = SimpleModel.LINEAR


class SimpleTrainAnswer(BaseModel):
    """Answer of ``POST /train``."""

    w: float
    b: float
    backend: str = "cpu"
    """Where it was trained: ``cpu`` or ``gpu``."""
    model: SimpleModel
    loss: float
    """Mean squared error, or mean cross-entropy, over the examples at ``w`` and ``b``."""
    accuracy: float | None = None
    """Share of examples that are classified right; logistic only."""
    epochs: int
    learning_rate: float
    num_samples: int
    num_examples: int
    """The same as ``num_samples``, under the name that the aggregator weights by."""
    noise: float | None = None
    seed: int
    client_index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A model of one feature."""

    w: float = 0.0
    b: float = 0.0
    model: SimpleModel = SimpleModel.LINEAR


def train_simple(request: SimpleTrainRequest, *, index: int, device: Device = Device.CPU) -> SimpleTrainAnswer:
    """Make the examples and train on them.

    Args:
        request: What to do.
        index: The client's index.
        device: Where to compute.

    Raises:
        Refusal: ``bad-request``: too much work, or the training diverged.
        ClientError: A GPU was asked for, and it cannot be used or failed.
    """
    if request.epochs * request.num_samples > MAX_WORK:
        raise Refusal(Word.BAD_REQUEST, f"epochs * num_samples is more than {MAX_WORK}; ask for less of one of them")
    learning_rate = request.learning_rate or LEARNING_RATE[request.model]
    seed = index if request.seed is None else request.seed
    trainer = _trainer(request, seed, device)
    params = {name: np.full(1, value) for name, value in (("w", request.w), ("b", request.b))}
    if request.epochs:
        config = TrainConfig(
            round=1, epochs=request.epochs, batch_size=request.num_samples, learning_rate=learning_rate
        )
        trained = trainer.train(params, config).params
        assert trained is not None  # the built-in trainer returns parameters
        params = trained
    with np.errstate(over="ignore", invalid="ignore"):
        metrics = trainer.evaluate(params, EvalConfig(round=1))
    w, b = float(params["w"][0]), float(params["b"][0])
    if not all(math.isfinite(value) for value in (w, b, metrics["loss"])):
        raise Refusal(
            Word.BAD_REQUEST, f"the training diverged: a learning_rate of {learning_rate} is too large; try 0.01"
        )
    return SimpleTrainAnswer(
        w=w,
        b=b,
        backend=trainer.backend,
        model=request.model,
        loss=metrics["loss"],
        accuracy=metrics.get("accuracy"),
        epochs=request.epochs,
        learning_rate=learning_rate,
        num_samples=request.num_samples,
        num_examples=request.num_samples,
        noise=request.noise if request.model is SimpleModel.LINEAR else None,
        seed=seed,
        client_index=index,
    )


def predict_simple(line: Line, inputs: Array) -> tuple[Array, Array | None]:
    """Values of a line, or classes and probabilities.

    Args:
        line: The model.
        inputs: ``(n,)`` or ``(n, 1)``.

    Raises:
        Refusal: ``bad-request``: the inputs have another shape.
    """
    if inputs.ndim > 2 or (inputs.ndim == 2 and inputs.shape[1] != 1):
        raise Refusal(Word.BAD_REQUEST, f"inputs: a list of numbers is needed, this one has shape {inputs.shape}")
    x = inputs.reshape(-1, 1)
    if line.model is SimpleModel.LINEAR:
        return x[:, 0] * line.w + line.b, None
    params = {"w": np.array([line.w]), "b": np.array([line.b])}
    probabilities = LogisticRegression().outputs(params, x)
    return probabilities.argmax(axis=1), probabilities


def _trainer(request: SimpleTrainRequest, seed: int, device: Device) -> BuiltinTrainer:
    source = generator((seed,))
    if request.model is SimpleModel.LINEAR:
        x, y = linear_examples(source, request.num_samples, noise=request.noise)
        classes = None
    else:
        x, y = logistic_examples(source, request.num_samples)
        classes = 2
    examples = Split(x=x, y=y)
    return BuiltinTrainer(MODELS[request.model]({}), Dataset.of(examples, examples, num_classes=classes), device=device)
