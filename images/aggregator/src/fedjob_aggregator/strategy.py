"""What a strategy is: the interface of the built-in ones, and of those that a package of your own offers.

A strategy makes the change of the model from the updates of a round. It never sees a file or a network, and it must not
depend on the order in which updates came, on the time or on chance: so the model is the same whatever was restarted.
There are two kinds:

- A `MeanStrategy` begins with the exact weighted mean of the updates. Memory does not grow with the number of clients.
- A `RobustStrategy` looks at all updates. They wait on disk and are worked on piece by piece.

A package offers strategies by entry points in the group ``fedjob.strategies``: the name as in the manifest, and a
function that takes ``spec.strategy.parameters`` and returns the strategy. It raises `ValueError` with a sentence for
the user where a parameter is missing, unknown or out of range. See ``examples/12-own-strategy``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from fedjob_protocol.messages import Verdict

Floats: TypeAlias = npt.NDArray[np.float64]
NO_SLOTS: Final[Mapping[str, float]] = MappingProxyType({})


@runtime_checkable
class MeanStrategy(Protocol):
    """Makes the change of the model from the weighted mean of the updates, element by element.

    What it remembers from round to round are arrays of the model's size, its slots. They are kept beside the
    checkpoint, whose digest covers theirs.
    """

    @property
    def slots(self) -> Mapping[str, float]:
        """Names of the arrays (letters, digits, ``-``, ``_`` and ``.``), each with the value that it begins with."""

    @property
    def clip_norm(self) -> float | None:
        """An update whose L2 norm is more is scaled down to it before it is added; ``None``: none is."""

    def advance(self, slot: str, before: Floats, mean: Floats) -> Floats:
        """The next values of a slot.

        Args:
            slot: Its name.
            before: The values that it has, of some consecutive elements; not to be changed.
            mean: The weighted mean of the updates, of the same elements; not to be changed.
        """

    def change(self, mean: Floats, slots: Mapping[str, Floats]) -> Floats:
        """What is added to the model.

        Args:
            mean: The weighted mean of the updates, of some consecutive elements; not to be changed.
            slots: The next values of each slot, as they are kept: of the same elements, rounded to the model's type.
        """


class Updates(Protocol):
    """What a `RobustStrategy` can know of the updates as a whole; in the order of the clients' indices."""

    @property
    def clients(self) -> Sequence[int]:
        """Index of each client."""

    @property
    def examples(self) -> Sequence[int]:
        """Number of training examples that each client says it used."""

    @property
    def norms(self) -> Floats:
        """L2 norm of each update. Asking for it reads all updates once."""

    @property
    def squared_distances(self) -> Floats:
        """Squared L2 distance of each pair of updates, a symmetric matrix. Asking for it reads all updates once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Why an update is not taken as it came."""

    verdict: Verdict
    evidence: Mapping[str, float]
    """Finite numbers; ``limit`` is what would have passed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which updates are combined."""

    kept: tuple[int, ...]
    """Positions among the updates, at least one."""
    findings: Mapping[int, Finding] = field(default_factory=dict)
    """By position: of updates that are not kept, or that are worth a remark."""


@runtime_checkable
class RobustStrategy(Protocol):
    """Makes the change of the model from all updates. Every update counts the same, whoever sent it."""

    @property
    def least_updates(self) -> int:
        """A round needs at least so many; a job whose rounds could end with fewer is refused."""

    def select(self, updates: Updates) -> Selection:
        """Choose which updates are combined. Equal updates must be chosen by position, never by chance."""

    def combine(self, values: npt.NDArray[np.float32]) -> Floats:
        """The change of some consecutive elements.

        Args:
            values: Of shape (updates, elements): those that were selected, in the order of their clients' indices.
        """

    def review(self, distances: Floats) -> Mapping[int, Finding]:  # noqa: ARG002 - of those that have remarks
        """Remarks on updates that were combined, by position among those that were selected; none, unless overridden.

        Args:
            distances: L2 distance of each from the change that was made of them.
        """
        return {}


Strategy: TypeAlias = MeanStrategy | RobustStrategy
StrategyFactory: TypeAlias = Callable[[Mapping[str, Any]], Strategy]
"""Makes a strategy from ``spec.strategy.parameters``; raises `ValueError`."""


def all_of(updates: Updates) -> Selection:
    """Select all updates."""
    return Selection(kept=tuple(range(len(updates.clients))))
