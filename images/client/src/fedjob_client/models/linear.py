"""Linear regression: ``y ≈ x · w + b``, mean squared error.

Loss of an example ``(x · w + b - y)²``; gradient of the mean over n: ``2/n · Xᵀe`` for w and ``2/n · Σe`` for b with
``e = X w + b - y``. Parameters ``w`` (features,) and ``b`` (1,), float64.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from fedjob_client.models.model import Sums, features_misfit
from fedjob_client.trainer import Array, Params

GRAM_MAX_FEATURES: Final = 1024
"""The Gram matrix of more features takes more memory than it is worth (8 MiB at this many)."""
GRAM_FEATURES_PER_EPOCH: Final = 8
"""Building the Gram matrix costs about as much as one plain epoch for each 8 features (measured at 10 and 100)."""


class LinearRegression:
    """The model ``linear``."""

    dtype: np.dtype[Any] = np.dtype(np.float64)
    is_classifier = False
    takes_images = False

    def init(
        self,
        generator: np.random.Generator,  # noqa: ARG002 - the loss is convex: zero is as good a start as any
        shape: tuple[int, ...],
        classes: int | None,  # noqa: ARG002 - labels are values
    ) -> Params:
        """Zeros."""
        return {"w": np.zeros(shape), "b": np.zeros(1)}

    def misfit(self, params: Params, shape: tuple[int, ...]) -> str | None:
        """See `fedjob_client.models.model.Model.misfit`."""
        return features_misfit(params, "w", shape)

    def gradient(self, params: Params, x: Array, y: Array, out: Params) -> Sums:
        """See `fedjob_client.models.model.Model.gradient`."""
        error = x @ params["w"]
        error += params["b"]
        error -= y
        np.matmul(error, x, out=out["w"])
        out["w"] *= 2 / len(y)
        out["b"][0] = 2 / len(y) * error.sum()
        return Sums(float(error @ error))

    def score(self, params: Params, x: Array, y: Array) -> Sums:
        """See `fedjob_client.models.model.Model.score`."""
        error = self.outputs(params, x) - y
        return Sums(float(error @ error))

    def outputs(self, params: Params, x: Array) -> Array:
        """Values ``(n,)``."""
        return np.asarray(x @ params["w"] + params["b"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Gram:
    """All that full-batch gradient descent on a linear regression needs of its data.

    With ``Z = [X 1]``: ``matrix = ZᵀZ/n``, ``cross = Zᵀy/n``, ``power = yᵀy/n``. The gradient of the mean squared error
    is ``2 (matrix · [w b] - cross)`` and the loss ``[w b]ᵀ matrix [w b] - 2 crossᵀ [w b] + power``: the iterates are
    those of the plain loop, each epoch costs features² instead of examples · features.

    Rounding: both ways are float64 with other orders of summation; iterates agree within 1e-9 of the largest weight for
    features of order 1 to 10, as the tests check. The loss is a difference, so its error is about 1e-15 · power.
    """

    matrix: Array
    cross: Array
    power: float
    examples: int

    @classmethod
    def of(cls, x: Array, y: Array) -> "Gram":
        """Of features ``(n, d)`` and values ``(n,)``, both float64."""
        examples, features = x.shape
        matrix = np.empty((features + 1, features + 1))
        matrix[:-1, :-1] = x.T @ x
        matrix[-1, :-1] = matrix[:-1, -1] = x.sum(axis=0)
        matrix[-1, -1] = examples
        cross = np.append(y @ x, y.sum())
        return cls(matrix=matrix / examples, cross=cross / examples, power=float(y @ y) / examples, examples=examples)

    def gradient(self, params: Params, out: Params) -> Sums:
        """As `LinearRegression.gradient` over all examples."""
        weights = np.append(params["w"], params["b"])
        half = self.matrix @ weights
        loss = float(weights @ half) - 2 * float(self.cross @ weights) + self.power
        half -= self.cross
        np.multiply(half[:-1], 2, out=out["w"])
        out["b"][0] = 2 * half[-1]
        return Sums(max(loss, 0.0) * self.examples)


def gram_pays(features: int, epochs: int) -> bool:
    """Whether full-batch training should use `Gram`. By size only: the same job takes the same way each time."""
    return features <= min(GRAM_MAX_FEATURES, GRAM_FEATURES_PER_EPOCH * epochs)
