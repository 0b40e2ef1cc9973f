"""A finished job on a cluster: what it gives back, what it serves, and when it goes."""

from dataclasses import replace

import pytest

from fedjob_operator.api.v1alpha1 import ConditionType, Phase
from fedjob_operator.core.actions import CreatePod, DeleteJob, DeletePod
from fedjob_operator.core.conditions import finish
from fedjob_operator.core.observed import PodRole
from fedjob_protocol.reasons import Reason
from tests.support.builders import CLUSTER, EPOCH, a_job, at, decided, pod, seen, settled

TRAINED = a_job().committed(2)
AGGREGATOR = seen().aggregator(committed=2)


def over(job=TRAINED, *, failed=False, reason=Reason.ROUNDS_COMPLETED, **status):
    ended = finish(job.status, failed=failed, reason=reason, message="over", now=EPOCH)
    return replace(job, status=ended.model_copy(update={"phase": Phase.FAILED if failed else Phase.COMPLETE, **status}))


def test_clients_and_evaluator_go_and_the_aggregator_serves_the_model():
    job, decision = settled(over(), AGGREGATOR.ready(0, 1).evaluator().stopping(2), platform=CLUSTER)
    assert [action.key for action in decision.actions] == [
        "delete/client/0/0",
        "delete/client/1/0",
        "delete/evaluator/0/0",
    ]
    assert decision.finished
    assert job.status.holds(ConditionType.AGGREGATOR_READY)
    assert (job.status.aggregator.leader, job.status.aggregator.replicas) == ("job-aggregator-0-0", 1)


def test_its_gpus_are_given_back():
    what = AGGREGATOR.pod(pod(index=0, gpus_held=1)).pod(pod(index=1, gpus_held=1))
    job, _ = settled(over(a_job().clients(2, gpus=1).committed(2)), what, platform=CLUSTER)
    assert job.status.summary.gpus == "2/2"
    later, decision = settled(job, AGGREGATOR, platform=CLUSTER)
    assert later.status.summary.gpus == "0/2"
    assert decision.actions == ()


@pytest.mark.parametrize("failed", [False, True])
def test_an_aggregator_that_is_gone_is_made_again_as_long_as_there_is_a_model(failed):
    job = over(failed=failed, reason=Reason.QUORUM_LOST)
    assert decided(job, seen(), platform=CLUSTER).actions == (CreatePod(role=PodRole.AGGREGATOR, index=0, ordinal=0),)
    ended = decided(job, seen().exited(PodRole.AGGREGATOR), platform=CLUSTER)
    assert ended.actions == (CreatePod(role=PodRole.AGGREGATOR, index=0, ordinal=1),)
    later = decided(job, seen().exited(PodRole.AGGREGATOR, ordinal=2, since=at(10)), now=at(10), platform=CLUSTER)
    assert (later.actions, later.wake_at) == ((), at(12))


@pytest.mark.parametrize(
    "job",
    [
        pytest.param(over(a_job().accepted(), failed=True, reason=Reason.TRAINER_ERROR), id="no model"),
        pytest.param(over(failed=True, reason=Reason.FOREIGN_VOLUME), id="another job's volume"),
    ],
)
def test_where_there_is_nothing_to_serve_all_pods_go(job):
    decision = decided(job, AGGREGATOR.ready(0), platform=CLUSTER)
    assert {action.key for action in decision.actions} == {"delete/aggregator/0/0", "delete/client/0/0"}
    assert decided(job, seen(), platform=CLUSTER).actions == ()


def test_a_job_is_deleted_when_its_time_to_live_is_over():
    job = over(TRAINED.having(ttlSecondsAfterFinished=60))
    waiting = decided(job, AGGREGATOR, now=at(59), platform=CLUSTER)
    assert (waiting.actions, waiting.wake_at) == ((), at(60))
    assert decided(job, AGGREGATOR, now=at(60), platform=CLUSTER).actions == (DeleteJob(),)


def test_without_a_time_to_live_it_stays():
    decision = decided(over(), AGGREGATOR, now=at(10**9), platform=CLUSTER)
    assert (decision.actions, decision.wake_at) == ((), None)


def test_a_finish_without_its_time_counts_from_the_condition():
    job = over(TRAINED.having(ttlSecondsAfterFinished=60), completion_time=None)
    assert decided(job, AGGREGATOR, now=at(60), platform=CLUSTER).actions == (DeleteJob(),)


def test_a_time_to_live_that_is_changed_afterwards_holds():
    job = over().edited(ttlSecondsAfterFinished=5)
    decision = decided(job, AGGREGATOR, now=at(1), platform=CLUSTER)
    assert decision.wake_at == at(5)
    assert decision.status.observed_generation == 2
    assert decision.status.rounds == job.status.rounds


def test_nothing_is_served_or_deleted_where_nobody_looks_after_finished_jobs():
    job = over(TRAINED.having(ttlSecondsAfterFinished=1))
    decision = decided(job, seen().ready(0), now=at(100))
    assert (len(decision.actions), type(decision.actions[0])) == (1, DeletePod)
    assert decision.status == job.status
