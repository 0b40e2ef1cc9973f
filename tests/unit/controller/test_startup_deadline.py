"""A job that cannot start gives its pods back and tries again later."""

import pytest

from fedjob_operator.api.v1alpha1 import Phase
from fedjob_operator.core.actions import CreatePod, DeletePod
from fedjob_operator.core.observed import PodRole
from fedjob_operator.core.platform import LOCAL
from fedjob_operator.core.startup import claimed, retry_delay
from fedjob_protocol.reasons import Reason
from tests.support.builders import CLUSTER, EPOCH, UID, a_job, at, of_type, seen, settled

LIMITED = a_job().having(startupDeadlineSeconds=60)
HALF = seen().checked().aggregator().ready(0).waiting(1, Reason.UNSCHEDULABLE, "no GPU left").starting(2)


def started(*, now=EPOCH, what=HALF, platform=CLUSTER):
    return settled(LIMITED, what, now=now, platform=platform)[0]


def given_up(platform=CLUSTER):
    return settled(started(platform=platform), HALF, now=at(60), platform=platform)


def test_a_job_is_given_its_time():
    job, decision = settled(started(), HALF, now=at(59), platform=CLUSTER)
    assert job.status.reason == Reason.UNSCHEDULABLE
    assert decision.wake_at == at(60)


def test_after_that_it_releases_everything_and_says_who_was_missing():
    job, decision = given_up()
    assert (job.status.phase, job.status.reason) == (Phase.STARTING, Reason.STARTUP_DEADLINE_EXCEEDED)
    assert "not started within 60 s: client 1: Unschedulable: no GPU left" in job.status.message
    assert len(of_type(decision, DeletePod)) == 4
    assert of_type(decision, CreatePod) == []
    assert job.status.clients.ready == 0
    assert decision.wake_at == job.status.startup.retry_at


def test_it_tries_again_when_its_pods_are_gone_and_the_wait_is_over():
    job, _ = given_up()
    due = job.status.startup.retry_at
    assert at(60 + 60) <= due <= at(60 + 75)
    waiting, decision = settled(job, seen(), now=at(100), platform=CLUSTER)
    assert decision.actions == ()
    again, decision = settled(waiting, seen(), now=due, platform=CLUSTER)
    assert (again.status.startup.attempt, again.status.startup.began_at) == (2, due)
    assert len(of_type(decision, CreatePod)) == 4
    assert again.status.reason == Reason.AGGREGATOR_STARTING


def test_it_does_not_try_again_while_an_old_pod_is_still_there():
    job, _ = given_up()
    still, decision = settled(job, seen().stopping(0, role=PodRole.AGGREGATOR), now=at(1000), platform=CLUSTER)
    assert still.status.startup.attempt == 1
    assert decision.actions == ()


def test_a_start_at_the_last_moment_counts():
    everybody = seen().checked().aggregator().ready(0, 1, 2)
    job, _ = settled(started(), everybody, now=at(60), platform=CLUSTER)
    assert job.status.start_time == at(60)
    assert job.status.startup is None


def test_the_deadline_is_about_the_aggregator_too():
    what = seen().checked().ready(0, 1, 2)
    job, _ = settled(started(what=what), what, now=at(60), platform=CLUSTER)
    assert "not started within 60 s: the aggregator is starting" in job.status.message


def test_a_command_that_somebody_waits_for_gives_up_in_the_end():
    job = started(platform=LOCAL)
    now = 60.0
    for attempt in (1, 2):
        job, decision = settled(job, HALF, now=at(now), platform=LOCAL)
        assert not decision.finished, attempt
        job, _ = settled(job, seen(), now=job.status.startup.retry_at, platform=LOCAL)
        now = (job.status.startup.began_at - at(0)).total_seconds() + 60
    job, decision = settled(job, HALF, now=at(now), platform=LOCAL)
    assert decision.finished
    assert (job.status.phase, job.status.reason) == (Phase.FAILED, Reason.STARTUP_DEADLINE_EXCEEDED)
    assert "given up after 3 tries" in job.status.message


def test_who_takes_a_job_over_gives_it_its_time_anew():
    """Nobody looked after it meanwhile: its pods may be as ready as can be."""
    status = claimed(started().status, at(5000))
    assert (status.term, status.startup.began_at) == (2, at(5000))
    waiting = given_up()[0].status
    assert claimed(waiting, at(5000)).startup == waiting.startup


@pytest.mark.parametrize(("attempt", "minutes"), [(1, 1), (2, 2), (3, 4), (5, 16), (6, 30), (60, 30), (10**9, 30)])
def test_tries_come_later_and_later_but_always_come(attempt, minutes):
    seconds = retry_delay(UID, attempt).total_seconds()
    assert minutes * 60 <= seconds <= minutes * 75


def test_jobs_that_gave_up_together_do_not_come_back_together():
    assert len({retry_delay(f"uid-{number}", 3) for number in range(20)}) > 10


def test_a_suspended_job_does_not_run_out_of_time():
    job = started()
    spec = job.spec.model_copy(update={"suspend": True})
    asleep, _ = settled(job.model_copy(update={"spec": spec}), seen(), now=at(10), platform=CLUSTER)
    still, _ = settled(asleep, seen(), now=at(9999), platform=CLUSTER)
    assert still.status.phase is Phase.SUSPENDED
    awake, _ = settled(still.model_copy(update={"spec": job.spec}), seen().checked(), now=at(9999), platform=CLUSTER)
    assert (awake.status.startup.attempt, awake.status.startup.began_at) == (1, at(9999))
