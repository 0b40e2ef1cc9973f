"""Optimizers of the built-in models, over the parameters as one vector.

Each lives for one training: state is not kept across rounds, so nothing but the model decides what a client does next.
All begin with the gradient g of the batch's mean loss at the parameters p, to which they add:

- ``mu · (p - start)`` where the job's strategy is FedProx (Li et al., "Federated Optimization in Heterogeneous
  Networks", MLSys 2020, equation 2: the gradient of mu/2 · |p - start|², with the model that the round began with);
- ``weightDecay · p``.
"""

from typing import Protocol

import numpy as np

from fedjob_client.errors import TrainerError
from fedjob_client.models.model import Model, flat
from fedjob_client.parameters import read_parameters
from fedjob_client.trainer import Array, Params, TrainConfig
from fedjob_protocol.optimizers import OPTIMIZERS, AdamParameters, SgdParameters


class Rule(Protocol):
    """How a gradient becomes a step."""

    weight_decay: float

    def step(self, gradient: Array) -> Array:
        """What to take off the parameters, times the learning rate; not to be changed by the caller."""
        ...


class Sgd:
    """Gradient descent with momentum: ``v ← momentum · v + g``, the step is v.

    Sutskever et al., ICML 2013, equations 1 and 2, with the learning rate outside the velocity.

    Args:
        settings: Momentum and weight decay.
    """

    def __init__(self, settings: SgdParameters) -> None:
        self.weight_decay = settings.weight_decay
        self._momentum = settings.momentum
        self._velocity: Array | None = None

    def step(self, gradient: Array) -> Array:
        """See `Rule.step`."""
        if not self._momentum:
            return gradient
        if self._velocity is None:
            self._velocity = np.zeros_like(gradient)
        self._velocity *= self._momentum
        self._velocity += gradient
        return self._velocity


class Adam:
    """Kingma, Ba, "Adam: A Method for Stochastic Optimization", arXiv:1412.6980, algorithm 1.

    ``m ← beta1 · m + (1 - beta1) · g``, ``v ← beta2 · v + (1 - beta2) · g²``; the step is
    ``(m / (1 - beta1ᵗ)) / (sqrt(v / (1 - beta2ᵗ)) + epsilon)``, t counted from 1 in each training.

    Args:
        settings: The decays, epsilon, and weight decay, which is added to the gradient.
    """

    def __init__(self, settings: AdamParameters) -> None:
        self.weight_decay = settings.weight_decay
        self._settings = settings
        self._steps = 0
        self._mean: Array | None = None

    def step(self, gradient: Array) -> Array:
        """See `Rule.step`."""
        if self._mean is None:
            self._mean, self._square = np.zeros_like(gradient), np.zeros_like(gradient)
            self._scratch = np.empty_like(gradient)
        beta1, beta2 = self._settings.beta1, self._settings.beta2
        self._steps += 1
        mean, square, scratch = self._mean, self._square, self._scratch
        np.multiply(gradient, 1 - beta1, out=scratch)
        mean *= beta1
        mean += scratch
        np.multiply(gradient, gradient, out=scratch)
        scratch *= 1 - beta2
        square *= beta2
        square += scratch
        np.multiply(square, 1 / (1 - beta2**self._steps), out=scratch)
        np.sqrt(scratch, out=scratch)
        scratch += self._settings.epsilon
        np.divide(mean, scratch, out=scratch)
        scratch *= 1 / (1 - beta1**self._steps)
        return scratch


class Optimizer:
    """One training's parameters and how they move.

    Args:
        params: Parameters to start from; copied.
        model: The model that they belong to.
        config: Learning rate, optimizer, proximal term.

    Raises:
        TrainerError: The optimizer or one of its parameters is not known.
    """

    def __init__(self, params: Params, model: Model, config: TrainConfig) -> None:
        self._rule = _rule(config)
        self._vector, self.params = flat(params, model.dtype)
        """The parameters as they stand."""
        self._gradient, self.gradient = flat(params, model.dtype)
        """Where the gradient of the next step is written."""
        self._scratch = np.empty_like(self._vector)
        self._learning_rate, self._mu = config.learning_rate, config.proximal_mu
        self._start = self._vector.copy() if self._mu else None

    def step(self) -> None:
        """Move the parameters against `gradient`."""
        gradient, scratch = self._gradient, self._scratch
        if self._start is not None:
            np.subtract(self._vector, self._start, out=scratch)
            scratch *= self._mu
            gradient += scratch
        if self._rule.weight_decay:
            np.multiply(self._vector, self._rule.weight_decay, out=scratch)
            gradient += scratch
        np.multiply(self._rule.step(gradient), self._learning_rate, out=scratch)
        self._vector -= scratch


def optimizer_settings(config: TrainConfig) -> SgdParameters | AdamParameters:
    """The parameters of the optimizer that a manifest names, checked.

    Raises:
        TrainerError: The optimizer or one of its parameters is not known.
    """
    kind = OPTIMIZERS.get(config.optimizer.name)
    if kind is None:
        known = ", ".join(sorted(OPTIMIZERS))
        raise TrainerError(f"training.optimizer.name: {config.optimizer.name!r} is not known; known: {known}")
    where = "training.optimizer.parameters"
    return read_parameters(kind, config.optimizer.parameters, where=where, error=TrainerError)


def _rule(config: TrainConfig) -> Rule:
    settings = optimizer_settings(config)
    return Adam(settings) if isinstance(settings, AdamParameters) else Sgd(settings)
