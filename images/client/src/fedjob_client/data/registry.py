"""Data sets by the name that a manifest gives them."""

from collections.abc import Callable, Mapping
from functools import cache, partial
from types import MappingProxyType
from typing import Final, TypeAlias

import numpy as np

from fedjob_client.data.cifar10 import cifar10
from fedjob_client.data.dataset import Array, Dataset, Raw, Source, Split
from fedjob_client.data.digits import digits
from fedjob_client.data.mnist import mnist
from fedjob_client.data.npz import npz
from fedjob_client.data.partition import held_out_part, partition
from fedjob_client.data.synthetic import synthetic_linear, synthetic_logistic
from fedjob_client.data.table import csv_table
from fedjob_client.errors import DataError
from fedjob_protocol.config import DataConfig, Role

Loader: TypeAlias = Callable[[DataConfig, int, int], Source]
"""Of the settings, the job's seed and the client's index. Checks what is cheap to check; reads when asked."""

LOADERS: Final[Mapping[str, Loader]] = MappingProxyType(
    {
        "cifar10": cifar10,
        "csv": csv_table,
        "digits": digits,
        "mnist": mnist,
        "npz": npz,
        "synthetic-linear": synthetic_linear,
        "synthetic-logistic": synthetic_logistic,
    }
)
"""Every data set there is."""

LIMIT_SEED: Final = 20_160_217
"""Of the fixed choice of ``maxTrainSamples`` examples, so that it is the same in every job."""


def load_dataset(config: DataConfig, *, seed: int = 0, index: int = 0, role: Role = Role.TRAINER) -> Dataset:
    """Read what a client needs at its start; the rest is read when it is asked for.

    ``maxTrainSamples`` and ``maxTestSamples`` limit the data set before it is divided among the clients. Where it is
    divided, the held-out examples are, too: each client has a part in which the classes are as frequent as in its own.

    Args:
        config: The data set and this client's part of it.
        seed: The job's seed; only synthetic data depend on it.
        index: The client's index; only synthetic data without a partition depend on it.
        role: A trainer reads its training examples now, an evaluator the held-out ones, a server none.

    Raises:
        DataError: The data set is unknown, or its files cannot be used.
    """
    if role is Role.SERVER:
        return _later(config, seed)
    source = _source(config, seed, index)

    def train() -> Split:
        raw = source.train()
        rows = _limited(len(raw.y), config.max_train_samples)
        if config.partition is not None:
            own = partition(raw.y if rows is None else raw.y[rows], config.partition)
            rows = own if rows is None else rows[own]
        return raw.split(rows)

    def test() -> Split:
        raw = source.test()
        rows = _limited(len(raw.y), config.max_test_samples)
        if config.partition is not None:
            limited = source.train().y
            chosen = _limited(len(limited), config.max_train_samples)
            labels = raw.y if rows is None else raw.y[rows]
            own = held_out_part(limited if chosen is None else limited[chosen], labels, config.partition)
            rows = own if rows is None else rows[own]
        return raw.split(rows)

    dataset = Dataset(train=train, test=test, count_classes=source.count_classes)
    split = dataset.train if role is Role.TRAINER else dataset.test
    if len(split) == 0:
        raise DataError(f"data {config.name}: there are no examples")
    return dataset


def load_labels(config: DataConfig, *, seed: int, index: int) -> tuple[Array, int | None]:
    """Labels or values of all training examples, limited but not divided; and the number of classes.

    Raises:
        DataError: As `load_dataset`.
    """
    source = _source(config, seed, index)
    raw = source.train()
    rows = _limited(len(raw.y), config.max_train_samples)
    return raw.y if rows is None else raw.y[rows], source.count_classes()


def _source(config: DataConfig, seed: int, index: int) -> Source:
    loader = LOADERS.get(config.name)
    if loader is None:
        raise DataError(f"data.name: {config.name!r} is not known; known: {', '.join(sorted(LOADERS))}")
    return loader(config, seed, index)


def _later(config: DataConfig, seed: int) -> Dataset:
    """A data set that is not even looked for before somebody asks for it: a server mostly has none."""
    load = cache(partial(load_dataset, config, seed=seed, role=Role.EVALUATOR))
    return Dataset(train=lambda: load().train, test=lambda: load().test, count_classes=lambda: load().num_classes)


def _limited(count: int, limit: int | None) -> Array | None:
    """Rows of a fixed random choice of ``limit`` examples in their own order; ``None`` for all."""
    if limit is None or limit >= count:
        return None
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(LIMIT_SEED)))
    return np.sort(generator.permutation(count)[:limit])


__all__ = ["LOADERS", "Loader", "Raw", "load_dataset", "load_labels"]
