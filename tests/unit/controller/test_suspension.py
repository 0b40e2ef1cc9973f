"""Suspended jobs hold nothing, and go on where they were."""

import pytest

from fedjob_operator.api.v1alpha1 import ConditionType, Phase, RoundState
from fedjob_operator.core.actions import CheckPods, CreatePod, DeletePod, OpenRound
from fedjob_operator.core.observed import PodRole
from fedjob_protocol.reasons import Reason
from tests.support.builders import CLUSTER, a_job, at, chain_digest, decided, of_type, only, pod, record, seen, settled
from tests.support.jobs import JobBuilder

THERE = seen().aggregator(committed=1).ready(0, 1, 2).evaluator()
ROUNDS = a_job().rounds(3).evaluated()


def edited(job, spec=ROUNDS, *, generation=2, **fields):
    built = JobBuilder(spec={**spec.spec, **fields}, generation=generation).build()
    return built.model_copy(update={"status": job.status})


def training():
    return settled(ROUNDS.in_round(2, 0, 1, 2), THERE.round(2, reported=[1]))[0]


def suspended():
    """Since second 100."""
    releasing, _ = settled(edited(training(), suspend=True), THERE.round(2), now=at(100))
    return settled(releasing, seen(), now=at(100))[0]


def test_all_pods_are_released_at_once_the_aggregators_too():
    job, decision = settled(edited(training(), suspend=True), THERE.round(2))
    assert (job.status.phase, job.status.reason) == (Phase.SUSPENDING, Reason.SUSPENDING)
    assert {(action.role, action.index) for action in of_type(decision, DeletePod)} == {
        (PodRole.AGGREGATOR, 0),
        (PodRole.EVALUATOR, 0),
        (PodRole.CLIENT, 0),
        (PodRole.CLIENT, 1),
        (PodRole.CLIENT, 2),
    }
    assert len(decision.actions) == 5


def test_the_job_is_suspended_when_the_last_pod_is_gone():
    going = seen().stopping(0, 1)
    job, decision = settled(edited(training(), suspend=True), going)
    assert (job.status.phase, decision.actions) == (Phase.SUSPENDING, ())
    gone, decision = settled(job, seen(), now=at(5))
    condition = gone.status.condition(ConditionType.SUSPENDED)
    assert (gone.status.phase, condition.status, condition.last_transition_time) == (Phase.SUSPENDED, "True", at(5))
    assert gone.status.clients.ready == 0
    assert decision.actions == ()
    assert decision.wake_at is None


def test_a_job_whose_status_was_lost_is_suspended_when_the_last_pod_is_gone():
    """Its pods are there, as they were made before; nothing else tells that it was accepted once."""
    lost = a_job().having(suspend=True).build()
    job, decision = settled(lost, THERE)
    assert (job.status.phase, job.status.reason) == (Phase.SUSPENDING, Reason.SUSPENDING)
    assert len(of_type(decision, DeletePod)) == 5
    assert settled(job, seen())[0].status.phase is Phase.SUSPENDED


def test_a_pod_that_turns_up_late_is_removed_and_the_job_stays_suspended():
    job, decision = settled(suspended(), seen().starting(1))
    assert job.status.phase is Phase.SUSPENDED
    assert only(decision, DeletePod).index == 1


def test_the_open_round_is_kept_as_an_intent_that_counts_on_no_aggregator():
    current = suspended().status.current_round
    assert (current.number, current.attempt, current.selected) == (2, 1, (0, 1, 2))
    assert (current.state, current.boot_id, current.reported) == (RoundState.PROVISIONING, None, 0)


def test_a_resumed_job_tries_the_same_round_again_with_the_same_participants():
    resumed, decision = settled(edited(suspended(), generation=3), seen())
    assert resumed.status.phase is Phase.STARTING
    assert resumed.status.condition(ConditionType.SUSPENDED).reason == Reason.RESUMED
    assert len(of_type(decision, CreatePod)) == 5
    back, decision = settled(resumed, seen().aggregator(committed=1, boot="boot-b").ready(0, 1, 2).evaluator())
    current = back.status.current_round
    assert (current.number, current.attempt, current.redraw, current.selected) == (2, 2, 0, (0, 1, 2))
    assert only(decision, OpenRound).spec.attempt == 2
    assert back.status.phase is Phase.RUNNING


def test_a_job_resumed_before_its_aggregator_was_gone_counts_on_no_old_attempt():
    releasing, _ = settled(edited(training(), suspend=True), THERE.round(2))
    back, _ = settled(edited(releasing, generation=3), THERE.round(2))
    assert back.status.current_round.attempt == 2


def test_a_round_that_was_committed_before_the_pods_went_is_adopted():
    done = record(2, 0, 1, 2, metrics={"accuracy": 0.5})
    after = seen().aggregator(committed=2, boot="boot-b").ready(0, 1, 2).evaluator()
    after = after.round(2, "Evaluated", reported=[0, 1, 2], boot_id="boot-b", record=done)
    job, _ = settled(edited(suspended(), generation=3), after)
    assert (job.status.rounds.committed, job.status.model.digest) == (2, chain_digest(2))
    assert job.status.current_round.number == 3


def test_a_job_that_is_created_suspended_makes_no_pods():
    job, decision = settled(ROUNDS.having(suspend=True), seen(), platform=CLUSTER)
    assert job.status.phase is Phase.SUSPENDED
    assert decision.actions == ()
    assert job.status.layout
    assert not any(condition.type == "Failed" for condition in job.status.conditions)


def test_templates_that_were_changed_meanwhile_are_checked_before_the_job_is_resumed():
    job, _ = settled(ROUNDS.having(suspend=True), seen(), platform=CLUSTER)
    resumed = edited(job)
    assert decided(resumed, seen().checked(), platform=CLUSTER).actions == (CheckPods(generation=2),)
    refused, decision = settled(resumed, seen().checked("no such image", generation=2), platform=CLUSTER)
    assert (refused.status.phase, refused.status.reason) == (Phase.SUSPENDED, Reason.INVALID_POD_TEMPLATE)
    assert of_type(decision, CreatePod) == []
    mended, decision = settled(edited(refused, generation=3), seen().checked(generation=3), platform=CLUSTER)
    assert mended.status.phase is Phase.STARTING
    assert of_type(decision, CreatePod)


def test_a_job_suspended_between_rounds_goes_on_with_the_next():
    between = ROUNDS.committed(1).build()
    stopped, _ = settled(edited(between, suspend=True), seen())
    assert stopped.status.phase is Phase.SUSPENDED
    job, _ = settled(edited(stopped, generation=3), THERE)
    assert (job.status.current_round.number, job.status.current_round.attempt) == (2, 1)


@pytest.mark.parametrize(("now", "over"), [(at(1100), False), (at(1599), False), (at(1600), True)])
def test_the_active_deadline_does_not_run_while_the_job_is_suspended(now, over):
    """Started at 0, suspended from 100 to 600 with 1,100 seconds to run."""
    limited = ROUNDS.having(activeDeadlineSeconds=1100)
    stopped = edited(suspended(), limited, suspend=True)
    asleep, decision = settled(stopped, seen(), now=at(5000))
    assert asleep.status.phase is Phase.SUSPENDED
    resumed, _ = settled(edited(stopped, limited, generation=3), seen(), now=at(600))
    assert resumed.status.suspended_seconds == 500
    assert resumed.status.start_time == at(0)
    job, decision = settled(resumed, seen(), now=now)
    assert decision.finished == over
    if over:
        assert job.status.reason == Reason.ACTIVE_DEADLINE_EXCEEDED
    else:
        assert decision.wake_at <= at(1600)


def test_time_suspended_before_the_start_does_not_count():
    job, _ = settled(ROUNDS.having(suspend=True), seen(), now=at(0))
    resumed, _ = settled(edited(job), seen(), now=at(1000))
    assert resumed.status.suspended_seconds == 0
    assert resumed.status.startup.began_at == at(1000)


def test_a_suspended_job_whose_spec_no_longer_fits_still_gives_its_pods_back():
    job = edited(training(), suspend=True, clientGroups=[{"name": "others", "replicas": 3}])
    assert len(of_type(decided(job, THERE), DeletePod)) == 5


def test_gpus_are_held_until_the_pods_are_gone():
    gpus, held = ROUNDS.clients(2, gpus=2), seen().aggregator(committed=0)
    for index in (0, 1):
        held = held.pod(pod(index=index, gpus_held=2))
    job = gpus.committed(0).build()
    releasing, _ = settled(edited(job, gpus, suspend=True), held, platform=CLUSTER)
    assert (releasing.status.gpus.requested, releasing.status.gpus.held) == (4, 4)
    assert releasing.status.summary.gpus == "4/4"
    gone, _ = settled(releasing, seen(), platform=CLUSTER)
    assert gone.status.gpus.held == 0
    assert gone.status.summary.gpus == "0/4"
