"""Pods: created, replaced, given up, introduced, released."""

import pytest

from fedjob_operator.api.v1alpha1 import Phase
from fedjob_operator.core.actions import CreatePod, DeletePod, FetchInfo, ReadState
from fedjob_operator.core.layout import group_of
from fedjob_operator.core.observed import PodPhase, PodRole
from fedjob_operator.core.pods import plan_pods, release_pods, replacement_delay
from fedjob_protocol.reasons import Reason
from tests.support.builders import EPOCH, a_job, at, decided, only, pod, seen, settled

STARTED = a_job().committed(0)


def plan(job, what, *, now=EPOCH):
    return plan_pods(job.build(), what.observed, now)


def test_what_is_there_is_not_created_again():
    what = seen().aggregator().ready(0).starting(1)
    created = [action for action in plan(STARTED, what).actions if isinstance(action, CreatePod)]
    assert [(action.role, action.index) for action in created] == [(PodRole.CLIENT, 2)]


def test_a_pod_that_ended_is_replaced_at_once_the_first_time():
    action = only(decided(STARTED, seen().exited(index=1)), CreatePod, lambda action: action.index == 1)
    assert (action.role, action.ordinal) == (PodRole.CLIENT, 1)


@pytest.mark.parametrize(
    ("ordinal", "seconds"), [(0, 0), (1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 30), (7, 30), (10_000, 30)]
)
def test_a_pod_that_keeps_ending_is_replaced_later_and_later(ordinal, seconds):
    assert replacement_delay(ordinal).total_seconds() == seconds


def test_a_replacement_is_not_due_before_its_delay():
    what = seen().exited(index=1, ordinal=2, since=at(10))
    early, due = plan(STARTED, what, now=at(11.9)), plan(STARTED, what, now=at(12))
    assert early.wake_at == at(12)
    assert not any(isinstance(action, CreatePod) and action.index == 1 for action in early.actions)
    assert CreatePod(role=PodRole.CLIENT, index=1, ordinal=3) in due.actions


def test_the_loop_wakes_for_a_replacement():
    decision = settled(STARTED, seen().aggregator(committed=0).ready(0, 2).exited(index=1, ordinal=2))[1]
    assert decision.wake_at == at(2)


@pytest.mark.parametrize(("limit", "ordinal", "lost"), [(0, 0, True), (3, 2, False), (3, 3, True), (3, 4, True)])
def test_a_client_is_lost_when_backoff_limit_pods_replaced_it(limit, ordinal, lost):
    job = a_job().clients(3, backoffLimit=limit).committed(0)
    planned = plan(job, seen().exited(index=1, ordinal=ordinal), now=at(1000))
    assert (1 in planned.lost) == lost
    created = any(isinstance(action, CreatePod) and action.index == 1 for action in planned.actions)
    assert created != lost


def test_lost_clients_are_in_the_status():
    job, _ = settled(STARTED, seen().aggregator(committed=0).ready(0).lost(1, 2))
    assert (job.status.clients.lost, job.status.clients.lost_indices) == (2, (1, 2))


def test_the_aggregator_is_replaced_for_ever():
    planned = plan(STARTED, seen().exited(PodRole.AGGREGATOR, ordinal=100), now=at(30))
    assert CreatePod(role=PodRole.AGGREGATOR, index=0, ordinal=101) in planned.actions


def test_the_evaluator_is_given_up_after_three_replacements():
    job = a_job().evaluated().committed(0)
    planned = plan(job, seen().exited(PodRole.EVALUATOR, ordinal=3), now=at(1000))
    assert planned.evaluator_lost
    assert not any(isinstance(action, CreatePod) and action.role is PodRole.EVALUATOR for action in planned.actions)


def test_a_job_without_evaluation_has_no_evaluator():
    roles = {action.role for action in plan(STARTED, seen()).actions if isinstance(action, CreatePod)}
    assert roles == {PodRole.AGGREGATOR, PodRole.CLIENT}


def test_who_became_ready_is_asked_what_it_is():
    what = seen().pod(pod(PodRole.AGGREGATOR)).pod(pod(PodRole.CLIENT, 1)).starting(2)
    planned = plan(STARTED, what)
    assert [action.key for action in planned.actions if isinstance(action, ReadState | FetchInfo)] == [
        "state/aggregator-0-0",
        "info/client/1/client-1-0",
    ]
    assert planned.ready == frozenset()


def test_who_has_said_what_it_is_is_not_asked_again():
    planned = plan(STARTED, seen().aggregator().ready(0, 1, 2))
    assert planned.actions == ()
    assert planned.ready == {0, 1, 2}


def test_the_predecessor_of_a_pod_is_removed():
    what = seen().exited(index=1, ordinal=0).pod(pod(PodRole.CLIENT, 1, ordinal=1, phase=PodPhase.STARTING))
    action = only(decided(STARTED, what), DeletePod)
    assert (action.index, action.ordinal, action.incarnation) == (1, 0, "client-1-0")


def test_pods_that_nobody_asks_for_any_more_are_removed_and_take_no_part():
    """The job was scaled down, and its evaluation switched off."""
    planned = plan(STARTED, seen().aggregator().ready(0, 1, 2, 3).evaluator())
    assert {action.key for action in planned.actions} == {"delete/client/3/0", "delete/evaluator/0/0"}
    assert planned.ready == {0, 1, 2}
    assert not planned.evaluator_ready


def test_a_finished_job_releases_everything_but_the_aggregator():
    what = seen().aggregator(committed=2).ready(0, 1).evaluator().exited(index=2)
    job, decision = settled(a_job().committed(2), what)
    assert job.status.phase is Phase.COMPLETE
    assert decision.finished
    assert {action.key for action in decision.actions} == {
        "delete/client/0/0",
        "delete/client/1/0",
        "delete/client/2/0",
        "delete/evaluator/0/0",
    }


def test_nothing_is_left_to_release_once_only_the_aggregator_is_there():
    assert release_pods(seen().aggregator().observed) == ()


def test_clients_of_each_group_have_its_limit():
    groups = [{"name": "a", "replicas": 1, "backoffLimit": 0}, {"name": "b", "replicas": 1, "backoffLimit": 2}]
    job = a_job().having(clientGroups=groups, minClients=1).committed(0)
    planned = plan(job, seen().exited(index=0, ordinal=1).exited(index=1, ordinal=1), now=at(100))
    assert planned.lost == {0}


def test_an_index_belongs_to_one_group():
    layout = a_job().having(clientGroups=[{"name": "a", "replicas": 2}, {"name": "b", "replicas": 1}]).accepted()
    entries = layout.build().status.layout
    assert [group_of(entries, index) for index in range(3)] == ["a", "a", "b"]
    with pytest.raises(LookupError, match="no client group has index 3"):
        group_of(entries, 3)


@pytest.mark.parametrize("reason", [Reason.TRAINER_ERROR, Reason.DATA_ERROR, Reason.INVALID_SPEC])
def test_too_many_clients_that_can_never_take_part_fail_the_job_in_their_own_words(reason):
    what = seen().aggregator().ready(0)
    for index in (1, 2):
        what = what.exited(index=index, ordinal=3, reason=reason, message="no file /data")
    job, decision = settled(a_job().having(minClients=2).accepted(), what)
    assert decision.finished
    assert (job.status.phase, job.status.reason) == (Phase.FAILED, reason)
    assert "client 1: " in job.status.message
    assert "no file /data" in job.status.message


def test_clients_that_crashed_too_often_are_waited_for_as_they_may_be_mended():
    what = seen().aggregator().ready(0).lost(1, 2)
    job, decision = settled(a_job().having(minClients=2).accepted(), what)
    assert not decision.finished
    assert job.status.reason == Reason.WAITING_FOR_CLIENTS
