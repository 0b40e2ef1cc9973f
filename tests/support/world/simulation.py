"""Virtual time, and the faults that a seed draws."""

import heapq
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import NamedTuple

from tests.support.builders import EPOCH

Effect = Callable[[], None]


class Simulation:
    """Runs effects in the order of their virtual time.

    Args:
        seed: Everything that is drawn comes from it.
    """

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self._seconds = 0.0
        self._queue: list[tuple[float, int, Effect]] = []
        self._count = 0

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return self._seconds

    @property
    def now(self) -> datetime:
        """The wall clock."""
        return EPOCH + timedelta(seconds=self.seconds)

    def later(self, delay: float, effect: Effect) -> None:
        """Have an effect happen after so many seconds."""
        self._count += 1
        heapq.heappush(self._queue, (self._seconds + delay, self._count, effect))

    def soon(self, effect: Effect, *, most: float = 0.02) -> None:
        """Have an effect happen within a moment."""
        self.later(self.rng.random() * most, effect)

    def run(self, *, until: Callable[[], bool], steps: int) -> bool:
        """Let effects happen until a condition holds; whether it came to hold within so many of them."""
        for _ in range(steps):
            if until():
                return True
            if not self._queue:
                return False
            self._seconds, _, effect = heapq.heappop(self._queue)
            effect()
        return until()


class Fault(NamedTuple):
    """Something that went wrong, so that it can go wrong again in the same place."""

    name: str
    nth: int
    """At which of the opportunities of its kind, counted from 1."""


@dataclass(kw_only=True)
class Faults:
    """What goes wrong, how often, and how often at most, so that every schedule comes to an end.

    A rate is a probability per opportunity; ``budget`` is the number of faults left.
    """

    rng: Random
    rates: dict[str, float]
    budget: int
    quiet_rounds: int = 0
    """Nothing goes wrong before so many rounds are committed; 0 is from the beginning, 1 from the initial model on."""
    happened: list[Fault] = field(default_factory=list)
    _opportunities: Counter[str] = field(default_factory=Counter)

    def strikes(self, name: str) -> bool:
        """Whether this goes wrong now."""
        self._opportunities[name] += 1
        fault = Fault(name, self._opportunities[name])
        if self.budget <= 0 or not self._is_drawn(fault):
            return False
        self.budget -= 1
        self.happened.append(fault)
        return True

    def _is_drawn(self, fault: Fault) -> bool:
        rate = self.rates.get(fault.name)
        return bool(rate) and self.quiet_rounds <= 0 and self.rng.random() < rate


@dataclass(kw_only=True)
class Planned(Faults):
    """Exactly these faults, where the schedule comes to their opportunities."""

    plan: frozenset[Fault]

    def _is_drawn(self, fault: Fault) -> bool:
        return fault in self.plan


RATES = {
    "operator killed": 0.01,
    "operator doubled": 0.03,
    "status conflict": 0.03,
    "aggregator killed": 0.03,
    "aggregator restarted in place": 0.03,
    "client killed": 0.02,
    "evaluator killed": 0.05,
    "request lost": 0.03,
    "request duplicated": 0.03,
    "request delayed": 0.03,
    "answer lost": 0.03,
    "storage full": 0.2,
    "suspended": 0.03,
    "deadline edited": 0.03,
}
"""What can go wrong, per opportunity."""


STANDBY_RATES = {**RATES, "volume lost": 0.03, "aggregator frozen": 0.03}
"""What can go wrong where there are standbys."""


def draw_faults(rng: Random, rates: dict[str, float] = RATES) -> Faults:
    """Draw which faults a schedule has: a few kinds, more or less often, from the beginning or later."""
    kinds = rng.sample(sorted(rates), rng.randint(1, len(rates)))
    boost = rng.choice((1.0, 3.0, 10.0))
    return Faults(
        rng=rng,
        rates={kind: min(rates[kind] * boost, 0.5) for kind in kinds},
        budget=rng.randint(1, 8),
        quiet_rounds=rng.choice((0, 1, 1, 2)),
    )


def no_faults(rng: Random) -> Faults:
    """Nothing goes wrong."""
    return Faults(rng=rng, rates={}, budget=0)


def exactly(faults: Iterable[Fault]) -> Callable[[Random], Faults]:
    """These faults and no others: a schedule that is to be repeated, or is tried with fewer of its faults."""
    plan = frozenset(Fault(*fault) for fault in faults)
    return lambda rng: Planned(rng=rng, rates={}, budget=len(plan), plan=plan)
