import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjob_client.data.partition import STREAM, _dirichlet, _quantity, owners, partition
from fedjob_client.errors import DataError
from fedjob_protocol.config import PartitionConfig, PartitionScheme

SCHEMES = list(PartitionScheme)


def a_config(scheme: PartitionScheme, *, index: int = 0, count: int = 5, **values: float) -> PartitionConfig:
    return PartitionConfig.model_validate({"scheme": scheme, "index": index, "count": count, "seed": 3} | values)


def some_labels(examples: int = 600, classes: int = 10) -> np.ndarray:
    return np.random.default_rng(5).integers(0, classes, size=examples)


@settings(max_examples=100, deadline=None)
@given(
    scheme=st.sampled_from(SCHEMES),
    labels=st.lists(st.integers(0, 6), min_size=40, max_size=120),
    count=st.integers(1, 20),
    alpha=st.sampled_from([0.01, 0.5, 10.0, 1e6]),
    seed=st.integers(0, 2**63 - 1),
)
def test_parts_are_disjoint_never_empty_and_together_everything_or_the_data_are_refused(
    scheme, labels, count, alpha, seed
):
    y = np.array(labels)
    configs = [
        PartitionConfig(scheme=scheme, index=index, count=count, alpha=alpha, seed=seed) for index in range(count)
    ]
    try:
        parts = [partition(y, config) for config in configs]
    except DataError:
        assert scheme not in (PartitionScheme.IID, PartitionScheme.SHARDS)
        for config in configs:
            with pytest.raises(DataError, match="without an example"):
                partition(y, config)
        return
    assert all(len(part) > 0 for part in parts)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(y)))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_same_seed_divides_the_same_way_whoever_asks_and_in_whatever_order(scheme):
    labels = some_labels()
    forwards = [partition(labels, a_config(scheme, index=index)) for index in range(5)]
    backwards = [partition(labels.copy(), a_config(scheme, index=index)) for index in reversed(range(5))]
    assert all(np.array_equal(one, other) for one, other in zip(forwards, reversed(backwards), strict=True))


@pytest.mark.parametrize("scheme", [scheme for scheme in SCHEMES if scheme is not PartitionScheme.BY_LABEL])
def test_another_seed_divides_another_way(scheme):
    labels = some_labels()
    assert not np.array_equal(owners(labels, a_config(scheme)), owners(labels, a_config(scheme, seed=4)))


def test_iid_parts_have_equal_sizes_and_all_classes():
    labels = some_labels(602)
    sizes = np.bincount(owners(labels, a_config(PartitionScheme.IID)), minlength=5)
    assert sizes.max() - sizes.min() <= 1
    assert len(np.unique(labels[partition(labels, a_config(PartitionScheme.IID))])) == 10


def test_a_small_alpha_is_skewed_and_a_large_one_is_not():
    labels = some_labels(5000)

    def largest_share(alpha: float) -> float:
        """Of a class in one client's hands, mean over the classes."""
        owner = owners(labels, a_config(PartitionScheme.DIRICHLET, alpha=alpha))
        return float(
            np.mean([np.bincount(owner[labels == label]).max() / (labels == label).sum() for label in range(10)])
        )

    assert largest_share(1e6) < 0.21
    assert largest_share(0.05) > 0.7


@pytest.mark.parametrize("scheme", [PartitionScheme.DIRICHLET, PartitionScheme.QUANTITY_SKEW])
def test_a_draw_that_leaves_a_client_empty_is_drawn_again_the_same_way_for_all(scheme):
    labels = some_labels(40)
    drawn_again = 0
    for seed in range(20):
        config = a_config(scheme, count=6, alpha=0.6, seed=seed)
        first = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, STREAM))))
        single = (
            _quantity(40, 6, 0.6, first)
            if scheme is PartitionScheme.QUANTITY_SKEW
            else _dirichlet([np.flatnonzero(labels == label) for label in np.unique(labels)], 6, 0.6, first)
        )
        owner = owners(labels, config)
        assert np.bincount(owner, minlength=6).min() > 0
        has_empty = np.bincount(single, minlength=6).min() == 0
        assert np.array_equal(owner, single) != has_empty
        drawn_again += has_empty
        assert np.array_equal(owner, owners(labels, config))
    assert scheme is PartitionScheme.DIRICHLET or 0 < drawn_again < 20


@pytest.mark.parametrize("scheme", [PartitionScheme.DIRICHLET, PartitionScheme.QUANTITY_SKEW])
def test_a_scheme_that_always_leaves_a_client_empty_is_refused_and_names_it(scheme):
    labels = np.zeros(30, dtype=np.int64)
    with pytest.raises(
        DataError,
        match=rf"{scheme} with alpha 1e-06 left clients without an example in each of 100 draws, .* and 4 more of 10",
    ):
        owners(labels, a_config(scheme, count=10, alpha=1e-6))


def test_shards_give_a_client_few_classes():
    labels = np.repeat(np.arange(10), 60)
    for index in range(5):
        own = partition(labels, a_config(PartitionScheme.SHARDS, index=index))
        assert len(own) == 120
        assert len(np.unique(labels[own])) <= 2


def test_by_label_gives_whole_classes_and_shares_them_when_there_are_more_clients():
    labels = np.repeat(np.arange(4), 10)
    two = [set(labels[partition(labels, a_config(PartitionScheme.BY_LABEL, count=2, index=i))]) for i in range(2)]
    assert two == [{0, 2}, {1, 3}]
    eight = [set(labels[partition(labels, a_config(PartitionScheme.BY_LABEL, count=8, index=i))]) for i in range(8)]
    assert eight == [{0}, {1}, {2}, {3}] * 2


def test_quantity_skew_gives_very_different_sizes_of_the_same_mixture():
    labels = some_labels(20_000)
    owner = owners(labels, a_config(PartitionScheme.QUANTITY_SKEW, alpha=0.3))
    sizes = np.bincount(owner, minlength=5)
    assert sizes.max() > 5 * sizes.min()
    shares = np.bincount(labels[owner == sizes.argmax()]) / sizes.max()
    assert shares.max() < 0.15


@pytest.mark.parametrize(
    ("config", "examples", "complaint"),
    [
        (a_config(PartitionScheme.IID, count=50), 49, "49 examples cannot be divided among 50 clients"),
        (a_config(PartitionScheme.IID, index=5), 100, "part 5 of 5 does not exist"),
        (a_config(PartitionScheme.SHARDS), 9, "10 shards"),
        (a_config(PartitionScheme.BY_LABEL, count=11), 10, "10 examples cannot be divided among 11 clients"),
    ],
)
def test_what_cannot_be_divided_is_refused(config, examples, complaint):
    with pytest.raises(DataError, match=complaint):
        partition(np.zeros(examples, dtype=np.int64), config)


def test_a_class_that_is_too_small_for_its_clients_is_named():
    labels = np.array([0] * 20 + [1, 1])
    with pytest.raises(DataError, match="class 1 has 2 examples for 3 of the 6 clients; use fewer clients"):
        owners(labels, a_config(PartitionScheme.BY_LABEL, count=6))


def test_label_skew_of_values_is_refused():
    with pytest.raises(DataError, match="needs class labels"):
        partition(np.linspace(0, 1, 100), a_config(PartitionScheme.DIRICHLET))
