"""The patch that turns one status into another."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedjob_operator.adapters.kube.patch import finite, status_patch
from tests.unit.controller.kube.fake_api import merge

SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.5, 1.0]) | st.sampled_from("ab")
KEYS = st.sampled_from(["a", "b", "c", "d"])
VALUES = st.recursive(
    SCALARS.filter(lambda value: value is not None),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
STATUSES = st.dictionaries(KEYS, VALUES, max_size=4)


def same(one, other):
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


@given(STATUSES, STATUSES)
def test_the_patch_makes_one_status_the_other(before, after):
    assert same(merge(before, status_patch(before, before, after)), after)


@given(STATUSES)
def test_nothing_is_sent_when_nothing_changes(status):
    assert status_patch(status, status, status) == {}


def test_only_what_changes_is_sent():
    before = {"phase": "Running", "rounds": {"committed": 3, "total": 9}, "metrics": [1, 2]}
    after = {"phase": "Running", "rounds": {"committed": 4, "total": 9}, "metrics": [1, 2]}
    assert status_patch(before, before, after) == {"rounds": {"committed": 4}}


def test_what_ends_is_null():
    before = {"currentRound": {"number": 1, "deadline": "soon"}, "reason": "x"}
    assert status_patch(before, before, {"currentRound": {"number": 1}}) == {
        "currentRound": {"deadline": None},
        "reason": None,
    }


def test_what_another_release_wrote_stays():
    held = {"phase": "Running", "weather": "fine", "rounds": {"committed": 1, "planned": 7}}
    before = {"phase": "Running", "rounds": {"committed": 1}}
    after = {"phase": "Complete", "rounds": {"committed": 2}}
    patch = status_patch(held, before, after)
    assert patch == {"phase": "Complete", "rounds": {"committed": 2}}


def test_defaults_that_the_server_does_not_hold_are_sent():
    assert status_patch({}, {"phase": "Pending"}, {"phase": "Pending"}) == {"phase": "Pending"}


def test_true_is_not_one():
    assert status_patch({"a": 1}, {"a": 1}, {"a": True}) == {"a": True}


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("value", "left", "lost"),
    [
        ({"a": 1.5}, {"a": 1.5}, 0),
        ({"a": NAN, "b": 1}, {"b": 1}, 1),
        ({"metrics": [{"name": "loss", "value": INF}, {"name": "accuracy", "value": 0.5}]},
         {"metrics": [{"name": "accuracy", "value": 0.5}]}, 1),
        ({"a": [1.0, -INF, NAN]}, {"a": [1.0]}, 2),
        ({"best": {"round": 1, "value": NAN}}, {"best": {"round": 1}}, 1),
    ],
)  # fmt: skip
def test_numbers_that_no_api_server_takes_are_left_out(value, left, lost):
    assert finite(value) == (left, lost)


@given(st.recursive(st.floats() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner)))
def test_what_is_left_is_json(value):
    left, lost = finite({"a": value})
    json.dumps(left, allow_nan=False)
    if not lost:
        assert left == {"a": value}
