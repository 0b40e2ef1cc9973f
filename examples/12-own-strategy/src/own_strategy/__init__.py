"""Two strategies of one's own: one that looks at all updates, and one that begins with their mean and remembers it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fedjob_aggregator.strategy import Finding, Floats, MeanStrategy, RobustStrategy, Selection, Updates
from fedjob_protocol.messages import Verdict


class GeometricMedian(RobustStrategy):
    """The weights of Weiszfeld's algorithm: an update counts the less, the farther it is from where the others are.

    Pillutla et al., "Robust Aggregation for Federated Learning", IEEE Transactions on Signal Processing 2022,
    Algorithm 2. All distances are made of those between pairs, so the updates are read twice, however many steps.
    """

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._weights = np.ones(1)

    @property
    def least_updates(self) -> int:
        """Of two updates nobody can say which one is wrong."""
        return 3

    def select(self, updates: Updates) -> Selection:
        """Find the weights; name those that hardly count."""
        squared = updates.squared_distances
        count = len(updates.clients)
        weights = np.full(count, 1 / count)
        for _ in range(self._steps):
            # |x_i - sum_j w_j x_j|^2, from the distances between pairs
            far = np.sqrt(np.maximum(squared @ weights - weights @ squared @ weights / 2, 1e-24))
            weights = (1 / far) / (1 / far).sum()
        self._weights = weights
        limit = 0.5 / count
        findings = {
            position: Finding(verdict=Verdict.OUTLIER, evidence={"weight": float(weight), "limit": limit})
            for position, weight in enumerate(weights)
            if weight < limit
        }
        return Selection(kept=tuple(range(count)), findings=findings)

    def combine(self, values: npt.NDArray[np.float32]) -> Floats:
        """The weighted mean of some elements."""
        mean: Floats = self._weights @ values.astype(np.float64)
        return mean


class Nesterov(MeanStrategy):
    """Nesterov's momentum on the aggregator: v <- beta v + delta; the model moves by delta + beta v."""

    def __init__(self, momentum: float) -> None:
        self._momentum = momentum

    @property
    def slots(self) -> Mapping[str, float]:
        """What it remembers: one array of the model's size, zeros at first."""
        return {"velocity": 0.0}

    @property
    def clip_norm(self) -> float | None:
        """No update is scaled down."""
        return None

    def advance(self, slot: str, before: Floats, mean: Floats) -> Floats:  # noqa: ARG002 - there is one slot only
        """The next velocity."""
        return self._momentum * before + mean

    def change(self, mean: Floats, slots: Mapping[str, Floats]) -> Floats:
        """What is added to the model."""
        return mean + self._momentum * slots["velocity"]


def geometric_median(parameters: Mapping[str, Any]) -> GeometricMedian:
    """Make the strategy of the manifest's parameters: `steps`."""
    known: dict[str, Any] = {"steps": 8, **parameters}
    steps = known.pop("steps")
    if known:
        raise ValueError(f"{', '.join(known)}: is no parameter; it has steps")
    if not isinstance(steps, int) or not 1 <= steps <= 100:
        raise ValueError(f"steps: {steps!r} is not a whole number from 1 to 100")
    return GeometricMedian(steps)


def nesterov(parameters: Mapping[str, Any]) -> Nesterov:
    """Make the strategy of the manifest's parameters: `momentum`."""
    known: dict[str, Any] = {"momentum": 0.5, **parameters}
    momentum = known.pop("momentum")
    if known:
        raise ValueError(f"{', '.join(known)}: is no parameter; it has momentum")
    return Nesterov(float(momentum))
