"""Fixed-point arithmetic of the fold: how values become integers, and which updates fit. Pure; called before a fold.

A value x counts as the integer q = rint(x * 2^scaleBits), ties to even, and is weighted by an integer n. A round sums
n * q over its updates in int64. No sum can overflow when every update keeps n * max|q| <= 2^62 / participants: a bound
that does not depend on the other updates, so neither does the refusal.
"""

from typing import Final

from fedjob_protocol.errors import Refusal, Word

SUM_LIMIT: Final = 1 << 62
"""No sum of a round exceeds this; half of int64's range, so that one more addition is always safe."""


def factor(scale_bits: int) -> float:
    """2^scaleBits; multiplying a float32 by it is exact in float64."""
    return float(1 << scale_bits)


def quantized(value: float, scale_bits: int) -> int:
    """The integer that a finite value counts as; Python's `round` goes to even, as ``rint`` does."""
    return round(value * factor(scale_bits))


def check_range(largest: float, weight: int, participants: int, scale_bits: int) -> None:
    """Refuse an update that could make the round's sums overflow.

    Args:
        largest: Largest absolute value in the update; finite.
        weight: The integer that multiplies every value of the update, from 0.
        participants: How many updates the round can have at most.
        scale_bits: Fixed-point scale of the round.

    Raises:
        Refusal: ``value-out-of-range`` when weight * max|q| > 2^62 / participants.
    """
    product = weight * quantized(largest, scale_bits)
    if product > SUM_LIMIT // participants:
        raise Refusal(
            Word.VALUE_OUT_OF_RANGE,
            f"the largest absolute value is {largest:.9g} and the weight {weight}: with scaleBits {scale_bits} that is "
            f"{product:.3g}, more than 2^62 / {participants} participants, so the sum could overflow; "
            "use a smaller learning rate, weighting Uniform or fewer scaleBits",
        )


def divisor(total_weight: int, scale_bits: int) -> float:
    """What a sum is divided by to give the mean: total weight * 2^scaleBits, rounded once to float64."""
    return float(total_weight << scale_bits)
