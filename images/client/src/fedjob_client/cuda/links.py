"""What one example adds: its loss, and the loss's derivative by its scores. Device functions, in float32.

Each takes the example's scores, writes the derivatives over them and returns the loss and whether the answer was right
(1 or 0). The formulas are those of `fedjob_client.models.linear`, ``logistic`` and ``softmax``: they are the reference.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numba import cuda

ZERO: Final = np.float32(0)
HALF: Final = np.float32(0.5)
ONE: Final = np.float32(1)


def linear(scores: Any, label: Any) -> Any:
    """``e²`` with ``e = score - y``; the kernels leave the factor 2 of its derivative to the end."""
    error = scores[0] - label
    scores[0] = error
    return error * error, 0


def logistic(scores: Any, label: Any) -> Any:
    """``log(1 + exp(s)) - y s`` by ``exp(-|s|)``, which never overflows; ``sigmoid(s) - y``."""
    score = scores[0]
    tail = np.float32(math.exp(-abs(score)))
    loss = np.float32(math.log1p(tail)) + max(score, ZERO) - label * score
    right = 1 if (score > ZERO) == (label > HALF) else 0
    scores[0] = (ONE if score > ZERO else tail) / (ONE + tail) - label
    return loss, right


def softmax(scores: Any, label: Any) -> Any:
    """``log Σ exp(s - max) - (s_y - max)``; ``softmax(s) - onehot(y)``."""
    best = 0
    for c in range(1, scores.shape[0]):
        if scores[c] > scores[best]:
            best = c
    top = scores[best]
    own = scores[label] - top
    total = ZERO
    for c in range(scores.shape[0]):
        scores[c] = np.float32(math.exp(scores[c] - top))
        total += scores[c]
    for c in range(scores.shape[0]):
        scores[c] /= total
    scores[label] -= ONE
    return np.float32(math.log(total)) - own, 1 if best == label else 0


LINKS: Final[Mapping[str, Callable[..., Any]]] = MappingProxyType(
    {
        "linear": cuda.jit(device=True)(linear),
        "logistic": cuda.jit(device=True)(logistic),
        "softmax": cuda.jit(device=True)(softmax),
    }
)
"""By the name of the model."""
