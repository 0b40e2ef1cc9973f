"""A multi-layer perceptron: hidden layers of rectified linear units, softmax at the end, cross-entropy.

Layer l computes ``A_l = relu(A_{l-1} W_l + b_l)``, the last one ``A W + b`` without relu. Backwards, from
``D = (P - onehot(y)) / n``: ``A_{l-1}ᵀ D`` for W_l, column sums of D for b_l, then ``D Wₗᵀ`` where A_{l-1} > 0.
Parameters ``w1`` (features, hidden), ``b1`` (hidden,), ``w2``, …, float32.

Weights start uniform in ±sqrt(6 / inputs) (He et al., arXiv:1502.01852, equation 10: variance 2/inputs), biases at 0.

Parameters: ``hiddenSizes`` ([64]), the widths of the hidden layers.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from fedjob_client.models.model import Sums, features_misfit
from fedjob_client.models.softmax import known_classes, probabilities, softmax_delta, softmax_sums
from fedjob_client.trainer import Array, Params


class Mlp:
    """The model ``mlp``.

    Args:
        hidden_sizes: Widths of the hidden layers.
    """

    dtype: np.dtype[Any] = np.dtype(np.float32)
    is_classifier = True
    takes_images = False

    def __init__(self, hidden_sizes: Sequence[int]) -> None:
        self._hidden_sizes = tuple(hidden_sizes)

    def init(self, generator: np.random.Generator, shape: tuple[int, ...], classes: int | None) -> Params:
        """Uniform weights, zero biases; see the module."""
        widths = (*shape, *self._hidden_sizes, known_classes(classes))
        params: Params = {}
        for layer, (inputs, outputs) in enumerate(pairwise(widths), start=1):
            bound = np.sqrt(6 / inputs)
            params[f"w{layer}"] = generator.uniform(-bound, bound, size=(inputs, outputs)).astype(np.float32)
            params[f"b{layer}"] = np.zeros(outputs, dtype=np.float32)
        return params

    def misfit(self, params: Params, shape: tuple[int, ...]) -> str | None:
        """See `fedjob_client.models.model.Model.misfit`."""
        return features_misfit(params, "w1", shape)

    def gradient(self, params: Params, x: Array, y: Array, out: Params) -> Sums:
        """See `fedjob_client.models.model.Model.gradient`."""
        activations, scores = self._forward(params, x)
        delta, sums = softmax_delta(scores, y)
        for layer in range(len(activations), 0, -1):
            inputs = activations[layer - 1]
            np.matmul(inputs.T, delta, out=out[f"w{layer}"])
            np.sum(delta, axis=0, out=out[f"b{layer}"])
            if layer > 1:
                delta = delta @ params[f"w{layer}"].T
                delta *= inputs > 0
        return sums

    def score(self, params: Params, x: Array, y: Array) -> Sums:
        """See `fedjob_client.models.model.Model.score`."""
        return softmax_sums(self._forward(params, x)[1], y)

    def outputs(self, params: Params, x: Array) -> Array:
        """Probabilities ``(n, classes)``."""
        return probabilities(self._forward(params, x)[1])

    @staticmethod
    def _forward(params: Params, x: Array) -> tuple[list[Array], Array]:
        """Inputs of every layer, and the scores."""
        activations = [x]
        layers = len(params) // 2
        for layer in range(1, layers):
            hidden = activations[-1] @ params[f"w{layer}"]
            hidden += params[f"b{layer}"]
            np.maximum(hidden, 0, out=hidden)
            activations.append(hidden)
        scores = activations[-1] @ params[f"w{layers}"]
        scores += params[f"b{layers}"]
        return activations, scores
