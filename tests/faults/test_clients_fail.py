"""Clients are killed in each phase, stop, are slow, upload wrongly, or crash again and again."""

import random
import signal

import pytest

from tests.faults.jobs import ALL_OF_TEN, ALL_OF_THREE, LARGE_UPDATES
from tests.support.faults.local import run
from tests.support.faults.points import Fault

PHASES = {
    "starting": ("start", "before", 1),
    "fetching the model": ("fetch", "after", 2),
    "before training": ("train", "before", 2),
    "training": ("epoch", "before", 3),
    "trained": ("train", "after", 2),
    "before uploading": ("upload", "before", 2),
    "uploaded": ("upload", "after", 2),
}
"""Point, side and call by phase: of round 2, but for the first."""
SHARES = (0.0, 0.1, 0.3, 0.5)
SECONDS_TO_WAIT = 2
"""The deadline of rounds in which somebody is not waited for."""
IMPATIENT = ALL_OF_THREE.policy(deadlineSeconds=SECONDS_TO_WAIT, minReports=2)
"""A job that goes on without its third client at the deadline."""


def victims(share, phase):
    """Some of ten clients; the first makes the initial model, so its uploads count differently."""
    return random.Random(f"{phase}/{share}").sample(range(1, 10), k=round(share * 10))


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("phase", PHASES)
def test_clients_that_are_killed_come_back_and_nobody_notices(programs, undisturbed, judge, tmp_path, phase, share):
    point, when, nth = PHASES[phase]
    killed = victims(share, phase)
    faults = [Fault(program=f"client-{index}", point=point, when=when, nth=nth) for index in killed]
    outcome = run(programs, tmp_path, ALL_OF_TEN, *faults)
    assert outcome.exit == 0, outcome.output
    assert outcome.happened == len(killed)
    calm = undisturbed(ALL_OF_TEN).evidence
    judge("client killed", calm, outcome.evidence, happened=bool(killed), output=outcome.output)


@pytest.mark.parametrize("client", [0, 1])
def test_a_client_that_is_killed_in_the_middle_of_its_upload_sends_it_again(
    programs, undisturbed, judge, tmp_path, client
):
    fault = Fault(program=f"client-{client}", point="upload body", when="half", nth=2)
    outcome = run(programs, tmp_path, LARGE_UPDATES, fault)
    assert outcome.exit == 0, outcome.output
    assert outcome.happened == 1
    judge("client killed", undisturbed(LARGE_UPDATES).evidence, outcome.evidence, output=outcome.output)


@pytest.mark.parametrize("phase", ["before training", "training", "trained", "before uploading"])
def test_a_client_that_crashes_again_and_again_is_lost_and_the_others_go_on(
    programs, undisturbed, judge, tmp_path, phase
):
    job = ALL_OF_TEN.policy(minReports=9).group(backoffLimit=2).having(minClients=9)
    point, when, _ = PHASES[phase]
    outcome = run(programs, tmp_path, job, Fault(program="client-3", point=point, when=when, times=100))
    assert outcome.exit == 0, outcome.output
    assert outcome.happened == 3
    assert outcome.evidence.status.clients.lost_indices == (3,)
    judge("client lost", undisturbed(ALL_OF_TEN).evidence, outcome.evidence, output=outcome.output)


def test_a_client_that_is_stopped_is_not_waited_for_beyond_the_deadline(programs, undisturbed, judge, tmp_path):
    def go_on(live):
        live.until(lambda: live.folder.committed() >= 2, "the commit of the round without it")
        (stopped,) = live.living("client-1")
        stopped.signal(signal.SIGCONT)

    fault = Fault(program="client-1", point="train", nth=2, action="stop")
    outcome = run(programs, tmp_path, IMPATIENT, fault, meanwhile=go_on)
    assert outcome.exit == 0, outcome.output
    assert outcome.happened == 1
    without = outcome.evidence.rounds[2]
    assert (without.close_reason, [item.client for item in without.contributors]) == ("Deadline", [0, 2])
    judge("client stopped or slow", undisturbed(ALL_OF_THREE).evidence, outcome.evidence, output=outcome.output)


def test_a_client_that_is_slow_is_not_waited_for_beyond_the_deadline(programs, undisturbed, judge, tmp_path):
    def slow_down(live):
        held = live.hold(2, 2)
        live.until(lambda: live.folder.committed() >= 2, "the commit of the round without it")
        held.unlink()

    outcome = run(programs, tmp_path, IMPATIENT, meanwhile=slow_down)
    assert outcome.exit == 0, outcome.output
    without = outcome.evidence.rounds[2]
    assert (without.close_reason, [item.client for item in without.contributors]) == ("Deadline", [0, 1])
    judge("client stopped or slow", undisturbed(ALL_OF_THREE).evidence, outcome.evidence, output=outcome.output)


def test_an_update_that_comes_late_is_refused_and_in_no_model(programs, undisturbed, judge, tmp_path):
    fault = Fault(program="client-1", point="upload", when="late", nth=2)
    outcome = run(programs, tmp_path, IMPATIENT, fault)
    assert outcome.exit == 0, outcome.output
    (answer,) = outcome.answers("upload when the round was closed")
    # The client gives up at its own deadline, too, and says so: whichever the aggregator heard first.
    assert answer in ("round-closed", "already-reported")
    assert [item.client for item in outcome.evidence.rounds[2].contributors] == [0, 2]
    judge("upload sent late", undisturbed(ALL_OF_THREE).evidence, outcome.evidence, output=outcome.output)


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_an_update_that_is_sent_twice_counts_once(programs, undisturbed, judge, tmp_path, nth):
    fault = Fault(program="client-1", point="upload", when="twice", nth=nth)
    outcome = run(programs, tmp_path, ALL_OF_THREE, fault)
    assert outcome.exit == 0, outcome.output
    (answer,) = outcome.answers("upload again")
    # The same update of a round that is open changes nothing; it may have been committed meanwhile.
    assert answer in (None, "round-closed")
    judge("upload sent wrongly", undisturbed(ALL_OF_THREE).evidence, outcome.evidence, output=outcome.output)


def test_an_update_for_an_older_attempt_is_refused_and_in_no_model(programs, undisturbed, judge, tmp_path):
    faults = [
        Fault(program="aggregator", point="fold", nth=4),  # the first of round 2
        Fault(program="client-1", point="upload", when="older", calls=100),
    ]
    outcome = run(programs, tmp_path, ALL_OF_THREE, *faults)
    assert outcome.exit == 0, outcome.output
    assert outcome.evidence.rounds[2].attempt == 2
    assert outcome.answers("upload for the attempt before") == ["stale-attempt"]
    judge("upload sent wrongly", undisturbed(ALL_OF_THREE).evidence, outcome.evidence, output=outcome.output)
