"""Softmax regression: P(y = c) ∝ exp(x · w_c + b_c), cross-entropy; and the parts that the MLP shares.

Gradient of the mean over n with ``D = (P - onehot(y)) / n``: ``XᵀD`` for w, column sums of D for b.
Parameters ``w`` (features, classes) and ``b`` (classes,), float32.
"""

from typing import Any

import numpy as np

from fedjob_client.errors import DataError
from fedjob_client.models.model import Sums, features_misfit
from fedjob_client.trainer import Array, Params


class SoftmaxRegression:
    """The model ``softmax``."""

    dtype: np.dtype[Any] = np.dtype(np.float32)
    is_classifier = True
    takes_images = False

    def init(
        self,
        generator: np.random.Generator,  # noqa: ARG002 - the loss is convex: zero is as good a start as any
        shape: tuple[int, ...],
        classes: int | None,
    ) -> Params:
        """Zeros."""
        classes = known_classes(classes)
        return {"w": np.zeros((*shape, classes), dtype=np.float32), "b": np.zeros(classes, dtype=np.float32)}

    def misfit(self, params: Params, shape: tuple[int, ...]) -> str | None:
        """See `fedjob_client.models.model.Model.misfit`."""
        return features_misfit(params, "w", shape)

    def gradient(self, params: Params, x: Array, y: Array, out: Params) -> Sums:
        """See `fedjob_client.models.model.Model.gradient`."""
        delta, sums = softmax_delta(x @ params["w"] + params["b"], y)
        np.matmul(x.T, delta, out=out["w"])
        np.sum(delta, axis=0, out=out["b"])
        return sums

    def score(self, params: Params, x: Array, y: Array) -> Sums:
        """See `fedjob_client.models.model.Model.score`."""
        return softmax_sums(x @ params["w"] + params["b"], y)

    def outputs(self, params: Params, x: Array) -> Array:
        """Probabilities ``(n, classes)``."""
        return probabilities(x @ params["w"] + params["b"])


def known_classes(classes: int | None) -> int:
    """The number of classes.

    Raises:
        DataError: The data set has values instead of classes.
    """
    if classes is None:
        raise DataError("model: a classifier needs class labels; this data set has values, use the model linear")
    return classes


def softmax_delta(scores: Array, y: Array) -> tuple[Array, Sums]:
    """Derivative of the mean cross-entropy by the scores, written over them.

    Args:
        scores: ``(n, classes)``; overwritten.
        y: Classes ``(n,)``.

    Returns:
        ``(P - onehot(y)) / n``, and the sums of loss and right answers.
    """
    rows = np.arange(len(y))
    correct = int((scores.argmax(axis=1) == y).sum())
    scores -= scores.max(axis=1, keepdims=True)
    own = scores[rows, y]
    np.exp(scores, out=scores)
    total = scores.sum(axis=1)
    loss = float((np.log(total) - own).sum(dtype=np.float64))
    scores /= (total * len(y))[:, np.newaxis]
    scores[rows, y] -= np.float32(1 / len(y))
    return scores, Sums(loss, correct)


def softmax_sums(scores: Array, y: Array) -> Sums:
    """Sums of loss and right answers of scores ``(n, classes)``."""
    top = scores.max(axis=1)
    total = np.exp(scores - top[:, np.newaxis]).sum(axis=1)
    losses = np.log(total) + top - scores[np.arange(len(y)), y]
    return Sums(float(losses.sum(dtype=np.float64)), int((scores.argmax(axis=1) == y).sum()))


def probabilities(scores: Array) -> Array:
    """Softmax of scores ``(n, classes)``."""
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))
