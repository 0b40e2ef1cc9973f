"""What is accepted, what waits to be mended, and what an accepted job does when its spec is edited."""

import pytest

from fedjob_operator.api.v1alpha1 import ConditionStatus, ConditionType, Images, Phase
from fedjob_operator.core.actions import CheckPods, CreatePod, OpenRound
from fedjob_operator.core.platform import Platform
from fedjob_protocol.reasons import Reason
from fedjob_protocol.round import RoundState as AggregatorRound
from tests.support.builders import CLUSTER, a_job, at, decided, of_type, only, seen, settled
from tests.support.jobs import JobBuilder

FINE = seen().checked()
GONE = [{"name": "others", "replicas": 3}]


def edited(job, *, generation=2, **fields):
    """The job as it was written, with another spec."""
    built = JobBuilder(spec={**JobBuilder().spec, **fields}, generation=generation).build()
    return built.model_copy(update={"status": job.status})


def accepted_condition(job):
    return job.status.condition(ConditionType.ACCEPTED)


def test_a_cluster_is_asked_about_the_pods_before_anything_is_fixed():
    decision = decided(a_job(), seen(), platform=CLUSTER)
    assert decision.actions == (CheckPods(generation=1),)
    assert decision.status.layout == ()
    assert decision.status.phase is Phase.PENDING


def test_pods_that_the_cluster_would_take_are_made():
    job, decision = settled(a_job(), FINE, platform=CLUSTER)
    condition = accepted_condition(job)
    assert (condition.status, condition.reason, condition.observed_generation) == ("True", Reason.ACCEPTED, 1)
    assert len(of_type(decision, CreatePod)) == 4


def test_pods_that_the_cluster_would_refuse_keep_the_job_pending_in_the_clusters_words():
    words = "spec.clientGroups[0].template: Pod is invalid: spec.containers[0].image: Required value"
    job, decision = settled(a_job(), seen().checked(words), platform=CLUSTER)
    assert (job.status.phase, job.status.reason) == (Phase.PENDING, Reason.INVALID_POD_TEMPLATE)
    assert job.status.message == words
    assert not decision.finished
    assert of_type(decision, CreatePod) == []
    assert only(decision, CheckPods)  # asked again from time to time: what is mended may be the namespace


def test_a_mended_template_is_looked_at_again():
    refused, _ = settled(a_job(), seen().checked("no"), platform=CLUSTER)
    mended = edited(refused)
    assert only(decided(mended, seen().checked("no"), platform=CLUSTER), CheckPods) == CheckPods(generation=2)
    job, _ = settled(mended, seen().checked(generation=2), platform=CLUSTER)
    assert job.status.phase is Phase.STARTING
    assert accepted_condition(job).observed_generation == 2


def test_a_check_without_an_answer_is_said_to_be_missing():
    check = CheckPods(generation=1)
    what = seen().failing(check, Reason.QUOTA_EXCEEDED, "pods is forbidden: exceeded quota")
    job, decision = settled(a_job(), what, platform=CLUSTER)
    assert (job.status.phase, job.status.reason) == (Phase.PENDING, Reason.QUOTA_EXCEEDED)
    assert "exceeded quota" in job.status.message
    assert decision.actions == (check,)


def test_images_are_pinned_for_the_life_of_the_job():
    job, _ = settled(a_job(), FINE, platform=CLUSTER)
    assert job.status.images == CLUSTER.images
    newer = Platform(images=Images(client="client:2", aggregator="aggregator:2"), checks_pods=True)
    later, _ = settled(job, FINE, platform=newer)
    assert later.status.images == CLUSTER.images


def test_processes_have_no_images():
    assert settled(a_job(), seen())[0].status.images is None


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        pytest.param({"minClients": 4}, "spec.minClients: 4 is more than all clients (3)", id="contradiction"),
        pytest.param(
            {"clientPods": "PerRound", "lateJoiners": "Refuse"}, "spec.lateJoiners: Refuse, but", id="unsupported"
        ),
    ],
)
def test_what_a_cluster_cannot_do_waits_to_be_mended(fields, words):
    job, decision = settled(a_job().having(**fields), FINE, platform=CLUSTER)
    assert (job.status.phase, job.status.reason) == (Phase.PENDING, Reason.INVALID_SPEC)
    assert words in job.status.message
    assert decision.actions == ()
    mended, _ = settled(edited(job), seen().checked(generation=2), platform=CLUSTER)
    assert mended.status.phase is Phase.STARTING


def test_the_status_says_which_generation_it_is_about():
    job, _ = settled(a_job(), seen())
    assert job.status.observed_generation == 1
    assert settled(edited(job, generation=7), seen())[0].status.observed_generation == 7


# A spec that changes while the job runs

TRAINING = a_job().in_round(1, 0, 1, 2)
THERE = seen().aggregator(committed=0).ready(0, 1, 2)


def running():
    return settled(TRAINING, THERE.round(1))[0]


def test_more_rounds_on_a_running_job_are_trained():
    job, _ = settled(edited(running(), rounds=5), THERE.round(1))
    assert job.status.rounds.total == 5
    assert job.status.summary.rounds == "0/5"
    assert job.status.current_round.number == 1
    done = THERE.round(1, AggregatorRound.EVALUATED, reported=[0, 1, 2])
    assert settled(job, done)[0].status.current_round.number == 2


def test_fewer_rounds_let_the_open_one_end():
    raised, _ = settled(a_job().rounds(5).in_round(2, 0, 1, 2), seen().aggregator(committed=1).ready(0, 1, 2).round(2))
    lowered = edited(raised, rounds=1)
    job, decision = settled(lowered, seen().aggregator(committed=1).ready(0, 1, 2).round(2))
    assert (job.status.current_round.number, job.status.rounds.total) == (2, 2)
    assert not decision.finished
    done = seen().aggregator(committed=1).ready(0, 1, 2).round(2, AggregatorRound.EVALUATED, reported=[0, 1, 2])
    over, _ = settled(job, done)
    assert (over.status.phase, over.status.rounds.committed) == (Phase.COMPLETE, 2)


def test_more_rounds_on_a_complete_job_change_nothing():
    complete, _ = settled(a_job().committed(2), seen().aggregator(committed=2))
    decision = decided(edited(complete, rounds=9), seen().aggregator(committed=2))
    assert decision.status == complete.status
    assert decision.finished


def test_a_client_that_the_job_was_scaled_down_by_is_not_waited_for():
    job = edited(running(), clientGroups=[{"name": "clients", "replicas": 2}])
    what = seen().aggregator(committed=0).ready(0, 1).round(1)
    _, decision = settled(job, what)
    assert "failure/aggregator-0-0/2/1/1/1" in [action.key for action in decision.actions]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        pytest.param({"clientGroups": GONE}, 'group "clients" of the accepted job is gone; put it back', id="gone"),
        pytest.param(
            {"clientGroups": [{"name": "clients", "replicas": 3}, *GONE]}, 'group "others" was added', id="added"
        ),
        pytest.param(
            {"clientGroups": [{"name": "clients", "replicas": 4}]}, "4 is more than maxReplicas (3)", id="more"
        ),
        pytest.param(
            {"training": {"optimizer": {"parameters": {"momentum": "much"}}}},
            "spec.training.optimizer.parameters.momentum",
            id="training",
        ),
    ],
)
def test_an_edit_that_does_not_fit_holds_the_job_until_it_is_taken_back(fields, words):
    """The API server refuses these; its rules may have been off."""
    held, decision = settled(edited(running(), **fields), THERE.round(1))
    condition = accepted_condition(held)
    assert (condition.status, condition.reason) == (ConditionStatus.FALSE, Reason.INVALID_SPEC)
    assert words in condition.message
    assert (held.status.reason, decision.actions) == (Reason.INVALID_SPEC, ())
    assert not decision.finished
    mended, decision = settled(edited(held, generation=3), THERE)
    assert accepted_condition(mended).status is ConditionStatus.TRUE
    assert only(decision, OpenRound)


def test_a_job_that_is_being_deleted_is_left_alone():
    job = a_job().build()
    gone = job.model_copy(update={"metadata": job.metadata.model_copy(update={"deletion_timestamp": at(0)})})
    decision = decided(gone, seen(), platform=CLUSTER)
    assert (decision.status, decision.actions) == (job.status, ())


def test_a_misspelt_model_is_named_before_a_pod_is_made():
    job, decision = settled(edited(a_job().build(), model={"name": "mlpp"}), FINE, platform=CLUSTER)
    assert (job.status.phase, job.status.reason) == (Phase.PENDING, Reason.INVALID_SPEC)
    assert 'spec.model.name: "mlpp" is not built in; did you mean "mlp"?' in job.status.message
    assert of_type(decision, CreatePod) == []


def test_an_image_of_ones_own_may_know_other_models():
    groups = [{"name": "clients", "replicas": 3, "image": "mine:1"}]
    job, _ = settled(
        edited(a_job().build(), model={"name": "mlpp"}, clientGroups=groups),
        seen().checked(generation=2),
        platform=CLUSTER,
    )
    assert job.status.phase is Phase.STARTING


def test_wrong_parameters_of_a_model_are_named_before_a_pod_is_made_unless_the_image_may_know_them():
    wrong = {"name": "mlp", "parameters": {"hiddenSize": [8]}}
    job, decision = settled(edited(a_job().build(), model=wrong), FINE, platform=CLUSTER)
    assert job.status.reason == Reason.INVALID_SPEC
    assert 'spec.model.parameters.hiddenSize: unknown field; did you mean "hiddenSizes"?' in job.status.message
    assert of_type(decision, CreatePod) == []
    groups = [{"name": "clients", "replicas": 3, "image": "mine:1"}]
    mine = edited(a_job().build(), model=wrong, clientGroups=groups)
    own, _ = settled(mine, seen().checked(generation=2), platform=CLUSTER)
    assert own.status.phase is Phase.STARTING
