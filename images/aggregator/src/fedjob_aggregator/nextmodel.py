"""The data of the next checkpoint, block by block: base plus change, or the initial model as it was uploaded.

Runs in the writer's thread; memory is a few blocks whatever the size of the model.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from fedjob_aggregator.aggregation.accumulator import BLOCK_ELEMENTS, Accumulator, flat_begins
from fedjob_aggregator.spool import SpooledUpdates
from fedjob_aggregator.staging import Staged, read_blocks
from fedjob_aggregator.strategy import Finding, Floats, MeanStrategy, RobustStrategy
from fedjob_protocol.errors import FedJobError
from fedjob_protocol.weights import DType, Header, Manifest, TensorSpec

NO_STATE: Final[Mapping[str, Floats]] = {}


class UnusableModelError(FedJobError):
    """The strategy made no model of these updates, and would make none of them again."""


class NonFiniteMeanError(UnusableModelError):
    """A value of the next model is infinite or NaN in the model's type."""


class StrategyError(UnusableModelError):
    """A strategy raised an exception or broke its contract."""


class Source(Protocol):
    """Where the change of the model comes from, piece by piece. Elements count over the tensors in order of names."""

    block_elements: int
    """Most elements to ask for at a time."""

    def change(self, begin: int, count: int) -> Floats:
        """The change of some consecutive elements.

        Raises:
            OSError: What it is made of cannot be read.
            StrategyError: The strategy gave something else.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean:
    """The exact weighted mean of the updates."""

    accumulator: Accumulator
    total_weight: int
    scale_bits: int

    def of(self, begin: int, count: int) -> Floats:
        """The mean of some consecutive elements."""
        return self.accumulator.quotients(begin, count, total_weight=self.total_weight, scale_bits=self.scale_bits)


class MeanSource:
    """What a strategy makes of the mean, and of what it remembers.

    Args:
        mean: Of the updates.
        strategy: Whose change it is.
        slots: Reads the next values of some consecutive elements of each slot.
    """

    block_elements = BLOCK_ELEMENTS

    def __init__(
        self, mean: Mean, strategy: MeanStrategy, slots: Callable[[int, int], Mapping[str, Floats]] | None
    ) -> None:
        self._mean = mean
        self._strategy = strategy
        self._slots = slots

    def change(self, begin: int, count: int) -> Floats:
        """As `Source.change`."""
        slots = NO_STATE if self._slots is None else self._slots(begin, count)
        with named(self._strategy):
            change = self._strategy.change(self._mean.of(begin, count), slots)
        return checked(change, count, self._strategy)


class RobustSource:
    """What a strategy makes of all updates; also measures how far each is from the result.

    Args:
        updates: Of the round.
        strategy: Whose change it is.

    Raises:
        StrategyError: It selects nothing, or what is not there.
    """

    def __init__(self, updates: SpooledUpdates, strategy: RobustStrategy) -> None:
        self.block_elements = updates.block_elements
        self._updates = updates
        self._strategy = strategy
        with named(strategy):
            selection = strategy.select(updates)
        self._kept = sorted(set(selection.kept))
        self._findings = dict(selection.findings)
        everyone = range(len(updates.clients))
        if not self._kept or not {*self._kept, *self._findings} <= set(everyone):
            raise StrategyError(f"{type(strategy).__name__} selected {self._kept} of {len(everyone)} updates")
        self._squares = np.zeros(len(self._kept))

    def change(self, begin: int, count: int) -> Floats:
        """As `Source.change`."""
        values = self._updates.read(self._kept, begin, count)
        with named(self._strategy):
            combined = self._strategy.combine(values)
        change = checked(combined, count, self._strategy)
        self._squares += np.square(values - change).sum(axis=1)
        return change

    def findings(self) -> dict[int, Finding]:
        """What is to be said of updates, by client; complete once the change of all elements was asked for."""
        with named(self._strategy):
            remarks = self._strategy.review(np.sqrt(self._squares))
        found = {self._kept[position]: finding for position, finding in remarks.items()} | self._findings
        return {self._updates.clients[position]: finding for position, finding in sorted(found.items())}


@contextmanager
def named(strategy: object) -> Iterator[None]:
    """Give what somebody else's code raises the name of the strategy.

    Raises:
        StrategyError: It raised something that is not about files or memory.
    """
    try:
        yield
    except (OSError, MemoryError, FedJobError):
        raise
    except Exception as error:
        name = type(strategy).__name__
        raise StrategyError(f"strategy {name} raised {type(error).__name__}: {str(error)[:500]}") from error


def checked(result: Any, count: int, strategy: object) -> Floats:
    """What a strategy returned, if it is what it has to be.

    Raises:
        StrategyError: It is not an array of that many numbers.
    """
    if not isinstance(result, np.ndarray) or result.shape != (count,) or result.dtype != np.float64:
        seen = f"{result.dtype} of shape {result.shape}" if isinstance(result, np.ndarray) else type(result).__name__
        raise StrategyError(f"{type(strategy).__name__} gave {seen}, not {count} float64 values")
    return result


def next_data(source: Source, base: IO[bytes], header: Header) -> Iterator[memoryview]:
    """Data of base + change, in the order of `Manifest.placements`.

    Args:
        source: The change.
        base: The checkpoint that the round started from, written by us, so in the same order.
        header: Its header.

    Raises:
        NonFiniteMeanError: A value is not finite in the model's type.
        OSError: The base cannot be read.
        StrategyError: As `Source.change`.
    """
    begins = flat_begins(header.manifest)
    for place in header.manifest.placements:
        begin, end = header.data_begin + place.begin, header.data_begin + place.end
        element = begins[place.spec.name]
        for block in read_blocks(base, begin, end, source.block_elements * place.spec.dtype.bytes):
            values = np.frombuffer(block, dtype=place.spec.dtype.numpy)
            yield narrowed(place.spec, source.change(element, values.size) + values).view(np.uint8).data
            element += values.size


def narrowed(spec: TensorSpec, wide: Floats) -> npt.NDArray[Any]:
    """Values in the type of their tensor, rounded to the nearest.

    Raises:
        NonFiniteMeanError: One is not finite in that type.
    """
    with np.errstate(over="ignore"):  # judged below, by name
        result = wide.astype(spec.dtype.numpy)
    if not np.isfinite(result).all():
        raise NonFiniteMeanError(f"the next value of {spec.name!r} is not finite in {spec.dtype}")
    return result


def state_manifest(model: Manifest, slots: Mapping[str, float]) -> Manifest:
    """The tensors of a strategy's state: each slot in one piece, in float64 where the model has any of that."""
    dtype = DType.F64 if any(spec.dtype is DType.F64 for spec in model.tensors) else DType.F32
    return Manifest.of(TensorSpec(name=slot, dtype=dtype, shape=(model.elements,)) for slot in slots)


def state_data(
    mean: Mean, strategy: MeanStrategy, manifest: Manifest, before: tuple[IO[bytes], Header] | None
) -> Iterator[memoryview]:
    """Data of the next state, in the order of `Manifest.placements`.

    Args:
        mean: Of the updates.
        strategy: Whose state it is.
        manifest: As of `state_manifest`.
        before: File and header of the state of the base; ``None``: it begins.

    Raises:
        NonFiniteMeanError: A value is not finite.
        OSError: The state before cannot be read.
        StrategyError: The strategy gave something else.
    """
    for place in manifest.placements:
        spec, initial = place.spec, strategy.slots[place.spec.name]
        for begin in range(0, spec.elements, BLOCK_ELEMENTS):
            count = min(BLOCK_ELEMENTS, spec.elements - begin)
            old = np.full(count, initial) if before is None else read_slot(*before, spec.name, begin, count)
            with named(strategy):
                new = strategy.advance(spec.name, old, mean.of(begin, count))
            yield narrowed(spec, checked(new, count, strategy)).view(np.uint8).data


def read_slot(file: IO[bytes], header: Header, slot: str, begin: int, count: int) -> Floats:
    """Some consecutive elements of a slot, in float64.

    Raises:
        OSError: The file cannot be read.
    """
    place = next(place for place in header.placements if place.spec.name == slot)
    size = place.spec.dtype.bytes
    first = header.data_begin + place.begin + size * begin
    (block,) = read_blocks(file, first, first + size * count, size * count)
    return np.frombuffer(block, dtype=place.spec.dtype.numpy).astype(np.float64)


def initial_data(staged: Staged, header: Header) -> Iterator[memoryview]:
    """Data of an uploaded model, put into the order of `Manifest.placements`.

    Args:
        staged: The upload.
        header: Its header, checked.

    Raises:
        OSError: The upload cannot be read again.
    """
    places = {place.spec.name: place for place in header.placements}
    for target in header.manifest.placements:
        place = places[target.spec.name]
        if place.begin < place.end:
            yield from staged.blocks(header.data_begin + place.begin, header.data_begin + place.end)
