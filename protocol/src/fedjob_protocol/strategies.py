"""The built-in strategies: their names, and the range of each parameter. Data for who checks and who uses them.

The operator checks a manifest by it before it accepts a job, the aggregator once more before it opens a round.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from types import MappingProxyType
from typing import Final

ENTRY_POINTS: Final = "fedjob.strategies"
"""Group of entry points by which a package in the aggregator's environment offers strategies of its own."""
MOST_COMPARED: Final = 1000
"""Most updates of one round that are compared with each other, pair by pair: a million distances."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A number that a strategy takes."""

    meaning: str
    """One sentence for the reference."""
    least: float
    most: float
    is_above_least: bool = False
    """Whether it has to be more than ``least``."""
    is_below_most: bool = False
    """Whether it has to be less than ``most``."""
    is_whole: bool = False

    @property
    def range(self) -> str:
        """The range in words, after "must be"."""
        kind = "a whole number" if self.is_whole else "a number"
        lower = f"{'more than' if self.is_above_least else 'at least'} {self.least:g}"
        upper = f"{'less than' if self.is_below_most else 'at most'} {self.most:g}"
        return f"{kind}, {lower} and {upper}"

    def accepts(self, value: object) -> bool:
        """Whether a value of a manifest is in range; a boolean is no number, ``2.0`` is a whole one."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            return False
        if self.is_whole and value != int(value):
            return False
        above = value > self.least if self.is_above_least else value >= self.least
        return above and (value < self.most if self.is_below_most else value <= self.most)


PARAMETERS: Final[Mapping[str, Parameter]] = MappingProxyType(
    {
        "mu": Parameter(
            meaning="Weight of the proximal term that holds a client near the model it began with (FedProx).",
            least=0,
            most=1e6,
        ),
        "serverLearningRate": Parameter(
            meaning="Step size of the aggregator (FedAvgM, FedAdam, FedYogi, FedAdagrad).",
            least=0,
            most=1e6,
            is_above_least=True,
        ),
        "momentum": Parameter(
            meaning="Share of the last step that is taken again (FedAvgM).", least=0, most=1, is_below_most=True
        ),
        "beta1": Parameter(
            meaning="Decay of the mean of the updates (FedAdam, FedYogi, FedAdagrad).",
            least=0,
            most=1,
            is_below_most=True,
        ),
        "beta2": Parameter(
            meaning="Decay of the mean of their squares (FedAdam, FedYogi).", least=0, most=1, is_below_most=True
        ),
        "tau": Parameter(
            meaning="Added to the root of the squares: the smaller, the more adaptive (FedAdam, FedYogi, FedAdagrad).",
            least=0,
            most=1e6,
            is_above_least=True,
        ),
        "clipNorm": Parameter(
            meaning="An update whose L2 norm is more is scaled down to it (all strategies that take a mean).",
            least=0,
            most=1e12,
            is_above_least=True,
        ),
        # Up to and with one half: an API server takes an integer, such as 0, for more than a fraction that is excluded.
        "trimFraction": Parameter(
            meaning="Share of the values that is left out at each end; one half leaves the median (TrimmedMean).",
            least=0,
            most=0.5,
        ),
        "byzantine": Parameter(
            meaning="How many clients of a round may send anything (Krum, MultiKrum).", least=0, most=498, is_whole=True
        ),
        "select": Parameter(
            meaning="How many updates are averaged (MultiKrum).", least=1, most=MOST_COMPARED, is_whole=True
        ),
    }
)
"""By name, as in a manifest. A name means the same, and has the same range, in each strategy that has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyTerms:
    """What a built-in strategy takes."""

    defaults: Mapping[str, float | None]
    """By name of the parameter; ``None``: it is off unless it is given."""
    required: frozenset[str] = frozenset()
    """Parameters that have to be given."""
    takes_mean: bool = True
    """Whether it begins with the weighted mean of the updates. Otherwise each update counts the same."""

    @property
    def names(self) -> list[str]:
        """Names of all parameters, in order."""
        return sorted({*self.defaults, *self.required})


_CLIPPED: Final[Mapping[str, float | None]] = {"clipNorm": None}
_ADAPTIVE: Final[Mapping[str, float | None]] = {
    "serverLearningRate": 0.01,
    "beta1": 0.9,
    "beta2": 0.99,
    "tau": 1e-3,
    **_CLIPPED,
}

BUILT_IN_STRATEGIES: Final[Mapping[str, StrategyTerms]] = MappingProxyType(
    {
        "FedAvg": StrategyTerms(defaults=_CLIPPED),
        "FedProx": StrategyTerms(defaults=_CLIPPED, required=frozenset({"mu"})),
        "FedAvgM": StrategyTerms(defaults={"serverLearningRate": 1.0, "momentum": 0.9, **_CLIPPED}),
        "FedAdam": StrategyTerms(defaults=_ADAPTIVE),
        "FedYogi": StrategyTerms(defaults=_ADAPTIVE),
        "FedAdagrad": StrategyTerms(
            defaults={"serverLearningRate": 0.1, "beta1": 0.0, "tau": 1e-3, **_CLIPPED},
        ),
        "Median": StrategyTerms(defaults={}, takes_mean=False),
        "TrimmedMean": StrategyTerms(defaults={"trimFraction": 0.2}, takes_mean=False),
        "Krum": StrategyTerms(defaults={}, required=frozenset({"byzantine"}), takes_mean=False),
        "MultiKrum": StrategyTerms(defaults={"select": None}, required=frozenset({"byzantine"}), takes_mean=False),
    }
)
"""By name, as in a manifest."""
COMPARING: Final = frozenset({"Krum", "MultiKrum"})
"""Strategies that compare updates pair by pair."""


def range_problems(parameters: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Yield name and problem of each parameter of a known name that is not in its range."""
    for name, value in parameters.items():
        known = PARAMETERS.get(name)
        if known is not None and not known.accepts(value):
            yield name, f"{value!r} is not in range: must be {known.range}"


def name_problems(strategy: str, parameters: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Yield name and problem of each parameter that a built-in strategy lacks or does not know."""
    terms = BUILT_IN_STRATEGIES[strategy]
    for name in sorted(terms.required - parameters.keys()):
        yield name, f"missing; strategy {strategy} needs it"
    for name in parameters:
        if name not in terms.names:
            yield name, f"is no parameter of strategy {strategy}; it has {', '.join(terms.names) or 'none'}"


def least_compared(parameters: Mapping[str, object]) -> int:
    """Fewest updates among which Krum can tell the wrong ones.

    n >= 2f + 3: Blanchard et al., "Machine Learning with Adversaries", NeurIPS 2017: it is (alpha, f)-Byzantine
    resilient where 2f + 2 < n.

    Args:
        parameters: In range.
    """
    byzantine = parameters.get("byzantine", 0)
    assert isinstance(byzantine, int | float)
    return 2 * int(byzantine) + 3
