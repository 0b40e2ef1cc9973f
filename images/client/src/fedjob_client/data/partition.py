"""How one data set is divided among clients: each client computes its own part, alone and always the same.

Parts are disjoint, together they are the whole data set, and they depend on labels and settings only. No part is empty:
a draw that leaves one without examples is repaired by a fixed rule (`_fill_empty`). IID and Shards never need it.
"""

import heapq
from typing import Final, assert_never

import numpy as np

from fedjob_client.data.dataset import Array
from fedjob_client.errors import DataError
from fedjob_protocol.config import PartitionConfig, PartitionScheme

STREAM: Final = 0x706172
"""Sets the random numbers of partitions apart from all others of the same seed."""


def partition(labels: Array, config: PartitionConfig) -> Array:
    """Rows of one client's part, ascending.

    Args:
        labels: Class or value of every example, ``(n,)``.
        config: The scheme, which part, of how many.

    Raises:
        DataError: There are fewer examples than the scheme needs, or no labels where it needs them.
    """
    if config.index >= config.count:
        raise DataError(f"partition: part {config.index} of {config.count} does not exist; the first is 0")
    if len(labels) < config.count:
        raise DataError(f"partition: {len(labels)} examples cannot be divided among {config.count} clients")
    return np.flatnonzero(owners(labels, config) == config.index)


def owners(labels: Array, config: PartitionConfig) -> Array:
    """Part of every example, ``(n,)`` in int64; `partition` checks the arguments."""
    seed = np.random.SeedSequence((config.seed, STREAM))
    generator = np.random.Generator(np.random.PCG64(seed))
    match config.scheme:
        case PartitionScheme.IID:
            return _iid(len(labels), config.count, generator)
        case PartitionScheme.DIRICHLET:
            drawn = _dirichlet(_classes(labels, config), config.count, config.alpha, generator)
            return _fill_empty(drawn, config.count)
        case PartitionScheme.SHARDS:
            return _shards(labels, config, generator)
        case PartitionScheme.BY_LABEL:
            return _fill_empty(_by_label(_classes(labels, config), config.count, generator), config.count)
        case PartitionScheme.QUANTITY_SKEW:
            return _fill_empty(_quantity(len(labels), config.count, config.alpha, generator), config.count)
        case _:
            assert_never(config.scheme)


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


def _by_label(classes: list[Array], count: int, generator: np.random.Generator) -> Array:
    """Whole classes: dealt out in turn; clients beyond the number of classes share one, its examples at random."""
    owner = np.empty(sum(map(len, classes)), dtype=np.int64)
    for position, rows in enumerate(classes):
        sharers = np.arange(position % count, count, len(classes))
        owner[generator.permutation(rows)] = sharers[np.arange(len(rows)) * len(sharers) // len(rows)]
    return owner


def _classes(labels: Array, config: PartitionConfig) -> list[Array]:
    """Rows of each class that occurs, classes ascending."""
    if labels.dtype.kind not in "iu":
        raise DataError(f"partition: the scheme {config.scheme} needs class labels, the data set has values")
    order = np.argsort(labels, kind="stable")
    changes = np.flatnonzero(np.diff(labels[order].astype(np.int64)))
    return np.split(order, changes + 1)


def _fill_empty(owner: Array, count: int) -> Array:
    """Give every empty part, lowest first, the last example of the part that is then the largest (lowest at ties)."""
    sizes = np.bincount(owner, minlength=count)
    empty = np.flatnonzero(sizes == 0)
    if len(empty) == 0:
        return owner
    filled = owner.copy()
    grouped = np.argsort(owner, kind="stable")
    ends = np.cumsum(sizes)
    largest = [(-int(size), part) for part, size in enumerate(sizes) if size > 0]
    heapq.heapify(largest)
    for part in empty:
        negative, donor = heapq.heappop(largest)
        filled[grouped[ends[donor] - 1]] = part
        ends[donor] -= 1
        heapq.heappush(largest, (negative + 1, donor))
    return filled
