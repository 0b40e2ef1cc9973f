"""How one data set is divided among clients: each client computes its own part, alone and always the same.

Parts are disjoint, together they are the whole data set, and they depend on labels and settings only. No part is empty:
a random scheme that leaves one without examples draws again, up to `MAX_DRAWS` times, and then the data are refused.
"""

from collections.abc import Callable
from typing import Final, assert_never

import numpy as np

from fedjob_client.data.dataset import Array
from fedjob_client.errors import DataError
from fedjob_protocol.config import PartitionConfig, PartitionScheme

STREAM: Final = 0x706172
"""Sets the random numbers of partitions apart from all others of the same seed."""

MAX_DRAWS: Final = 100
"""Tries of a scheme before the data count as not divisible in this way."""


def partition(labels: Array, config: PartitionConfig) -> Array:
    """Rows of one client's part, ascending.

    Args:
        labels: Class or value of every example, ``(n,)``.
        config: The scheme, which part, of how many.

    Raises:
        DataError: There are fewer examples than the scheme needs, no labels where it needs them, or a part stays empty.
    """
    if config.index >= config.count:
        raise DataError(f"partition: part {config.index} of {config.count} does not exist; the first is 0")
    return np.flatnonzero(owners(labels, config) == config.index)


def held_out_part(labels: Array, held_out: Array, config: PartitionConfig) -> Array:
    """Rows of one client's part of the held-out examples, ascending: like its own examples, disjoint from others'.

    Held-out examples of each class are dealt out as the training examples of that class are, so that a client is
    measured on what it has to do with, whatever the scheme. Values, which have no classes, are dealt out by number.

    Args:
        labels: Class or value of every training example, ``(n,)``.
        held_out: Class or value of every held-out example.
        config: The scheme, which part, of how many.

    Raises:
        DataError: There are fewer held-out examples than clients, or as `partition`.
    """
    if len(held_out) < config.count:
        raise DataError(f"partition: {len(held_out)} held-out examples cannot be divided among {config.count} clients")
    owner = owners(labels, config)
    has_classes = labels.dtype.kind in "iu"
    dealt = np.empty(len(held_out), dtype=np.int64)
    for value in np.unique(held_out) if has_classes else [None]:
        rows = np.flatnonzero(held_out == value) if has_classes else np.arange(len(held_out))
        sizes = np.bincount(owner[labels == value] if has_classes else owner, minlength=config.count)
        shares = sizes / sizes.sum() if sizes.sum() else np.full(config.count, 1 / config.count)
        dealt[rows] = _deal(len(rows), shares)
    return np.flatnonzero(_filled(dealt, config.count) == config.index)


def owners(labels: Array, config: PartitionConfig) -> Array:
    """Part of every example, ``(n,)`` in int64.

    Raises:
        DataError: As `partition`.
    """
    count = config.count
    if len(labels) < count:
        raise DataError(f"partition: {len(labels)} examples cannot be divided among {count} clients")
    seed = np.random.SeedSequence((config.seed, STREAM))
    generator = np.random.Generator(np.random.PCG64(seed))
    match config.scheme:
        case PartitionScheme.IID:
            return _iid(len(labels), count, generator)
        case PartitionScheme.DIRICHLET:
            classes = _classes(labels, config)
            return _drawn(lambda: _dirichlet(classes, count, config.alpha, generator), config)
        case PartitionScheme.SHARDS:
            return _shards(labels, config, generator)
        case PartitionScheme.BY_LABEL:
            return _by_label(_classes(labels, config), labels, config, generator)
        case PartitionScheme.QUANTITY_SKEW:
            return _drawn(lambda: _quantity(len(labels), count, config.alpha, generator), config)
        case _:
            assert_never(config.scheme)


def _drawn(draw: Callable[[], Array], config: PartitionConfig) -> Array:
    """The first draw in which nobody goes without: the same for everyone who asks."""
    for _ in range(MAX_DRAWS):
        owner = draw()
        empty = np.flatnonzero(np.bincount(owner, minlength=config.count) == 0)
        if len(empty) == 0:
            return owner
    raise DataError(
        f"partition: {config.scheme} with alpha {config.alpha:g} left clients without an example in each of "
        f"{MAX_DRAWS} draws, in the last one {_some(empty)} of {config.count}; use a larger alpha, or fewer clients"
    )


def _some(indices: Array) -> str:
    shown = ", ".join(str(index) for index in indices[:5])
    return f"{shown} and {len(indices) - 5} more" if len(indices) > 5 else shown


def _iid(examples: int, count: int, generator: np.random.Generator) -> Array:
    """A random choice of equal size for everyone; sizes differ by at most one."""
    owner = np.empty(examples, dtype=np.int64)
    owner[generator.permutation(examples)] = np.arange(examples) * count // examples
    return owner


def _dirichlet(classes: list[Array], count: int, alpha: float, generator: np.random.Generator) -> Array:
    """Label skew: the examples of each class are dealt out in proportions drawn from Dir(alpha, …, alpha).

    Hsu, Qi, Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification",
    arXiv:1909.06335, section 3, uses the Dirichlet distribution for label skew; drawing the proportions per class (as
    Yurochkin et al., ICML 2019, section 4) instead of per client uses every example once and skews sizes as well.
    """
    owner = np.empty(sum(map(len, classes)), dtype=np.int64)
    for rows in classes:
        proportions = generator.dirichlet(np.full(count, alpha))
        owner[generator.permutation(rows)] = _deal(len(rows), proportions)
    return owner


def _quantity(examples: int, count: int, alpha: float, generator: np.random.Generator) -> Array:
    """Size skew: every part is a random choice, its size drawn from Dir(alpha, …, alpha)."""
    owner = np.empty(examples, dtype=np.int64)
    proportions = generator.dirichlet(np.full(count, alpha))
    owner[generator.permutation(examples)] = _deal(examples, proportions)
    return owner


def _filled(owner: Array, count: int) -> Array:
    """Give every empty part, lowest first, the last example of the part that is then the largest (lowest at ties)."""
    filled = owner.copy()
    for part in np.flatnonzero(np.bincount(owner, minlength=count) == 0):
        largest = int(np.bincount(filled, minlength=count).argmax())
        filled[np.flatnonzero(filled == largest)[-1]] = part
    return filled


def _deal(examples: int, proportions: Array) -> Array:
    """Part of the first, second, … of ``examples`` examples, in runs as long as the proportions say."""
    ends = np.floor(np.cumsum(proportions) * examples).astype(np.int64)
    ends[-1] = examples  # whatever the rounding of the sum
    return np.repeat(np.arange(len(proportions)), np.diff(np.minimum(ends, examples), prepend=0))


def _shards(labels: Array, config: PartitionConfig, generator: np.random.Generator) -> Array:
    """Label skew by shards: sorted by label, cut into equal shards, some random shards for each client.

    McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", arXiv:1602.05629,
    section 3 (200 shards of 300 examples, two for each of 100 clients).
    """
    shards = config.count * config.shards_per_client
    if len(labels) < shards:
        raise DataError(
            f"partition: {len(labels)} examples cannot be cut into {shards} shards "
            f"({config.count} clients, {config.shards_per_client} each)"
        )
    shard_owner = generator.permutation(shards) // config.shards_per_client
    owner = np.empty(len(labels), dtype=np.int64)
    owner[np.argsort(labels, kind="stable")] = shard_owner[np.arange(len(labels)) * shards // len(labels)]
    return owner


def _by_label(classes: list[Array], labels: Array, config: PartitionConfig, generator: np.random.Generator) -> Array:
    """Whole classes: dealt out in turn; clients beyond the number of classes share one, its examples at random."""
    count = config.count
    owner = np.empty(sum(map(len, classes)), dtype=np.int64)
    for position, rows in enumerate(classes):
        sharers = np.arange(position % count, count, len(classes))
        if len(rows) < len(sharers):
            raise DataError(
                f"partition: {config.scheme} would leave clients without an example: class {labels[rows[0]]} has "
                f"{len(rows)} examples for {len(sharers)} of the {count} clients; use fewer clients"
            )
        owner[generator.permutation(rows)] = sharers[np.arange(len(rows)) * len(sharers) // len(rows)]
    return owner


def _classes(labels: Array, config: PartitionConfig) -> list[Array]:
    """Rows of each class that occurs, classes ascending."""
    if labels.dtype.kind not in "iu":
        raise DataError(f"partition: the scheme {config.scheme} needs class labels, the data set has values")
    order = np.argsort(labels, kind="stable")
    changes = np.flatnonzero(np.diff(labels[order].astype(np.int64)))
    return np.split(order, changes + 1)
