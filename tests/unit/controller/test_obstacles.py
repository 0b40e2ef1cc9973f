"""Why a job waits: the reason of a pod that is held up is the reason that the status shows."""

import pytest

from fedjob_operator.api.v1alpha1 import ConditionType, Phase
from fedjob_operator.core.actions import CreatePod, FetchInfo, ListReplaced
from fedjob_operator.core.observed import Exit, PodPhase, PodRole, Waiting
from fedjob_protocol.errors import Word
from fedjob_protocol.reasons import Reason
from fedjob_protocol.round import RoundState as AggregatorRound
from tests.support.builders import a_job, at, decided, of_type, pod, seen, settled

STARTING = a_job().accepted()
SCHEDULER = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        (Reason.UNSCHEDULABLE, SCHEDULER),
        (Reason.IMAGE_PULL_FAILED, 'Back-off pulling image "nowhere/client:0"'),
        (Reason.VOLUME_UNAVAILABLE, 'persistentvolumeclaim "data" not found'),
        (Reason.CONTAINER_CANNOT_RUN, "exec: fedjob-client: not found"),
    ],
)
def test_a_client_that_is_held_up_gives_the_job_its_reason(reason, message):
    job, decision = settled(STARTING, seen().aggregator().ready(0).starting(1).waiting(2, reason, message))
    assert (job.status.phase, job.status.reason) == (Phase.STARTING, reason)
    assert job.status.message == f"1 of 3 are ready; client 2: {reason}: {message}; client 1: starting"
    assert not decision.finished


def test_the_aggregators_reason_comes_first():
    what = seen().ready(0).waiting(1, Reason.UNSCHEDULABLE, SCHEDULER)
    what = what.waiting(0, Reason.IMAGE_PULL_FAILED, "no such image", PodRole.AGGREGATOR)
    job, _ = settled(STARTING, what)
    assert job.status.reason == Reason.IMAGE_PULL_FAILED
    assert job.status.message == "the aggregator: ImagePullFailed: no such image"


def test_an_aggregator_that_merely_starts_does_not_hide_what_is_to_be_mended():
    what = seen().pod(pod(PodRole.AGGREGATOR, phase=PodPhase.STARTING)).waiting(1, Reason.UNSCHEDULABLE, SCHEDULER)
    assert settled(STARTING, what)[0].status.reason == Reason.UNSCHEDULABLE


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        (Reason.QUOTA_EXCEEDED, Reason.QUOTA_EXCEEDED),
        (Reason.POD_REFUSED, Reason.POD_REFUSED),
        (None, Reason.POD_REFUSED),
        (Word.UNAVAILABLE, Reason.POD_REFUSED),
    ],
)
def test_a_pod_that_cannot_be_made_gives_the_job_its_reason(word, reason):
    what = seen().aggregator().ready(0, 1)
    what = what.failing(CreatePod(role=PodRole.CLIENT, index=2, ordinal=0), word, "exceeded quota: pods=2")
    job, _ = settled(STARTING, what)
    assert job.status.reason == reason
    assert f"client 2: {reason}: exceeded quota: pods=2" in job.status.message


def test_a_successor_that_cannot_be_made_counts_more_than_why_the_pod_before_ended():
    what = seen().aggregator().ready(0, 1).exited(index=2)
    what = what.failing(CreatePod(role=PodRole.CLIENT, index=2, ordinal=1), Reason.QUOTA_EXCEEDED, "exceeded quota")
    assert settled(STARTING, what)[0].status.reason == Reason.QUOTA_EXCEEDED


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        (Reason.OOM_KILLED, "exit code 137, limit 64Mi"),
        (Reason.EVICTED, "The node was low on resource: memory"),
        (Reason.TRAINER_ERROR, "ValueError: shapes differ"),
    ],
)
def test_why_clients_ended_is_shown_while_too_few_are_left(reason, message):
    what = seen().aggregator(committed=0).ready(0, 1).exited(index=2, ordinal=3, reason=reason, message=message)
    job, _ = settled(a_job().having(minClients=3).policy(clientsPerRound=3).committed(0), what)
    assert job.status.reason == reason
    assert f"client 2: {reason}: {message} (given up)" in job.status.message


def test_a_participant_that_is_held_up_is_named_while_its_round_waits():
    what = seen().aggregator(committed=0).ready(0, 1).waiting(2, Reason.UNSCHEDULABLE, SCHEDULER)
    job, decision = settled(a_job().having(minClients=2).in_round(1, 0, 1, 2, state="Provisioning"), what)
    assert (job.status.phase, job.status.reason) == (Phase.RUNNING, Reason.UNSCHEDULABLE)
    assert job.status.message == f"round 1 with 3 clients waits for client 2: Unschedulable: {SCHEDULER}"
    assert decision.wake_at == at(900)


def test_an_evaluator_that_is_held_up_is_named_while_a_model_waits_for_it():
    what = seen().aggregator(committed=0).ready(0, 1, 2).waiting(0, Reason.UNSCHEDULABLE, SCHEDULER, PodRole.EVALUATOR)
    what = what.round(1, AggregatorRound.COMMITTED, reported=[0, 1, 2])
    job, _ = settled(a_job().evaluated().in_round(1, 0, 1, 2), what)
    assert job.status.reason == Reason.UNSCHEDULABLE
    assert "round 1 is committed; its evaluator: Unschedulable" in job.status.message


# Programs that are started again in their pod


def again(phase, reason=Reason.CRASHED):
    end = Exit(reason=reason, message="exit code 3")
    return seen().ready(0, 1, 2).pod(pod(PodRole.AGGREGATOR, phase=phase, exit=end))


def test_why_the_aggregator_ended_is_shown_until_it_is_ready_again():
    job, _ = settled(STARTING, again(PodPhase.STARTING))
    assert (job.status.reason, job.status.message) == (
        Reason.CRASHED,
        "the aggregator ended: exit code 3; it is started again",
    )
    ready, _ = settled(job, again(PodPhase.READY))
    assert ready.status.reason == Reason.AGGREGATOR_STARTING


def test_what_holds_an_aggregator_up_now_counts_more_than_why_it_ended():
    end, held = Exit(reason=Reason.CRASHED, message="no"), Waiting(reason=Reason.VOLUME_UNAVAILABLE, message="gone")
    what = seen().pod(pod(PodRole.AGGREGATOR, phase=PodPhase.STARTING, exit=end, waiting=held))
    assert settled(STARTING, what)[0].status.reason == Reason.VOLUME_UNAVAILABLE


@pytest.mark.parametrize("reason", [Reason.FOREIGN_VOLUME, Reason.CHECKPOINT_LOST])
def test_a_folder_that_cannot_be_used_is_the_end_also_where_the_aggregator_is_started_again(reason):
    assert settled(STARTING, again(PodPhase.STARTING, reason))[0].status.reason == reason
    assert not settled(STARTING, again(PodPhase.READY, reason))[1].finished


# Pods that are on their way out


def test_a_pod_that_is_stopping_is_neither_ready_nor_replaced_nor_asked_again():
    job, decision = settled(a_job().committed(0), seen().aggregator(committed=0).ready(0, 1, 2).stopping(1))
    assert job.status.clients.ready == 2
    assert [action for action in decision.actions if not isinstance(action, ListReplaced)] == []
    assert "client 1: being stopped" in job.status.condition(ConditionType.CLIENTS_READY).message


def test_its_successor_is_made_when_it_is_gone():
    _, decision = settled(a_job().committed(0), seen().aggregator(committed=0).ready(0, 2))
    assert of_type(decision, CreatePod) == [CreatePod(role=PodRole.CLIENT, index=1, ordinal=0)]


# Ready pods that do not answer


def silent(word=None):
    what = seen().aggregator().ready(0, 1).pod(pod(index=2))
    return what.failing(FetchInfo(url="", incarnation="client-2-0", role=PodRole.CLIENT, index=2), word, "timed out")


def test_a_ready_client_that_does_not_answer_is_named_after_a_while():
    assert "client 2: starting" in settled(STARTING, silent(), now=at(4))[0].status.message
    assert "client 2: does not answer: timed out" in settled(STARTING, silent(), now=at(5))[0].status.message


def test_a_client_of_another_release_is_named_at_once():
    assert settled(STARTING, silent(Word.UNSUPPORTED_PROTOCOL))[0].status.reason == Reason.PROTOCOL_MISMATCH


def test_a_message_names_three_clients_those_to_be_mended_first():
    what = seen().aggregator().starting(0, 1, 2, 3).waiting(4, Reason.UNSCHEDULABLE, SCHEDULER)
    message = decided(a_job().clients(5).accepted(), what).status.message
    assert message == (
        f"0 of 5 are ready; client 4: Unschedulable: {SCHEDULER}; client 0: starting; client 1: starting; and 2 more"
    )
