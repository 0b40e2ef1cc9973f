"""The definition of correct: the weighted mean in unbounded integers. Slow; the tests compare everything else with it.

Federated averaging (McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", 2017,
algorithm 1, last line) with deltas in the place of models: w_{t+1} = w_t + sum_k (n_k / n) * delta_k.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from fedjob_aggregator.aggregation.fixed_point import divisor, quantized

Float = TypeVar("Float", np.float32, np.float64)
Delta = npt.NDArray[np.float32]


def weighted_sum(updates: Sequence[tuple[Delta, int]], scale_bits: int) -> list[int]:
    """Exact sums of n * rint(x * 2^scaleBits) over the updates, one per element.

    Args:
        updates: Deltas of one tensor, all of one shape and finite, each with its weight n.
        scale_bits: Fixed-point scale.
    """
    sums = [0] * updates[0][0].size
    for delta, weight in updates:
        for index, value in enumerate(delta.reshape(-1).tolist()):
            sums[index] += weight * quantized(value, scale_bits)
    return sums


def mean(base: npt.NDArray[Float], sums: Sequence[int], total_weight: int, scale_bits: int) -> npt.NDArray[Float]:
    """The next value of one tensor: base + sum / (total weight * 2^scaleBits).

    Each of these roundings goes to the nearest, ties to even: the sum to float64, the divisor to float64, the
    quotient, the addition in float64, and the result to the type of ``base``.

    Args:
        base: The tensor of the model that the round started from.
        sums: As `weighted_sum` gives them.
        total_weight: Sum of the weights, at least 1.
        scale_bits: Fixed-point scale.
    """
    quotients = [float(value) / divisor(total_weight, scale_bits) for value in sums]
    result = base.reshape(-1).astype(np.float64) + np.array(quotients, dtype=np.float64)
    return result.astype(base.dtype).reshape(base.shape)
