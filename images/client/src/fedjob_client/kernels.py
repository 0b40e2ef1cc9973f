"""Numba kernels: one pass over the data where NumPy needs several. Imported only for problems that pay for it.

`fedjob_client.models.logistic` is the reference; the tests compare both on the same cases.
"""

import math
from typing import Final

import numba
import numpy as np

from fedjob_client.trainer import Array

BLOCK: Final = 512
"""Examples per block: its scores (2 KiB) and a column of it stay in the first-level cache."""
LOG2_E: Final = np.float32(1 / math.log(2))
LN2_HIGH: Final = np.float32(355 / 512)
"""ln 2 to nine bits, so that its product with a small integer is exact."""
LN2_LOW: Final = np.float32(math.log(2) - 355 / 512)
TAYLOR: Final = tuple(np.float32(1 / math.factorial(power)) for power in range(8))
T0, T1, T2, T3, T4, T5, T6, T7 = TAYLOR
LOWEST: Final = np.float32(-87.0)
"""exp of less is no normal float32; it is taken for this."""
BIAS: Final = np.int32(127)
MANTISSA_BITS: Final = np.int32(23)
HALF: Final = np.float32(0.5)
ZERO: Final = np.float32(0)
ONE: Final = np.float32(1)

# Sums may be reordered, so that they vectorise: always in the same way on one type of CPU. Everything else is exact.
REORDER: Final = {"reassoc", "contract", "nsz"}


@numba.njit(nogil=True, cache=True)
def _exp_of_minus_abs(scores: Array, powers: Array, out: Array) -> None:
    """``out = exp(-|scores|)`` in float32, within 2e-7 of the value: exp(v) = 2^k · exp(r), |r| <= ln(2)/2."""
    bits = powers.view(np.int32)
    for i in range(scores.size):
        v = max(-abs(scores[i]), LOWEST)
        k = np.floor(v * LOG2_E + HALF)
        bits[i] = (np.int32(k) + BIAS) << MANTISSA_BITS
        r = (v - k * LN2_HIGH) - k * LN2_LOW
        out[i] = T0 + r * (T1 + r * (T2 + r * (T3 + r * (T4 + r * (T5 + r * (T6 + r * T7))))))
    for i in range(scores.size):
        out[i] *= powers[i]


@numba.njit(nogil=True, cache=True, fastmath=REORDER)
def _scores(columns: Array, begin: int, w: Array, b: np.float32, out: Array) -> None:
    for i in range(out.size):
        out[i] = b
    for j in range(columns.shape[0]):
        weight = w[j]
        column = columns[j, begin : begin + out.size]
        for i in range(out.size):
            out[i] += weight * column[i]


@numba.njit(nogil=True, cache=True, fastmath=REORDER)
def _errors(scores: Array, tails: Array, y: Array) -> tuple[float, float, int]:
    """Write ``p - y`` over the scores; return the sum of the losses, of the errors, and the right answers."""
    product = 1.0
    linear = 0.0
    total = 0.0
    right = 0
    for i in range(scores.size):
        score, tail, label = scores[i], tails[i], y[i]
        product *= np.float64(ONE + tail)  # at most 2^512
        linear += np.float64(max(score, ZERO) - label * score)
        right += (score > ZERO) == (label > HALF)
        error = (ONE if score > ZERO else tail) / (ONE + tail) - label
        scores[i] = error
        total += np.float64(error)
    return np.log(product) + linear, total, right


@numba.njit(nogil=True, cache=True, fastmath=REORDER)
def _add_products(columns: Array, begin: int, errors: Array, gradient: Array) -> None:
    for j in range(columns.shape[0]):
        column = columns[j, begin : begin + errors.size]
        dot = ZERO
        for i in range(errors.size):
            dot += column[i] * errors[i]
        gradient[j] += np.float64(dot)


@numba.njit(nogil=True, cache=True)
def _logistic(columns: Array, y: Array, w: Array, b: np.float32, gradient: Array) -> tuple[float, float, int]:
    scores = np.empty(BLOCK, dtype=np.float32)
    tails = np.empty(BLOCK, dtype=np.float32)
    powers = np.empty(BLOCK, dtype=np.float32)
    loss, errors, right = 0.0, 0.0, 0
    for begin in range(0, y.size, BLOCK):
        size = min(BLOCK, y.size - begin)
        block, tail = scores[:size], tails[:size]
        _scores(columns, begin, w, b, block)
        _exp_of_minus_abs(block, powers[:size], tail)
        block_loss, block_errors, block_right = _errors(block, tail, y[begin : begin + size])
        _add_products(columns, begin, block, gradient)
        loss += block_loss
        errors += block_errors
        right += block_right
    return loss, errors, right


def logistic_gradient(columns: Array, y: Array, w: Array, b: float) -> tuple[Array, float, float, int]:
    """Sums over all examples for logistic regression, in one pass over the data.

    Args:
        columns: Features by column, C order: ``(features, n)`` float32.
        y: Labels 0 and 1, ``(n,)`` float32.
        w: Weights ``(features,)`` float32.
        b: Intercept.

    Returns:
        ``Xᵀ(p - y)`` in float64, ``Σ(p - y)``, the sum of the losses, the number of right answers. Within blocks sums
        are float32, across blocks float64: the result is within 1e-5 · n · max|X| of the exact one.
    """
    gradient = np.zeros(len(w), dtype=np.float64)
    loss, errors, right = _logistic(columns, y, w, np.float32(b), gradient)
    return gradient, float(errors), float(loss), int(right)
