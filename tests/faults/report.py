"""Counts of fault runs by class: collected from the tests, written as JSON."""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from tests.faults.evidence import Evidence
from tests.faults.oracles import lost_rounds, repeated_work

PROPERTY = "fault run"
"""Under this name a test passes a run on to whoever counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRun:
    """One run with a fault, as it was judged."""

    fault_class: str
    where: str = "local"
    """Where it took place, as the documentation groups them: ``local``, ``api``, ``e2e``."""
    happened: bool
    """Whether the fault happened at all; there may be fewer calls than in another run."""
    lost: int
    """Rounds that were called committed and are not there."""
    repeated: int
    """Rounds that were committed again, and trainings by clients that had trained already."""
    violations: int
    """Sentences of the oracles."""
    more_writes: int
    """Writes beyond those of the undisturbed run; negative where there were fewer."""


def judged(fault_class: str, before: Evidence, after: Evidence, told: list[str], *, happened: bool) -> FaultRun:
    """Count one run."""
    return FaultRun(
        fault_class=fault_class,
        happened=happened,
        lost=lost_rounds(after),
        repeated=repeated_work(after),
        violations=len(told),
        more_writes=after.writes - before.writes,
    )


class Collector:
    """A plugin of pytest that counts what tests pass on, from all workers.

    Args:
        path: Where the counts go; those of other places that are there already are kept.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._runs: list[FaultRun] = []
        self._failed: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A part of a test is over."""
        self._failed[_place(report.nodeid)] += report.failed
        if report.when == "call":
            self._runs += [FaultRun(**value) for name, value in report.user_properties if name == PROPERTY]

    def pytest_sessionfinish(self) -> None:
        """All tests are over."""
        document = json.loads(self._path.read_bytes()) if self._path.exists() else {}
        for where in {run.where for run in self._runs}:
            runs = [run for run in self._runs if run.where == where]
            document[where] = {"failedTests": self._failed[where], "classes": _summary(runs)}
        self._path.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _place(test: str) -> str:
    """Where the runs of a test take place, by the folder that it is in."""
    return next((place for place in ("api", "e2e") if f"/{place}/" in test), "local")


def as_property(run: FaultRun) -> tuple[str, dict[str, object]]:
    """A run in the form in which pytest passes it on between processes."""
    return PROPERTY, asdict(run)


def _summary(runs: list[FaultRun]) -> dict[str, dict[str, int]]:
    """Sums by class; runs in which the fault did not happen are not counted as fault runs."""
    classes = sorted({run.fault_class for run in runs})
    return {name: _sums([run for run in runs if run.fault_class == name]) for name in classes}


def _sums(runs: list[FaultRun]) -> dict[str, int]:
    return {
        "runs": sum(run.happened for run in runs),
        "notReached": sum(not run.happened for run in runs),
        "lost": sum(run.lost for run in runs),
        "repeated": sum(run.repeated for run in runs),
        "violations": sum(run.violations for run in runs),
        "mostWritesMore": max(run.more_writes for run in runs),
        "mostWritesFewer": max(-run.more_writes for run in runs),
    }
