"""What may be changed in a job that is there."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedjob_operator.api.immutable import immutable_changes
from fedjob_operator.api.resolve import layout
from tests.unit.controller.api_samples import spec

GROUP = {"name": "a", "replicas": 5, "maxReplicas": 8}


def changes(before, after, **state):
    return [str(problem) for problem in immutable_changes(spec(**before), spec(**after), **state)]


@pytest.mark.parametrize(
    "after",
    [
        {"suspend": True},
        {"rounds": 9},
        {"rounds": 1},
        {"stop": {"target": 0.5}},
        {"serve": {"replicas": 1}},
        {"roundPolicy": {"deadlineSeconds": 5}},
        {"startupDeadlineSeconds": 5},
        {"activeDeadlineSeconds": 5},
        {"ttlSecondsAfterFinished": 0},
        {"evaluation": {"deadlineSeconds": 5}},
        {"clientGroups": [{**GROUP, "replicas": 8}]},
        {"clientGroups": [{**GROUP, "replicas": 0}]},
        {"seed": 0, "roundPolicy": {"overSelect": 0}},  # what was the default is no change
    ],
)
def test_what_may_be_changed_at_any_time(after):
    assert changes({"clientGroups": [GROUP]}, {"clientGroups": [GROUP], **after}) == []


@pytest.mark.parametrize(
    ("after", "line"),
    [
        ({"seed": 1}, "spec.seed: cannot be changed (0 before, 1 now)"),
        ({"model": {"name": "cnn"}}, 'spec.model.name: cannot be changed ("mlp" before, "cnn" now)'),
        ({"data": None}, "spec.data: cannot be changed (a mapping before, not given now)"),
        (
            {"data": {"name": "digits", "maxTrainSamples": 5}},
            "spec.data.maxTrainSamples: cannot be changed (not given before, 5 now)",
        ),
        ({"training": {"epochs": 2}}, "spec.training.epochs: cannot be changed (1 before, 2 now)"),
        (
            {"training": {"parameters": {"a": 1}}},
            "spec.training.parameters.a: cannot be changed (not given before, 1 now)",
        ),
        (
            {"roundPolicy": {"minReports": 3}},
            "spec.roundPolicy.minReports: cannot be changed (not given before, 3 now)",
        ),
        ({"minClients": 3}, "spec.minClients: cannot be changed (not given before, 3 now)"),
        ({"joinWaitSeconds": 5}, "spec.joinWaitSeconds: cannot be changed (60 before, 5 now)"),
        (
            {"objective": {"metric": "loss", "mode": "Min"}},
            "spec.objective: cannot be changed (not given before, a mapping now)",
        ),
        ({"aggregator": {"replicas": 3}}, "spec.aggregator.replicas: cannot be changed (1 before, 3 now)"),
        ({"evaluation": {"modes": []}}, "spec.evaluation.modes: cannot be changed (1 entries before, 0 entries now)"),
        (
            {"clientGroups": [{**GROUP, "name": "b"}]},
            'spec.clientGroups[0].name: cannot be changed ("a" before, "b" now)',
        ),
        (
            {"clientGroups": [GROUP, {"name": "b", "replicas": 1}]},
            "spec.clientGroups: cannot be changed (1 entries before, 2 entries now)",
        ),
        (
            {"clientGroups": [{**GROUP, "maxReplicas": 9}]},
            "spec.clientGroups[0].maxReplicas: cannot be changed (8 before, 9 now)",
        ),
        (
            {"clientGroups": [{**GROUP, "image": "x"}]},
            'spec.clientGroups[0].image: cannot be changed unless the job is suspended (not given before, "x" now)',
        ),
    ],
)
def test_what_may_not_be_changed(after, line):
    assert changes({"clientGroups": [GROUP]}, {"clientGroups": [GROUP], **after}) == [line]


@pytest.mark.parametrize(
    "after",
    [
        {"clientGroups": [{**GROUP, "image": "x", "gpus": 1, "template": {"spec": {}}}]},
        {"evaluation": {"gpus": 1, "template": {}}},
        {"aggregator": {"template": {}}},
        {"suspend": False, "evaluation": {"gpus": 1}},  # changed and resumed at once
    ],
)
def test_what_describes_pods_may_be_changed_while_there_are_none(after):
    before = {"suspend": True, "clientGroups": [GROUP]}
    assert changes(before, {**before, **after}) == []
    assert changes({**before, "suspend": False}, {**before, **after})


def test_removing_a_value_is_a_change_too():
    with_reports = {"roundPolicy": {"minReports": 3}}
    assert changes(with_reports, {}) == ["spec.roundPolicy.minReports: cannot be changed (3 before, not given now)"]


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
