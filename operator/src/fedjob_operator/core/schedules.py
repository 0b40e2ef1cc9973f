"""How the learning rate changes over the rounds: a function of the spec and the round alone.

The operator computes it and sends each task the result, so that a client's work has the same identity whenever its task
is sent, and trainers of the user's own have schedules too. With r the round from 1, R all rounds of the job and L the
spec's learningRate:

- Constant: L
- Step: L · gamma^floor((r - 1) / everyRounds)
- Exponential: L · gamma^(r - 1)
- Cosine: m + (L - m) / 2 · (1 + cos(π (r - 1) / R)), m = minLearningRate (Loshchilov, Hutter, "SGDR: Stochastic
  Gradient Descent with Warm Restarts", arXiv:1608.03983, equation 5, without restarts)
"""

import math
from typing import Final, assert_never

from fedjob_operator.api.schedules import (
    ConstantSchedule,
    CosineSchedule,
    ExponentialSchedule,
    StepSchedule,
    schedule_of,
)
from fedjob_operator.api.spec import FederatedJobSpec

SMALLEST: Final = 1e-30
"""No schedule goes below: a learning rate is more than 0."""
DIGITS: Final = 12
"""Significant digits that are kept: two machines may differ in the last bit of a cosine, and then a task would not be
recognised as the same work."""


def learning_rate(spec: FederatedJobSpec, round_number: int) -> float:
    """Learning rate of one round.

    Args:
        spec: The job; if its rounds are raised, Cosine is stretched from then on.
        round_number: From 1.

    Raises:
        ValueError: There is no such schedule.
    """
    base, passed = spec.training.learning_rate, round_number - 1
    match schedule_of(spec.training.learning_rate_schedule):
        case ConstantSchedule():
            return base
        case StepSchedule(every_rounds=every, gamma=gamma):
            rate = base * gamma ** (passed // every)
        case ExponentialSchedule(gamma=gamma):
            rate = base * gamma**passed
        case CosineSchedule(min_learning_rate=least):
            rate = least + (base - least) / 2 * (1 + math.cos(math.pi * min(passed / spec.rounds, 1.0)))
        case other:
            assert_never(other)
    return float(f"{max(rate, SMALLEST):.{DIGITS}g}")
