"""Layers that stay at the client: what ``model.exclude`` names never leaves it.

The job's model is what is left. Each client trains its own values of the excluded tensors on and on (Arivazhagan et al.
2019, "Federated Learning with Personalization Layers", arXiv:1912.00818, Algorithm 1); they begin with what the trainer
makes of the job's seed. A training of round r begins with the values of the client's last training before r, so a
training that is repeated after a crash ends with the same bits.
"""

import os
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, Protocol, cast

import numpy as np

from fedjob_client.errors import DataError, TrainerError
from fedjob_client.trainer import Array, EvalConfig, Metrics, Params, TrainConfig, Trainer, Update
from fedjob_protocol.errors import Refusal
from fedjob_protocol.weights import decode, encode

__all__ = ["Folder", "Memory", "Personal", "Store"]

KEPT: Final = 2
"""Trainings of which values are kept: the last one, and the one before, from which the last one can be repeated."""
SUFFIX: Final = ".safetensors"


class Store(Protocol):
    """Where a client keeps its values of the excluded tensors, by round."""

    def rounds(self) -> Sequence[int]:
        """Rounds of which there are values, ascending."""
        ...

    def load(self, number: int) -> Params:
        """Values after the training of a round."""
        ...

    def save(self, number: int, values: Params) -> None:
        """Keep the values after the training of a round, and forget all but the last few."""
        ...


class Memory:
    """Values that are gone when the process is."""

    def __init__(self) -> None:
        self._values: dict[int, Params] = {}

    def rounds(self) -> Sequence[int]:
        """As `Store.rounds`."""
        return sorted(self._values)

    def load(self, number: int) -> Params:
        """As `Store.load`."""
        return self._values[number]

    def save(self, number: int, values: Params) -> None:
        """As `Store.save`."""
        self._values = {kept: self._values[kept] for kept in _earlier(self.rounds(), number)} | {number: values}


class Folder:
    """Values in files of a folder, which survive the process: written whole, then renamed.

    Args:
        path: The folder; made if it is not there.

    Raises:
        DataError: A file cannot be read or written; it is named.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def rounds(self) -> Sequence[int]:
        """As `Store.rounds`."""
        names = (file.name.removesuffix(SUFFIX) for file in self._path.glob(f"*{SUFFIX}"))
        return sorted(int(name) for name in names if name.isdecimal())

    def load(self, number: int) -> Params:
        """As `Store.load`."""
        file = self._file(number)
        try:
            return dict(decode(file.read_bytes())[0])
        except (OSError, Refusal) as error:
            raise DataError(f"layers that this client keeps, {file}: {error}; remove it to begin them anew") from error

    def save(self, number: int, values: Params) -> None:
        """As `Store.save`."""
        file = self._file(number)
        new = file.with_suffix(".new")
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            with new.open("wb") as stream:
                stream.write(encode(values))
                stream.flush()
                os.fsync(stream.fileno())
            new.replace(file)
            kept = {number, *_earlier(self.rounds(), number)}
            for other in set(self.rounds()) - kept:
                self._file(other).unlink(missing_ok=True)
        except OSError as error:
            raise DataError(f"layers that this client keeps, {file}: cannot be written: {error}") from error

    def _file(self, number: int) -> Path:
        return self._path / f"{number}{SUFFIX}"


def _earlier(rounds: Iterable[int], number: int) -> list[int]:
    """Those to keep beside a round that is saved; later ones are of a training that is now done again."""
    return [other for other in sorted(rounds) if other < number][-(KEPT - 1) :]


class Personal:
    """A trainer whose excluded tensors stay here; everything else of the trainer is as it was.

    Args:
        trainer: The whole model's trainer.
        exclude: Patterns of tensor names: ``*`` any text, ``?`` one character, ``[…]`` one of some.
        seed: The job's: of the values that the excluded tensors begin with.
        store: Where their values are kept.
    """

    def __init__(self, trainer: Trainer, exclude: Sequence[str], *, seed: int, store: Store) -> None:
        self._trainer = trainer
        self._exclude = tuple(exclude)
        self._seed = seed
        self._store = store
        self._first: Params | None = None

    def __getattr__(self, name: str) -> Any:
        """Optional attributes of trainers, such as ``num_examples``."""
        return getattr(self._trainer, name)

    def init(self, seed: int) -> Params:
        """The initial model without what is excluded.

        Raises:
            TrainerError: A pattern matches no tensor, or nothing is left.
        """
        arrays = self._trainer.init(seed)
        names = list(arrays)
        idle = [pattern for pattern in self._exclude if not any(fnmatchcase(name, pattern) for name in names)]
        if idle:
            raise TrainerError(f"model.exclude: {idle[0]!r} matches none of the tensors {names[:10]}")
        shared = self.shared(arrays)
        if not shared:
            raise TrainerError(f"model.exclude: {list(self._exclude)} leaves no tensor to learn together")
        return shared

    def train(self, params: Params, config: TrainConfig) -> Update:
        """Train the whole model; keep the excluded tensors, return the others."""
        own = self._before(config.round)
        update: Any = self._trainer.train({**params, **{name: np.array(array) for name, array in own.items()}}, config)
        if not isinstance(update, Update):
            return cast("Update", update)  # refused by whoever asked, in its words
        arrays = update.params if update.params is not None else update.delta
        if not isinstance(arrays, dict):
            return update
        missing = own.keys() - arrays.keys()
        if missing:
            raise TrainerError(f"train returned no {sorted(missing)[:5]}, which model.exclude keeps at this client")
        trained = {name: np.asarray(arrays[name]) for name in own}
        if update.delta is not None:
            trained = {name: (own[name] + array).astype(own[name].dtype) for name, array in trained.items()}
        self._store.save(config.round, {name: np.asarray(array, order="C") for name, array in trained.items()})
        shared = self.shared(arrays)
        kind = "params" if update.params is not None else "delta"
        return Update(**{kind: shared}, num_examples=update.num_examples, metrics=update.metrics)

    def evaluate(self, params: Params, config: EvalConfig) -> Metrics:
        """Evaluate the whole model, with this client's values of the excluded tensors."""
        if not callable(getattr(self._trainer, "evaluate", None)):
            raise TrainerError(f"trainer {type(self._trainer).__name__} has no method evaluate")
        return self._trainer.evaluate(self._whole(params), config)

    def predict(self, params: Params, inputs: Array) -> Array:
        """Predict with the whole model, with this client's values of the excluded tensors."""
        if not callable(getattr(self._trainer, "predict", None)):
            raise TrainerError(f"trainer {type(self._trainer).__name__} has no method predict")
        return self._trainer.predict(self._whole(params), inputs)

    def shared(self, arrays: Params) -> Params:
        """What of a whole model is learned together."""
        return {name: array for name, array in arrays.items() if not self._is_excluded(name)}

    def _is_excluded(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self._exclude)

    def _before(self, number: int | None) -> Params:
        """The excluded tensors after the last training, or after the last one before a round."""
        rounds = [other for other in self._store.rounds() if number is None or other < number]
        if rounds:
            return self._store.load(rounds[-1])
        if self._first is None:
            arrays = self._trainer.init(self._seed)
            self._first = {name: np.array(array) for name, array in arrays.items() if self._is_excluded(name)}
        return self._first

    def _whole(self, params: Params) -> Params:
        return {**params, **self._before(None)}
