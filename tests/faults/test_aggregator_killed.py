"""The aggregator is killed at each step of a round: opening, receiving, folding, making durable, answering."""

import pytest

from tests.faults.jobs import ALL_OF_THREE, JOBS, LARGE_UPDATES, SERVER_ADAM, SPOOLED, THREE_OF_SIX
from tests.support.faults.local import run
from tests.support.faults.points import Fault

BEFORE_AND_AFTER = ("before", "after")
STEPS = {
    ALL_OF_THREE.name: {
        "start": (("before",), 1),
        "open": (BEFORE_AND_AFTER, 4),
        "claim": (BEFORE_AND_AFTER, 1),
        "receive": (BEFORE_AND_AFTER, 10),
        "fold": (BEFORE_AND_AFTER, 9),
        "commit": (BEFORE_AND_AFTER, 4),
        "checkpoint write": (("half",), 20),
        "fsync": (BEFORE_AND_AFTER, 28),
        "rename": (BEFORE_AND_AFTER, 12),
        "remove": (("before",), 10),
        "log write": (("half",), 4),
        "log append": (BEFORE_AND_AFTER, 7),
        "answer": (BEFORE_AND_AFTER, 22),
    },
    THREE_OF_SIX.name: {
        "receive": (BEFORE_AND_AFTER, 10),
        "fold": (BEFORE_AND_AFTER, 9),
        "fsync": (BEFORE_AND_AFTER, 22),
        "rename": (BEFORE_AND_AFTER, 9),
    },
    LARGE_UPDATES.name: {
        "piece": (("before",), 12),
        "fold": (BEFORE_AND_AFTER, 4),
        "checkpoint write": (("half",), 18),
        "fsync": (BEFORE_AND_AFTER, 17),
    },
    SERVER_ADAM.name: {
        "commit": (BEFORE_AND_AFTER, 4),
        "checkpoint write": (("half",), 26),
        "fsync": (BEFORE_AND_AFTER, 25),
        "rename": (BEFORE_AND_AFTER, 12),
        "remove": (("before",), 8),
    },
    SPOOLED.name: {
        "open": (BEFORE_AND_AFTER, 3),
        "fold": (BEFORE_AND_AFTER, 10),
        "commit": (BEFORE_AND_AFTER, 3),
    },
}
"""By job and point: of which side of the call, and how many calls an undisturbed run has (of pieces, at least)."""

STRIKES = [
    pytest.param(job, point, when, nth, id=f"{job}-{when}-{point}-{nth}".replace(" ", "-"))
    for job, points in STEPS.items()
    for point, (sides, count) in points.items()
    for when in sides
    for nth in range(1, count + 1)
]


@pytest.mark.parametrize(("job", "point", "when", "nth"), STRIKES)
def test_a_round_whose_aggregator_is_killed_is_tried_again_and_committed_once(
    programs, undisturbed, judge, tmp_path, job, point, when, nth
):
    outcome = run(programs, tmp_path, JOBS[job], Fault(program="aggregator", point=point, when=when, nth=nth))
    assert outcome.exit == 0, outcome.output
    calm = undisturbed(JOBS[job])
    assert outcome.happened or nth > calm.count(point, program="aggregator") or point == "answer", "it was not killed"
    happened = bool(outcome.happened)
    judge("aggregator killed", calm.evidence, outcome.evidence, happened=happened, output=outcome.output)


@pytest.mark.parametrize("job", STEPS)
def test_every_step_of_an_undisturbed_round_is_struck(undisturbed, job):
    calm = undisturbed(JOBS[job])
    seen = {point: calm.count(point, program="aggregator") for point in STEPS[job] if point not in ("piece", "answer")}
    # a record is kept once more where the next round is opened before the log says that it is kept: it is there once
    kept = seen.pop("log append", None)
    assert seen == {point: STEPS[job][point][1] for point in seen}
    assert kept is None or kept >= STEPS[job]["log append"][1]
