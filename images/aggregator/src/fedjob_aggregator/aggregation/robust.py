"""Strategies that look at all updates of a round, and bound what some wrong ones can do.

The norms and distances are in float64; equal scores go by the clients' indices. None of them weights by examples: who
sends a wrong update may as well claim any number of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from fedjob_aggregator.strategy import Finding, Floats, RobustStrategy, Selection, Updates, all_of
from fedjob_protocol.messages import Verdict

FAR: Final = 2.0
"""An update that is so many times as far from the result as half of the updates are is called an outlier."""
ROUNDING: Final = 1e-9
"""A share of n that is so little above a whole number is that number."""

Values = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Median(RobustStrategy):
    """The median of each element; of an even number, the mean of the two in the middle.

    Yin et al., "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", ICML 2018, Definition 1.
    """

    @property
    @override
    def least_updates(self) -> int:
        return 1

    @override
    def select(self, updates: Updates) -> Selection:
        return all_of(updates)

    @override
    def combine(self, values: Values) -> Floats:
        return _mean_without_ends(values, (values.shape[0] - 1) // 2)

    @override
    def review(self, distances: Floats) -> Mapping[int, Finding]:
        return outliers(distances)


@dataclass(frozen=True, kw_only=True)
class TrimmedMean(RobustStrategy):
    """The mean of each element without its largest and its smallest values: Yin et al. 2018, Definition 2.

    Of n updates, k = ceil(beta n) are left out at each end, but never all: beta = `trim_fraction`.
    """

    trim_fraction: float

    @property
    @override
    def least_updates(self) -> int:
        return 1

    def trimmed(self, count: int) -> int:
        """How many of so many values are left out at each end."""
        return min(ceil(self.trim_fraction * count - ROUNDING), (count - 1) // 2)

    @override
    def select(self, updates: Updates) -> Selection:
        return all_of(updates)

    @override
    def combine(self, values: Values) -> Floats:
        return _mean_without_ends(values, self.trimmed(values.shape[0]))

    @override
    def review(self, distances: Floats) -> Mapping[int, Finding]:
        return outliers(distances)


@dataclass(frozen=True, kw_only=True)
class Krum(RobustStrategy):
    """The one update that is nearest to the others.

    Blanchard et al., "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent", NeurIPS 2017, the
    definition of Krum.
    Its score is the sum of its squared distances to its n - f - 2 nearest others; n >= 2f + 3, with f = `byzantine`.
    """

    byzantine: int

    @property
    @override
    def least_updates(self) -> int:
        return 2 * self.byzantine + 3

    def averaged(self, count: int) -> int:  # noqa: ARG002 - of the one that averages several
        """How many of so many updates are averaged."""
        return 1

    @override
    def select(self, updates: Updates) -> Selection:
        scores = krum_scores(updates.squared_distances, self.byzantine)
        count = len(updates.clients)
        order = np.argsort(scores, kind="stable")
        kept = sorted(int(position) for position in order[: self.averaged(count)])
        limit = float(scores[kept].max())
        return Selection(kept=tuple(kept), findings=_rejected(scores, kept, limit))

    @override
    def combine(self, values: Values) -> Floats:
        mean: Floats = values.mean(axis=0, dtype=np.float64)
        return mean


@dataclass(frozen=True, kw_only=True)
class MultiKrum(Krum):
    """The mean of the m updates with the best scores: Blanchard et al. 2017, "Multi-Krum".

    m = `most`, or n - f where it is not given; never more than n - f.
    """

    most: int | None = None

    @override
    def averaged(self, count: int) -> int:
        honest = count - self.byzantine
        return honest if self.most is None else min(self.most, honest)


def _mean_without_ends(values: Values, cut: int) -> Floats:
    """The mean of each column without its ``cut`` smallest and largest values; sorted as they are, which is faster."""
    ordered = np.sort(values, axis=0)
    mean: Floats = ordered[cut : values.shape[0] - cut].mean(axis=0, dtype=np.float64)
    return mean


def krum_scores(squared_distances: Floats, byzantine: int) -> Floats:
    """The score of each update: the sum of its squared distances to its n - f - 2 nearest others.

    Args:
        squared_distances: Of each pair.
        byzantine: f, with n >= 2f + 3.
    """
    count = squared_distances.shape[0]
    others = squared_distances.copy()
    np.fill_diagonal(others, np.inf)
    nearest = np.sort(others, axis=1)[:, : count - byzantine - 2]
    scores: Floats = nearest.sum(axis=1)
    return scores


def outliers(distances: Floats) -> dict[int, Finding]:
    """Name who is far from the result; a remark only, as rules on single elements leave no update out as a whole."""
    limit = FAR * float(np.median(distances))
    return {
        position: Finding(verdict=Verdict.OUTLIER, evidence={"distance": float(distance), "limit": limit})
        for position, distance in enumerate(distances)
        if distance > limit
    }


def _rejected(scores: Floats, kept: Sequence[int], limit: float) -> dict[int, Finding]:
    left_out = [position for position in range(len(scores)) if position not in set(kept)]
    return {
        position: Finding(verdict=Verdict.REJECTED, evidence={"score": float(scores[position]), "limit": limit})
        for position in left_out
    }
