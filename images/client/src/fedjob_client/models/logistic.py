"""Logistic regression for two classes: P(y = 1) = sigmoid(s) with s = x · w + b, cross-entropy.

Loss of an example ``log(1 + exp(s)) - y s``; gradient of the mean over n: ``1/n · Xᵀ(p - y)`` for w and
``1/n · Σ(p - y)`` for b. Parameters ``w`` (features,) and ``b`` (1,), float32.
"""

from typing import Any, Final

import numpy as np

from fedjob_client.models.model import Sums, features_misfit
from fedjob_client.trainer import Array, Params

KERNEL_WORK: Final = 500_000_000
"""Features times examples times epochs from which the fused kernel pays for importing Numba (about half a second)."""


class LogisticRegression:
    """The model ``logistic``."""

    dtype: np.dtype[Any] = np.dtype(np.float32)
    is_classifier = True
    takes_images = False

    def init(
        self,
        generator: np.random.Generator,  # noqa: ARG002 - the loss is convex: zero is as good a start as any
        shape: tuple[int, ...],
        classes: int | None,  # noqa: ARG002 - always two
    ) -> Params:
        """Zeros."""
        return {"w": np.zeros(shape, dtype=np.float32), "b": np.zeros(1, dtype=np.float32)}

    def misfit(self, params: Params, shape: tuple[int, ...]) -> str | None:
        """See `fedjob_client.models.model.Model.misfit`."""
        return features_misfit(params, "w", shape)

    def gradient(self, params: Params, x: Array, y: Array, out: Params) -> Sums:
        """See `fedjob_client.models.model.Model.gradient`."""
        error, sums = _errors(_scores(params, x), y)
        error /= np.float32(len(y))
        np.matmul(error, x, out=out["w"])
        out["b"][0] = error.sum()
        return sums

    def score(self, params: Params, x: Array, y: Array) -> Sums:
        """See `fedjob_client.models.model.Model.score`."""
        return _errors(_scores(params, x), y)[1]

    def outputs(self, params: Params, x: Array) -> Array:
        """Probabilities of both classes ``(n, 2)``."""
        score = _scores(params, x)
        one = _probability(score, np.exp(-np.abs(score)))
        return np.column_stack([1 - one, one])


class FusedGradient:
    """The gradient over one set of examples by a kernel that reads them once; see `fedjob_client.kernels`.

    Agrees with `LogisticRegression.gradient` within 1e-5 times the largest feature.

    Args:
        x: Features ``(n, features)`` float32; kept as a copy by column.
        y: Labels ``(n,)``.
    """

    def __init__(self, x: Array, y: Array) -> None:
        self._columns = np.ascontiguousarray(x.T)
        self._labels = y.astype(np.float32)

    def __call__(self, params: Params, out: Params) -> Sums:
        """As `LogisticRegression.gradient` over all examples."""
        from fedjob_client.kernels import logistic_gradient  # noqa: PLC0415 - Numba takes half a second to import

        examples = len(self._labels)
        products, errors, loss, right = logistic_gradient(
            self._columns, self._labels, np.ascontiguousarray(params["w"]), float(params["b"][0])
        )
        out["w"][...] = products / examples
        out["b"][0] = errors / examples
        return Sums(loss, right)


def kernel_pays(elements: int, epochs: int) -> bool:
    """Whether full-batch training should use `FusedGradient`. By size only: the same job always takes the same way."""
    return elements * epochs >= KERNEL_WORK


def _scores(params: Params, x: Array) -> Array:
    score = x @ params["w"]
    score += params["b"]
    return np.asarray(score)


def _probability(score: Array, tail: Array) -> Array:
    """``sigmoid(score)`` from ``tail = exp(-|score|)``: never overflows."""
    return np.asarray(np.where(score > 0, np.float32(1), tail) / (1 + tail))


def _errors(score: Array, y: Array) -> tuple[Array, Sums]:
    """``p - y``, and the sums of loss and right answers."""
    tail = np.exp(-np.abs(score))
    error = _probability(score, tail)
    losses = np.log(1 + tail)
    losses += np.maximum(score, 0)
    losses -= np.where(y == 1, score, np.float32(0))
    right = int(((score > 0) == y).sum())
    error -= y
    return error, Sums(float(losses.sum(dtype=np.float64)), right)
