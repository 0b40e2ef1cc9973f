"""Pods that were asked to end, on a node that does not say that they did."""

from dataclasses import replace
from datetime import timedelta

import pytest

from fedjob_operator.api.v1alpha1 import Phase, Startup
from fedjob_operator.core.actions import CreatePod
from fedjob_operator.core.observed import PodPhase, PodRole
from fedjob_operator.core.unreachable import SILENCE
from fedjob_protocol.reasons import Reason
from tests.support.builders import EPOCH, a_job, decided, of_type, only, pod, seen, settled

LATER = EPOCH + SILENCE
SOON = LATER - timedelta(seconds=1)
CLAIMS = [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]


def silent(role=PodRole.CLIENT, index=2, ordinal=0):
    return replace(pod(role, index, ordinal=ordinal, phase=PodPhase.STOPPING), silent_since=EPOCH)


def training(**group):
    return a_job().clients(3, **group).committed(0)


AROUND = seen().aggregator(committed=0).ready(0, 1)


def test_a_client_is_replaced_once_its_node_has_been_silent_for_long_enough():
    decision = decided(training(), AROUND.pod(silent()), now=SOON)
    assert of_type(decision, CreatePod) == []
    assert decision.wake_at == LATER
    created = only(decided(training(), AROUND.pod(silent()), now=LATER), CreatePod)
    assert (created.role, created.index, created.ordinal) == (PodRole.CLIENT, 2, 1)


def test_until_the_successor_is_there_the_status_says_why_the_client_is_missing():
    job, _ = settled(training(), AROUND.pod(silent()), now=LATER)
    assert (job.status.phase, job.status.reason) == (Phase.WAITING_FOR_CLIENTS, Reason.NODE_UNREACHABLE)
    assert (
        "client 2: NodeUnreachable: its node does not confirm that pod 0 of its place has ended" in job.status.message
    )


def test_a_pod_that_takes_its_time_to_end_is_not_replaced():
    what = AROUND.stopping(2)
    decision = decided(training(), what, now=EPOCH + timedelta(days=1))
    assert of_type(decision, CreatePod) == []


def test_a_client_with_a_volume_of_its_own_waits_and_says_so():
    job, decision = settled(training(volumeClaimTemplates=CLAIMS), AROUND.pod(silent()), now=LATER)
    assert of_type(decision, CreatePod) == []
    assert job.status.reason == Reason.NODE_UNREACHABLE
    assert "must not have two writers" in job.status.message


def test_the_aggregator_waits_for_its_volume_and_says_so():
    what = seen().ready(0, 1, 2).pod(silent(PodRole.AGGREGATOR, 0))
    job, decision = settled(training(), what, now=LATER)
    assert of_type(decision, CreatePod) == []
    assert job.status.reason == Reason.NODE_UNREACHABLE
    assert "the volume with the model must not have two writers" in job.status.message


def test_the_evaluator_is_replaced_like_a_client():
    what = AROUND.ready(2).pod(silent(PodRole.EVALUATOR, 0))
    assert only(decided(training().evaluated(), what, now=LATER), CreatePod).key == "create/evaluator/0/1"


def test_a_successor_takes_the_place_although_the_old_pod_is_still_there():
    what = AROUND.pod(silent()).ready(2, ordinal=1)
    job, decision = settled(training(), what, now=LATER)
    assert of_type(decision, CreatePod) == []
    assert job.status.clients.ready == 3
    assert job.status.phase is Phase.RUNNING


def test_loss_of_nodes_does_not_use_up_the_pods_of_a_client():
    what = AROUND.pod(silent(ordinal=3))
    assert only(decided(training(backoffLimit=3), what, now=LATER), CreatePod).ordinal == 4


@pytest.mark.parametrize(("now", "phase"), [(SOON, Phase.SUSPENDING), (LATER, Phase.SUSPENDED)])
def test_a_job_is_suspended_although_a_lost_node_never_says_so(now, phase):
    job, _ = settled(training().having(suspend=True), seen().pod(silent()), now=now)
    assert job.status.phase is phase


def test_a_job_that_did_not_start_tries_again_although_a_lost_node_never_says_so():
    job = a_job().having(startupDeadlineSeconds=60).accepted().saying(startup=Startup(began_at=EPOCH))
    released, _ = settled(job, seen().starting(0), now=EPOCH + timedelta(seconds=61))
    assert released.status.startup.retry_at is not None
    at = released.status.startup.retry_at
    begun, _ = settled(released, seen().pod(silent()), now=at)
    assert begun.status.startup.attempt == 2
