"""A template is laid over a pod as a strategic merge patch would be."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedjob_operator.build.merge import merged

scalars = st.one_of(st.booleans(), st.integers(-5, 5), st.text(max_size=3))
names = st.sampled_from(["containers", "env", "name", "image", "volumes", "spec", "args"])
documents = st.recursive(
    st.dictionaries(names, scalars, max_size=4),
    lambda inner: st.dictionaries(names, st.one_of(scalars, inner, st.lists(st.one_of(scalars, inner), max_size=3))),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("base", "over", "expected"),
    [
        ({"a": 1, "b": 2}, {"b": 3, "c": 4}, {"a": 1, "b": 3, "c": 4}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}}, {"a": {"b": 1, "c": 3}}),
        ({"a": 1, "b": 2}, {"a": None}, {"b": 2}),
        (
            {"containers": [{"name": "client", "image": "ours", "args": ["a"]}]},
            {"containers": [{"name": "client", "args": ["b"]}, {"name": "sidecar"}]},
            {"containers": [{"name": "client", "image": "ours", "args": ["b"]}, {"name": "sidecar"}]},
        ),
        (
            {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
            {"env": [{"name": "B", "value": "3"}]},
            {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "3"}]},
        ),
        (
            {"ports": [{"containerPort": 53, "protocol": "TCP"}]},
            {"ports": [{"containerPort": 53, "protocol": "UDP"}]},
            {"ports": [{"containerPort": 53, "protocol": "TCP"}, {"containerPort": 53, "protocol": "UDP"}]},
        ),
        ({"tolerations": [{"key": "a"}]}, {"tolerations": [{"key": "b"}]}, {"tolerations": [{"key": "b"}]}),
        ({"containers": [{"name": "client"}]}, {"containers": "nonsense"}, {"containers": "nonsense"}),
    ],
    ids=["scalars", "maps", "null", "containers", "env", "two-keys", "atomic-list", "nonsense"],
)
def test_merging(base, over, expected):
    assert merged(base, over) == expected


@given(documents)
def test_nothing_laid_over_a_document_changes_nothing(document):
    assert merged(document, {}) == document


@given(documents, documents)
def test_merging_leaves_what_it_was_given(base, over):
    before = copy.deepcopy((base, over))
    merged(base, over)
    assert (base, over) == before


@given(documents, documents)
def test_merging_the_same_again_changes_nothing(base, over):
    named = merged(base, over)
    if not _has_nameless_entries(over):
        assert merged(named, over) == named


def _has_nameless_entries(value):
    """Entries without a name are appended each time; the API server refuses them."""
    if isinstance(value, dict):
        return any(_has_nameless_entries(item) for item in value.values())
    if isinstance(value, list):
        return any(not isinstance(item, dict) or "name" not in item or _has_nameless_entries(item) for item in value)
    return False
