"""Stochastic gradient descent with momentum, over the parameters as one vector.

With gradient g of the batch's mean loss, ``v ← momentum · v + g`` and ``p ← p - learningRate · v`` (Sutskever et al.,
ICML 2013, equations 1 and 2, with the learning rate outside the velocity); ``weightDecay`` adds ``weightDecay · p``
to g first. The velocity starts at zero in each round: optimizer state is not kept across rounds.

Same seed, data and parameters: the same bits, on one CPU type with one thread.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from pydantic import Field

from fedjob_client.errors import TrainerError
from fedjob_client.models.model import Model, Sums, flat, training_metrics
from fedjob_client.parameters import read_parameters
from fedjob_client.trainer import Array, Metrics, Params, TrainConfig
from fedjob_protocol.wire import Message

NAME: Final = "SGD"

Gradient = Callable[[Params, Array, Array, Params], Sums]
"""As `Model.gradient`."""


class SgdParameters(Message):
    """``training.optimizer.parameters`` of SGD."""

    momentum: float = Field(default=0.0, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0, le=1e3)


class Sgd:
    """One training's optimizer.

    Args:
        params: Parameters to start from; copied.
        model: The model that they belong to.
        config: Learning rate and optimizer.

    Raises:
        TrainerError: The optimizer or one of its parameters is not known.
    """

    def __init__(self, params: Params, model: Model, config: TrainConfig) -> None:
        if config.optimizer.name != NAME:
            raise TrainerError(f"training.optimizer.name: {config.optimizer.name!r} is not known; known: {NAME}")
        where = "training.optimizer.parameters"
        settings = read_parameters(SgdParameters, config.optimizer.parameters, where=where, error=TrainerError)
        self._vector, self.params = flat(params, model.dtype)
        """The parameters as they stand."""
        self._gradient, self.gradient = flat(params, model.dtype)
        """Where the gradient of the next step is written."""
        self._velocity = np.zeros_like(self._vector) if settings.momentum else None
        self._scratch = np.empty_like(self._vector)
        self._learning_rate = config.learning_rate
        self._momentum, self._weight_decay = settings.momentum, settings.weight_decay

    def step(self) -> None:
        """Move the parameters against `gradient`."""
        gradient = self._gradient
        if self._weight_decay:
            np.multiply(self._vector, self._weight_decay, out=self._scratch)
            gradient += self._scratch
        if self._velocity is not None:
            self._velocity *= self._momentum
            self._velocity += gradient
            gradient = self._velocity
        np.multiply(gradient, self._learning_rate, out=self._scratch)
        self._vector -= self._scratch


def train_batches(model: Model, params: Params, x: Array, y: Array, config: TrainConfig) -> tuple[Params, Metrics]:
    """Train with mini-batches, shuffled anew in each epoch by ``config.seed`` alone.

    Metrics are of the parameters as they were at each batch, not of the epoch's end.

    Returns:
        The trained parameters and the last epoch's metrics.
    """
    optimizer = Sgd(params, model, config)
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(config.seed)))
    metrics: Metrics = {}
    for epoch in range(1, config.epochs + 1):
        order = generator.permutation(len(y))
        loss, correct = 0.0, 0
        for begin in range(0, len(y), config.batch_size):
            rows = order[begin : begin + config.batch_size]
            sums = model.gradient(optimizer.params, x[rows], y[rows], optimizer.gradient)
            optimizer.step()
            loss += sums.loss
            correct += sums.correct
            config.check_cancelled()
        metrics = training_metrics(model, Sums(loss, correct), len(y))
        config.on_epoch(epoch, metrics)
    return optimizer.params, metrics


def train_full_batch(
    model: Model, gradient: Callable[[Params, Params], Sums], params: Params, examples: int, config: TrainConfig
) -> tuple[Params, Metrics]:
    """Train with one step per epoch, over all examples in their own order.

    Args:
        model: The model.
        gradient: Of parameters; writes the gradient over all examples to its second argument.
        params: Parameters to start from.
        examples: Number of examples.
        config: Epochs, learning rate, optimizer.

    Returns:
        The trained parameters, and the metrics of those that the last step started from.
    """
    optimizer = Sgd(params, model, config)
    metrics: Metrics = {}
    for epoch in range(1, config.epochs + 1):
        sums = gradient(optimizer.params, optimizer.gradient)
        optimizer.step()
        metrics = training_metrics(model, sums, examples)
        config.on_epoch(epoch, metrics)
    return optimizer.params, metrics
