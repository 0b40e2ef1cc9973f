"""Strategies that begin with the weighted mean of the updates: averaging, and optimizers on the aggregator.

The mean of the updates is taken as a gradient's place: Reddi et al., "Adaptive Federated Optimization", ICLR 2021,
Algorithm 1. There, Delta_t is the mean of the deltas, so an optimizer goes along it, not against it. All arithmetic is
in float64, element by element.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from typing_extensions import override

from fedjob_aggregator.strategy import NO_SLOTS, Floats, MeanStrategy

MOMENTUM: Final = "momentum"
"""Slot of the running mean, m_t."""
SQUARES: Final = "squares"
"""Slot of the running mean of squares, v_t."""


@dataclass(frozen=True, kw_only=True)
class FedAvg(MeanStrategy):
    """Averaging: x_{t+1} = x_t + Delta_t.

    McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017,
    Algorithm 1, last line. FedProx is the same here (Li et al., "Federated Optimization in Heterogeneous Networks",
    MLSys 2020, Algorithm 2): its proximal term, equation 2, is the clients' business.
    """

    clip_norm: float | None = None

    @property
    @override
    def slots(self) -> Mapping[str, float]:
        return NO_SLOTS

    @override
    def advance(self, slot: str, before: Floats, mean: Floats) -> Floats:
        raise KeyError(slot)

    @override
    def change(self, mean: Floats, slots: Mapping[str, Floats]) -> Floats:
        return mean


@dataclass(frozen=True, kw_only=True)
class FedAvgM(MeanStrategy):
    """Momentum on the aggregator: v_t = beta v_{t-1} + Delta_t, x_{t+1} = x_t + eta v_t, v_{-1} = 0.

    Hsu et al., "Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification", 2019,
    the update of FedAvgM: v <- beta v + Delta w, w <- w - v, there with the sign of a gradient. Here eta is
    `server_learning_rate`, beta `momentum`.
    """

    server_learning_rate: float
    momentum: float
    clip_norm: float | None = None

    @property
    @override
    def slots(self) -> Mapping[str, float]:
        return {MOMENTUM: 0.0}

    @override
    def advance(self, slot: str, before: Floats, mean: Floats) -> Floats:
        return self.momentum * before + mean

    @override
    def change(self, mean: Floats, slots: Mapping[str, Floats]) -> Floats:
        return self.server_learning_rate * slots[MOMENTUM]


@dataclass(frozen=True, kw_only=True)
class Adaptive(MeanStrategy, ABC):
    """What FedAdagrad, FedYogi and FedAdam share: Reddi et al. 2021, Algorithm 2, with v_{-1} = tau^2 and m_{-1} = 0.

    m_t = beta_1 m_{t-1} + (1 - beta_1) Delta_t; x_{t+1} = x_t + eta m_t / (sqrt(v_t) + tau). No bias correction, as
    there.
    """

    server_learning_rate: float
    beta1: float
    tau: float
    clip_norm: float | None = None

    @property
    @override
    def slots(self) -> Mapping[str, float]:
        return {MOMENTUM: 0.0, SQUARES: self.tau**2}

    @abstractmethod
    def next_squares(self, before: Floats, squares: Floats) -> Floats:
        """The line of Algorithm 2 that tells the three apart: v_t from v_{t-1} and Delta_t^2."""

    @override
    def advance(self, slot: str, before: Floats, mean: Floats) -> Floats:
        if slot == MOMENTUM:
            return self.beta1 * before + (1.0 - self.beta1) * mean
        return self.next_squares(before, mean * mean)

    @override
    def change(self, mean: Floats, slots: Mapping[str, Floats]) -> Floats:
        return self.server_learning_rate * slots[MOMENTUM] / (np.sqrt(slots[SQUARES]) + self.tau)


@dataclass(frozen=True, kw_only=True)
class FedAdagrad(Adaptive):
    """Reddi et al. 2021, Algorithm 2: v_t = v_{t-1} + Delta_t^2."""

    @override
    def next_squares(self, before: Floats, squares: Floats) -> Floats:
        return before + squares


@dataclass(frozen=True, kw_only=True)
class FedAdam(Adaptive):
    """Reddi et al. 2021, Algorithm 2: v_t = beta_2 v_{t-1} + (1 - beta_2) Delta_t^2."""

    beta2: float

    @override
    def next_squares(self, before: Floats, squares: Floats) -> Floats:
        return self.beta2 * before + (1.0 - self.beta2) * squares


@dataclass(frozen=True, kw_only=True)
class FedYogi(Adaptive):
    """Reddi et al. 2021, Algorithm 2: v_t = v_{t-1} - (1 - beta_2) Delta_t^2 sign(v_{t-1} - Delta_t^2)."""

    beta2: float

    @override
    def next_squares(self, before: Floats, squares: Floats) -> Floats:
        return before - (1.0 - self.beta2) * squares * np.sign(before - squares)
