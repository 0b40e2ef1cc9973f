"""The strategies that this aggregator has: the built-in ones, and those of packages in its environment."""

import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any, Final

from fedjob_aggregator.aggregation.robust import Krum, Median, MultiKrum, TrimmedMean
from fedjob_aggregator.aggregation.server_optimizers import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedYogi
from fedjob_aggregator.strategy import MeanStrategy, RobustStrategy, Strategy, StrategyFactory
from fedjob_protocol.errors import Refusal, Word, quote
from fedjob_protocol.messages import RoundSpec
from fedjob_protocol.messages import Strategy as StrategyName
from fedjob_protocol.strategies import (
    BUILT_IN_STRATEGIES,
    COMPARING,
    ENTRY_POINTS,
    MOST_COMPARED,
    name_problems,
    range_problems,
)

MOST_SLOTS: Final = 8
"""Most arrays of the model's size that a strategy may keep."""
_SLOT: Final = re.compile(r"[A-Za-z0-9][-A-Za-z0-9_.]{0,62}")

_CLASSES: Final[Mapping[str, StrategyFactory]] = MappingProxyType(
    {
        "FedAvg": lambda given: FedAvg(clip_norm=given["clipNorm"]),
        "FedProx": lambda given: FedAvg(clip_norm=given["clipNorm"]),
        "FedAvgM": lambda given: FedAvgM(
            server_learning_rate=given["serverLearningRate"], momentum=given["momentum"], clip_norm=given["clipNorm"]
        ),
        "FedAdam": lambda given: FedAdam(**_adaptive(given), beta2=given["beta2"]),
        "FedYogi": lambda given: FedYogi(**_adaptive(given), beta2=given["beta2"]),
        "FedAdagrad": lambda given: FedAdagrad(**_adaptive(given)),
        "Median": lambda _: Median(),
        "TrimmedMean": lambda given: TrimmedMean(trim_fraction=given["trimFraction"]),
        "Krum": lambda given: Krum(byzantine=int(given["byzantine"])),
        "MultiKrum": lambda given: MultiKrum(
            byzantine=int(given["byzantine"]), most=None if given["select"] is None else int(given["select"])
        ),
    }
)
"""By name: what is made of parameters that are all there and in range."""


class Strategies:
    """Makes strategies.

    Args:
        offered: What packages offer; ``None``: looks at those that are installed.
    """

    def __init__(self, offered: Iterable[EntryPoint] | None = None) -> None:
        self._given = offered

    @cached_property
    def _offered(self) -> dict[str, EntryPoint]:
        """Looked for only when somebody names one: looking at all that is installed takes time."""
        found = entry_points(group=ENTRY_POINTS) if self._given is None else self._given
        return {entry.name: entry for entry in found if entry.name not in BUILT_IN_STRATEGIES}

    @property
    def names(self) -> list[str]:
        """Names of all strategies, in order."""
        return sorted([*BUILT_IN_STRATEGIES, *self._offered])

    def of(self, name: StrategyName) -> Strategy:
        """Make a strategy.

        Raises:
            Refusal: ``bad-request``: there is none of this name, or a parameter is wrong; with its name.
        """
        if name.name in BUILT_IN_STRATEGIES:
            return _built_in(name)
        entry = self._offered.get(name.name)
        if entry is None:
            raise Refusal(
                Word.BAD_REQUEST, f"strategy {quote(name.name)} is not known here: {', '.join(self.names)} are"
            )
        return _own(entry, name.parameters)

    def of_round(self, spec: RoundSpec) -> Strategy:
        """Make the strategy of a round.

        Raises:
            Refusal: As `of`; or the round could end with fewer updates than the strategy needs.
        """
        strategy, name = self.of(spec.strategy), spec.strategy.name
        if not isinstance(strategy, RobustStrategy) or spec.base is None:
            return strategy
        if spec.min_reports < strategy.least_updates:
            raise Refusal(
                Word.BAD_REQUEST,
                f"strategy {name} needs at least {strategy.least_updates} updates, minReports is {spec.min_reports}",
            )
        if name in COMPARING and spec.clients_per_round > MOST_COMPARED:
            raise Refusal(
                Word.BAD_REQUEST,
                f"strategy {name} compares at most {MOST_COMPARED} updates, clientsPerRound is "
                f"{spec.clients_per_round}",
            )
        return strategy


def _built_in(name: StrategyName) -> Strategy:
    problems = [*range_problems(name.parameters), *name_problems(name.name, name.parameters)]
    if problems:
        told = "; ".join(f"{parameter}: {problem}" for parameter, problem in problems)
        raise Refusal(Word.BAD_REQUEST, f"strategy {name.name}: {told}")
    return _CLASSES[name.name]({**BUILT_IN_STRATEGIES[name.name].defaults, **name.parameters})


def _own(entry: EntryPoint, parameters: Mapping[str, Any]) -> Strategy:
    """Somebody else's code: whatever it does wrong is told with its name, and harms no other job."""
    try:
        strategy = entry.load()(dict(parameters))
        _check_kind(strategy)
    except ValueError as error:
        raise Refusal(Word.BAD_REQUEST, f"strategy {entry.name}: {str(error)[:500]}") from error
    except Exception as error:
        told = f"{type(error).__name__}: {str(error)[:500]}"
        raise Refusal(Word.BAD_REQUEST, f"strategy {entry.name} ({entry.value}) cannot be made: {told}") from error
    made: Strategy = strategy
    return made


def _check_kind(strategy: object) -> None:
    if isinstance(strategy, RobustStrategy):
        return
    if not isinstance(strategy, MeanStrategy):
        raise TypeError(f"{type(strategy).__name__} is neither a MeanStrategy nor a RobustStrategy")
    if len(strategy.slots) > MOST_SLOTS:
        raise ValueError(f"{len(strategy.slots)} slots, at most {MOST_SLOTS} are kept")
    wrong = [slot for slot in strategy.slots if not _SLOT.fullmatch(slot)]
    if wrong:
        raise ValueError(f"slot {quote(wrong[0])} is no name: letters, digits, '-', '_' and '.'")


def _adaptive(given: Mapping[str, Any]) -> dict[str, Any]:
    names = {"server_learning_rate": "serverLearningRate", "beta1": "beta1", "tau": "tau", "clip_norm": "clipNorm"}
    return {argument: given[name] for argument, name in names.items()}
