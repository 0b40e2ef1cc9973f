"""What may be changed in a job that is there."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedjob_operator.api.immutable import immutable_changes
from fedjob_operator.api.resolve import layout
from tests.support.spec_changes import ALLOWED, GROUP, REFUSED, SUSPENDED
from tests.unit.controller.api_samples import spec


def changes(before, after, **state):
    return [str(problem) for problem in immutable_changes(spec(**before), spec(**after), **state)]


@pytest.mark.parametrize("change", ALLOWED, ids=str)
def test_what_may_be_changed(change):
    assert changes(change.old, change.new) == []


@pytest.mark.parametrize("change", REFUSED, ids=str)
def test_what_may_not_be_changed(change):
    assert changes(change.old, change.new) == [change.refused]


@pytest.mark.parametrize("change", [change for change in ALLOWED if change.before is SUSPENDED], ids=str)
def test_what_describes_pods_may_be_changed_only_while_there_are_none(change):
    running = {**change.old, "suspend": False}
    assert changes(running, {**running, **change.after}) != []


def test_rounds_are_not_lowered_below_what_is_committed():
    assert changes({}, {"rounds": 2}, committed=2) == []
    assert changes({}, {"rounds": 1}, committed=2) == ["spec.rounds: 1 is less than the rounds that are committed (2)"]


def test_a_complete_job_gets_no_more_rounds():
    assert changes({}, {"rounds": 9}, complete=True) == ["spec.rounds: cannot be raised to 9: the job is complete"]
    assert changes({}, {"rounds": 3}, complete=True) == []


def test_replicas_stay_within_what_data_were_divided_for():
    five, six, four = ({"clientGroups": [{"name": "a", "replicas": count}]} for count in (5, 6, 4))
    fixed = layout(spec(**five))
    line = "spec.clientGroups[0].replicas: 6 is more than maxReplicas (5)"
    assert changes(five, six) == [line]
    assert changes(four, five, layout=fixed) == []  # lowered before, and back again
    assert changes(four, six, layout=fixed) == [line]


@given(st.booleans(), st.integers(-1, 3))
def test_no_change_is_always_allowed(suspend, committed):
    same = {"suspend": suspend, "clientGroups": [{**GROUP, "template": {"a": [1]}}]}
    assert changes(same, same, committed=committed, layout=layout(spec(**same))) == []
