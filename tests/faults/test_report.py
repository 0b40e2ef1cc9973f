"""What is counted of fault runs, and of recoveries."""

import json

import pytest

from tests.faults.recovery import GOALS
from tests.faults.report import Collector, FaultRun, as_property
from tests.faults.seconds import percentile, rows


class Report:
    """A part of a test, as pytest tells of it."""

    def __init__(self, *runs, when="call", failed=False, nodeid="tests/faults/test_something.py::test_it"):
        self.nodeid = nodeid
        self.user_properties = [as_property(run) for run in runs]
        self.when = when
        self.failed = failed


def a_run(**fields):
    values = {"fault_class": "client killed", "happened": True, "lost": 0, "repeated": 0, "violations": 0}
    values |= {"more_writes": 0}
    return FaultRun(**{**values, **fields})


def counted(tmp_path, *reports):
    collector = Collector(tmp_path / "report.json")
    for report in reports:
        collector.pytest_runtest_logreport(report)
    collector.pytest_sessionfinish()
    return json.loads((tmp_path / "report.json").read_text())["local"]


def test_runs_are_summed_by_class(tmp_path):
    told = counted(
        tmp_path,
        Report(a_run()),
        Report(a_run(lost=1, violations=2)),
        Report(a_run(fault_class="operator killed", repeated=3)),
    )
    counts = ("runs", "notReached", "lost", "repeated", "violations")
    sums = {kind: [found[name] for name in counts] for kind, found in told["classes"].items()}
    assert sums == {"client killed": [2, 0, 1, 0, 2], "operator killed": [1, 0, 0, 3, 0]}


def test_the_largest_differences_in_writes_are_kept(tmp_path):
    told = counted(tmp_path, Report(a_run(more_writes=4)), Report(a_run(more_writes=-3)), Report(a_run()))
    found = told["classes"]["client killed"]
    assert (found["mostWritesMore"], found["mostWritesFewer"]) == (4, 3)


def test_a_run_whose_fault_did_not_happen_is_no_fault_run(tmp_path):
    told = counted(tmp_path, Report(a_run(happened=False)))
    assert told["classes"]["client killed"]["runs"] == 0
    assert told["classes"]["client killed"]["notReached"] == 1


def test_a_test_that_fails_anywhere_is_counted_and_its_run_only_once(tmp_path):
    told = counted(
        tmp_path, Report(a_run(), when="setup"), Report(a_run(), failed=True), Report(a_run(), when="teardown")
    )
    assert told["failedTests"] == 1
    assert told["classes"]["client killed"]["runs"] == 1


def test_places_are_counted_each_for_itself_and_those_that_were_not_run_are_kept(tmp_path):
    file = tmp_path / "report.json"
    file.write_text(json.dumps({"e2e": {"failedTests": 0, "classes": {}}}))
    here, there = Report(a_run()), Report(a_run(where="api"), failed=True, nodeid="tests/faults/api/test_x.py::test_it")
    assert counted(tmp_path, here, there)["failedTests"] == 0
    told = json.loads(file.read_text())
    assert sorted(told) == ["api", "e2e", "local"]
    assert told["api"]["failedTests"] == 1


@pytest.mark.parametrize(
    ("count", "share", "expected"), [(1, 0.5, 1), (2, 0.5, 1), (20, 0.5, 10), (20, 0.95, 19), (100, 0.95, 95)]
)
def test_a_percentile_is_the_smallest_value_that_so_many_are_not_above(count, share, expected):
    assert percentile([float(number) for number in range(count, 0, -1)], share) == expected


def test_the_document_of_recoveries_has_each_goal():
    told = rows({name: [1.0, 2.0, 3.0] for name in GOALS}, GOALS)
    assert [row["goalSeconds"] for row in told.values()] == list(GOALS.values())
    assert {(row["times"], row["p50Seconds"], row["p95Seconds"]) for row in told.values()} == {(3, 2.0, 3.0)}
