"""Things that the client's tests are made of."""

from typing import Any

import numpy as np

from fedjob_client.data.dataset import Dataset, Split
from fedjob_client.trainer import ClientContext
from fedjob_protocol.config import DataConfig, ModelConfig, PartitionConfig, PartitionScheme, Role


def a_context(
    *,
    model: str = "mlp",
    data: str = "digits",
    index: int = 0,
    clients: int | None = None,
    seed: int = 7,
    role: Role = Role.TRAINER,
    path: str | None = None,
    **parameters: Any,
) -> ClientContext:
    """What a client is told; with a Dirichlet partition if there are ``clients``."""
    partition = None
    if clients is not None:
        partition = PartitionConfig(scheme=PartitionScheme.DIRICHLET, index=index, count=clients, alpha=0.5, seed=seed)
    return ClientContext(
        index=index,
        name=f"clients-{index}",
        group="clients",
        seed=seed,
        model=ModelConfig(name=model, parameters=parameters),
        data=DataConfig(name=data, path=path, partition=partition),
        role=role,
    )


def a_classification(*, examples: int = 40, features: int = 5, classes: int = 3, seed: int = 1) -> Dataset:
    """Random features with random labels."""
    generator = np.random.default_rng(seed)

    def split(count: int) -> Split:
        x = generator.normal(size=(count, features)).astype(np.float32)
        return Split(x=x, y=generator.integers(0, classes, size=count))

    return Dataset.of(split(examples), split(20), num_classes=classes)


def some_images(
    *, examples: int = 40, image: tuple[int, int, int] = (6, 5, 2), classes: int = 3, seed: int = 1
) -> Dataset:
    """Random pixels with random labels, as rows that say which images they are."""
    generator = np.random.default_rng(seed)

    def split(count: int) -> Split:
        x = generator.random((count, image[0] * image[1] * image[2]), dtype=np.float32)
        return Split(x=x, y=generator.integers(0, classes, size=count), image=image)

    return Dataset.of(split(examples), split(20), num_classes=classes)


def a_regression(*, examples: int = 40, features: int = 3, seed: int = 1) -> Dataset:
    """Random features with values that depend on them."""
    generator = np.random.default_rng(seed)

    def split(count: int) -> Split:
        x = generator.uniform(-5, 5, size=(count, features))
        return Split(x=x, y=x @ np.arange(1, features + 1) - 2 + generator.normal(size=count))

    return Dataset.of(split(examples), split(20), num_classes=None)
