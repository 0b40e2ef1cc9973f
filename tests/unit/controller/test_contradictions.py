"""The aggregator's folder against the status: another job's, behind, ahead, or another history."""

import pytest

from fedjob_operator.api.v1alpha1 import Phase
from fedjob_operator.core.actions import OpenRound
from fedjob_operator.core.observed import PodRole
from fedjob_protocol.errors import Word
from fedjob_protocol.reasons import Reason
from tests.support.builders import BOOT, a_job, chain_digest, digest_of, only, seen, settled


def ready(committed, **fields):
    return seen().aggregator(committed=committed, **fields).ready(0, 1, 2)


@pytest.mark.parametrize(
    ("job", "committed", "why"),
    [
        pytest.param(a_job().in_round(3, 0, 1, 2), 1, "ends with round 1, the status with round 2", id="behind"),
        pytest.param(a_job().committed(0), -1, "ends with round -1, the status with round 0", id="empty"),
        pytest.param(a_job().in_round(1, 0, 1, 2), 2, "ends with round 2, the status with round 0", id="ahead"),
        pytest.param(a_job().accepted(), 0, "ends with round 0, the status with round -1", id="a round never intended"),
    ],
)
def test_no_round_is_repeated_or_skipped_silently(job, committed, why):
    written, decision = settled(job, ready(committed))
    assert decision.finished
    assert (written.status.phase, written.status.reason) == (Phase.FAILED, Reason.CHECKPOINT_LOST)
    assert why in written.status.message


def test_another_history_is_noticed():
    written, _ = settled(a_job().rounds(3).committed(1), ready(1, digest=digest_of("another")))
    assert written.status.reason == Reason.CHECKPOINT_LOST
    assert chain_digest(1) in written.status.message


def test_the_folder_of_another_job_is_refused():
    written, _ = settled(a_job().accepted(), ready(-1, job_uid="another-uid"))
    assert (written.status.phase, written.status.reason) == (Phase.FAILED, Reason.FOREIGN_VOLUME)
    assert "another-uid" in written.status.message


def test_what_the_status_says_and_one_round_more_are_no_contradiction():
    for committed in (1, 2):
        written, decision = settled(a_job().rounds(3).in_round(2, 0, 1, 2), ready(committed))
        assert not decision.finished
        assert written.status.phase is Phase.RUNNING


@pytest.mark.parametrize("reason", [Reason.FOREIGN_VOLUME, Reason.CHECKPOINT_LOST])
def test_an_aggregator_that_ends_because_of_its_folder_fails_the_job(reason):
    what = seen().exited(PodRole.AGGREGATOR, reason=reason, message="the folder is another's")
    written, _ = settled(a_job().accepted(), what)
    assert (written.status.phase, written.status.reason) == (Phase.FAILED, reason)
    assert written.status.message == "the folder is another's"


def test_an_aggregator_that_crashed_does_not():
    written, decision = settled(a_job().accepted(), seen().exited(PodRole.AGGREGATOR))
    assert not decision.finished
    assert written.status.phase is Phase.STARTING


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        (Word.WRONG_JOB, Reason.FOREIGN_VOLUME),
        (Word.WRONG_BASE, Reason.CHECKPOINT_LOST),
        (Word.WRONG_ROUND, Reason.CHECKPOINT_LOST),
    ],
)
def test_a_round_that_the_aggregator_cannot_have_fails_the_job(word, reason):
    job = a_job().in_round(1, 0, 1, 2, boot_id=BOOT)
    refused = only(settled(job, ready(0))[1], OpenRound)
    written, decision = settled(job, ready(0).failing(refused, word, "what it said"))
    assert decision.finished
    assert (written.status.reason, written.status.message) == (reason, "what it said")
