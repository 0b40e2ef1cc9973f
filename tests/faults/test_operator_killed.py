"""`fedjob run` is killed right before and right after each write of the status and each call to a program."""

import pytest

from tests.faults.jobs import ALL_OF_THREE, JOBS, THREE_OF_SIX
from tests.support.faults.local import run
from tests.support.faults.points import Fault

MOST = {
    "status write": 14,
    "status rename": 14,
    "call": 32,
    "pod create": {ALL_OF_THREE.name: 5, THREE_OF_SIX.name: 7},
    "pod delete": {ALL_OF_THREE.name: 4, THREE_OF_SIX.name: 6},
}
"""No undisturbed run has more calls."""
CERTAIN = 0.6
"""This share of the calls is in every run; how often progress is looked at, and told, depends on time."""


def most(point, job):
    """As many calls as are struck."""
    found = MOST[point]
    return found if isinstance(found, int) else found[job]


STRIKES = [
    pytest.param(job, point, when, nth, id=f"{job}-{when}-{point}-{nth}".replace(" ", "-"))
    for job in (ALL_OF_THREE.name, THREE_OF_SIX.name)
    for point in MOST
    for when in ("before", "after")
    for nth in range(1, most(point, job) + 1)
    if (point, when) != ("status rename", "after")  # which is right before the end of the write
]


@pytest.mark.parametrize(("job", "point", "when", "nth"), STRIKES)
def test_a_job_whose_operator_is_killed_is_resumed_as_if_nothing_had_happened(
    programs, undisturbed, judge, tmp_path, job, point, when, nth
):
    calm = undisturbed(JOBS[job])
    outcome = run(programs, tmp_path, JOBS[job], Fault(program="fedjob", point=point, when=when, nth=nth))
    assert outcome.exit == 0, outcome.output
    assert outcome.happened or nth > CERTAIN * calm.count(point)
    judge("operator killed", calm.evidence, outcome.evidence, happened=bool(outcome.happened), output=outcome.output)


@pytest.mark.parametrize("job", [ALL_OF_THREE.name, THREE_OF_SIX.name])
def test_every_call_of_an_undisturbed_run_is_struck(undisturbed, job):
    calm = undisturbed(JOBS[job])
    assert {point: calm.count(point) for point in MOST if calm.count(point) > most(point, job)} == {}
