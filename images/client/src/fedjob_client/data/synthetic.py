"""Data sets that are made, not read: their truth is known, so that a result can be judged.

``synthetic-linear``: every feature is uniform in (-5, 5), ``y = 3.5 · (x1 + … + xd) + 2.0 + noise``, the noise normal
with standard deviation 0.5. ``synthetic-logistic``: the same features, ``y`` is 1 with probability
``sigmoid(1.5 · (x1 + … + xd) - 0.75)`` and 0 otherwise.

Parameters: ``numSamples`` (1000), ``numTestSamples`` (1000), ``features`` (1), ``noise`` (0.5; linear only), ``w`` and
``b`` (the truth).

Without a partition every client makes its own ``numSamples`` examples from (job's seed, its index); with one they are
made once from the job's seed and divided. The held-out examples depend on the job's seed alone.
"""

from collections.abc import Callable
from typing import Final

import numpy as np

from fedjob_client.data.dataset import Array, Raw, Source
from fedjob_client.errors import DataError
from fedjob_client.parameters import read_parameters
from fedjob_protocol.builtin import (
    LINEAR_B,
    LINEAR_NOISE,
    LINEAR_W,
    LOGISTIC_B,
    LOGISTIC_W,
    LinearDataParameters,
    LogisticDataParameters,
)
from fedjob_protocol.config import DataConfig

X_RANGE: Final = 5.0
"""Features are uniform in (-5, 5)."""
MAX_ELEMENTS: Final = 1 << 28
"""Largest ``numSamples * features``: 2 GiB of float64."""

TRAIN_STREAM: Final = 1
TEST_STREAM: Final = 2


def synthetic_linear(config: DataConfig, seed: int, index: int) -> Source:
    """The data set ``synthetic-linear``.

    Raises:
        DataError: A parameter is unknown or out of range.
    """
    settings = read_parameters(LinearDataParameters, config.parameters, where="data.parameters", error=DataError)

    def make(count: int, stream: tuple[int, ...]) -> Raw:
        x, y = linear_examples(
            generator(stream), count, features=settings.features, noise=settings.noise, w=settings.w, b=settings.b
        )
        return Raw(x=x, y=y)

    return _source(config, seed, index, make, settings, num_classes=None)


def synthetic_logistic(config: DataConfig, seed: int, index: int) -> Source:
    """The data set ``synthetic-logistic``.

    Raises:
        DataError: A parameter is unknown or out of range.
    """
    settings = read_parameters(LogisticDataParameters, config.parameters, where="data.parameters", error=DataError)

    def make(count: int, stream: tuple[int, ...]) -> Raw:
        x, y = logistic_examples(generator(stream), count, features=settings.features, w=settings.w, b=settings.b)
        return Raw(x=x, y=y)

    return _source(config, seed, index, make, settings, num_classes=2)


def linear_examples(
    source: np.random.Generator,
    count: int,
    *,
    features: int = 1,
    noise: float = LINEAR_NOISE,
    w: float = LINEAR_W,
    b: float = LINEAR_B,
) -> tuple[Array, Array]:
    """Examples of a linear relation.

    Returns:
        Features ``(count, features)`` and values ``(count,)``, both float64.
    """
    x = source.uniform(-X_RANGE, X_RANGE, size=(count, features))
    y = x.sum(axis=1) * w + b + source.normal(0.0, noise, size=count)
    return x, y


def logistic_examples(
    source: np.random.Generator, count: int, *, features: int = 1, w: float = LOGISTIC_W, b: float = LOGISTIC_B
) -> tuple[Array, Array]:
    """Examples of a binary choice.

    Returns:
        Features ``(count, features)`` in float32 and labels ``(count,)`` in int64.
    """
    x = source.uniform(-X_RANGE, X_RANGE, size=(count, features))
    score = x.sum(axis=1) * w + b
    probability = np.exp(-np.logaddexp(0.0, -score))
    y = (source.random(count) < probability).astype(np.int64)
    return x.astype(np.float32), y


def generator(key: tuple[int, ...]) -> np.random.Generator:
    """The random numbers that belong to a key: the same on every machine."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


def _source(
    config: DataConfig,
    seed: int,
    index: int,
    make: Callable[[int, tuple[int, ...]], Raw],
    settings: LinearDataParameters | LogisticDataParameters,
    num_classes: int | None,
) -> Source:
    if max(settings.num_samples, settings.num_test_samples) * settings.features > MAX_ELEMENTS:
        raise DataError(f"data.parameters: numSamples * features is more than {MAX_ELEMENTS}")
    own = () if config.partition is not None else (index,)
    return Source(
        train=lambda: make(settings.num_samples, (seed, TRAIN_STREAM, *own)),
        test=lambda: make(settings.num_test_samples, (seed, TEST_STREAM)),
        count_classes=lambda: num_classes,
    )
