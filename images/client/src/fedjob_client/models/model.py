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
    def takes_images(self) -> bool:
        """Whether examples are images ``(height, width, channels)``; else they are rows of features."""
        ...

    def init(self, generator: np.random.Generator, shape: tuple[int, ...], classes: int | None) -> Params:
        """The initial parameters for examples of that shape: ``(features,)``, or that of an image.

        Raises:
            DataError: No model can be made for such examples.
        """
        ...

    def misfit(self, params: Params, shape: tuple[int, ...]) -> str | None:
        """How examples of a shape differ from what ``params`` were made for, naming both; ``None`` if they fit.

        What comes back follows the words for the examples: "… have 5 features, the model has 9".
        """
        ...

    def gradient(self, params: Params, x: Array, y: Array, out: Params) -> Sums:
        """Write the gradient of the mean loss over a batch to ``out``.

        Args:
            params: Parameters.
            x: Examples ``(n, …)``, of the model's type and in C order.
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


def features_misfit(params: Params, name: str, shape: tuple[int, ...]) -> str | None:
    """`Model.misfit` where the first axis of the array ``name`` is the features."""
    if name not in params:
        return f"cannot be used: the model has no array {name}, it has {', '.join(sorted(params))}"
    expected = params[name].shape[0]
    return None if shape == (expected,) else f"have {shape[0]} features, the model has {expected}"


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
