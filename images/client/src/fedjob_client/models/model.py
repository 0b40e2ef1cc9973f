"""What the optimizer needs from a built-in model, and its parameters as one vector."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from fedjob_client.trainer import Array, Metrics, Params


@dataclass(frozen=True, slots=True)
class Sums:
    """What one batch adds to the metrics: sums, so that batches of different sizes add up."""

    loss: float
    """Sum of the examples' losses."""
    correct: int = 0
    """Examples that were classified right; 0 in regression."""


class Model(Protocol):
    """A model whose gradient is written out. Stateless: parameters come as arguments."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of parameters and features."""
        ...

    @property
    def is_classifier(self) -> bool:
        """Whether labels are classes; else they are values."""
        ...

    @property
    def first_weights(self) -> str:
        """Name of the array whose first axis is the features."""
        ...

    def init(self, generator: np.random.Generator, features: int, classes: int | None) -> Params:
        """The initial parameters for ``features`` inputs."""
        ...

    def gradient(self, params: Params, x: Array, y: Array, out: Params) -> Sums:
        """Write the gradient of the mean loss over a batch to ``out``.

        Args:
            params: Parameters.
            x: Features ``(n, features)``.
            y: Labels ``(n,)``: int64 for a classifier, else float64.
            out: Arrays like ``params``; all of them are overwritten.

        Returns:
            Sums of loss and right answers at ``params``.
        """
        ...

    def score(self, params: Params, x: Array, y: Array) -> Sums:
        """Sums of loss and right answers over a batch."""
        ...

    def outputs(self, params: Params, x: Array) -> Array:
        """Predictions: values ``(n,)``, or class probabilities ``(n, classes)``."""
        ...


def flat(params: Params, dtype: np.dtype[Any]) -> tuple[Array, Params]:
    """Copy parameters into one vector: an optimizer step is then one operation, however many arrays there are.

    Returns:
        The vector, and the parameters as views of it.
    """
    vector = np.empty(sum(array.size for array in params.values()), dtype=dtype)
    views: Params = {}
    begin = 0
    for name, array in params.items():
        view = vector[begin : begin + array.size].reshape(array.shape)
        view[...] = array
        views[name] = view
        begin += array.size
    return vector, views


def training_metrics(model: Model, sums: Sums, examples: int) -> Metrics:
    """Means of an epoch's sums, under the names that people see."""
    metrics = {"loss": sums.loss / examples}
    if model.is_classifier:
        metrics["accuracy"] = sums.correct / examples
    return metrics
