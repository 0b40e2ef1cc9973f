"""Acceptance, and when the first round may open."""

import pytest

from fedjob_operator.api.v1alpha1 import ConditionType, Phase, RoundState
from fedjob_operator.core.actions import CreatePod, OpenRound, StartTask
from fedjob_operator.core.observed import PodRole
from fedjob_protocol.reasons import Reason
from fedjob_protocol.round import RoundState as AggregatorRound
from fedjob_protocol.tasks import InitTask
from tests.support.builders import a_job, at, decided, of_type, only, seen, settled


def test_the_layout_is_fixed_before_anything_is_started():
    decision = decided(a_job().clients(3), seen())
    assert [(entry.group, entry.first, entry.count) for entry in decision.status.layout] == [("clients", 0, 3)]
    assert decision.status.phase is Phase.STARTING
    assert decision.status.rounds.total == 2
    assert decision.status.clients.desired == 3
    assert decision.actions == ()


def test_groups_follow_one_another_and_keep_room_to_grow():
    groups = [{"name": "few", "replicas": 2, "maxReplicas": 4}, {"name": "more", "replicas": 3}]
    job, decision = settled(a_job().having(clientGroups=groups), seen())
    assert [(entry.first, entry.count) for entry in job.status.layout] == [(0, 4), (4, 3)]
    created = [action.index for action in of_type(decision, CreatePod) if action.role is PodRole.CLIENT]
    assert created == [0, 1, 4, 5, 6]
    assert job.status.clients.desired == 5


def test_a_spec_that_no_client_can_be_given_fails_with_the_field():
    decision = decided(a_job().having(training={"optimizer": {"parameters": {"momentum": "much"}}}), seen())
    assert decision.finished
    assert decision.status.phase is Phase.FAILED
    assert decision.status.reason == Reason.INVALID_SPEC
    assert "spec.training.optimizer.parameters.momentum" in decision.status.message


def test_everything_is_started_at_once():
    _, decision = settled(a_job().evaluated(), seen())
    assert {action.key for action in of_type(decision, CreatePod)} == {
        "create/aggregator/0/0",
        "create/client/0/0",
        "create/client/1/0",
        "create/client/2/0",
        "create/evaluator/0/0",
    }


def test_a_job_starts_when_all_its_clients_are_ready():
    job, decision = settled(a_job(), seen().aggregator().ready(0, 1, 2))
    assert job.status.phase is Phase.RUNNING
    assert job.status.current_round.number == 0
    assert only(decision, OpenRound).round == 0


def test_a_job_waits_for_the_aggregator():
    job, decision = settled(a_job(), seen().ready(0, 1, 2))
    assert (job.status.phase, job.status.reason) == (Phase.STARTING, Reason.AGGREGATOR_STARTING)
    assert of_type(decision, OpenRound) == []


def test_a_job_waits_for_its_clients_and_says_which_are_missing():
    job, decision = settled(a_job(), seen().aggregator().ready(0).starting(1).exited(index=2))
    assert (job.status.phase, job.status.reason) == (Phase.STARTING, Reason.WAITING_FOR_CLIENTS)
    assert "1 of 3 are ready" in job.status.message
    assert "client 1: starting" in job.status.message
    assert "client 2: Crashed: exit code 1 (to be replaced)" in job.status.message
    assert of_type(decision, OpenRound) == []


@pytest.mark.parametrize(
    ("seconds", "starts"),
    [pytest.param(59, False, id="while others may join"), pytest.param(60, True, id="when joinWaitSeconds are over")],
)
def test_with_min_clients_a_job_waits_for_the_others_for_a_while(seconds, starts):
    job = a_job().having(minClients=2).policy(clientsPerRound=2)
    what = seen().aggregator().ready(0, 2).starting(1)
    written, decision = settled(job, what, now=at(seconds))
    assert (written.status.start_time is not None) == starts
    if not starts:
        assert decision.wake_at == at(60)


def test_join_wait_runs_from_the_first_client():
    job = a_job().having(minClients=2).policy(clientsPerRound=2)
    what = seen().aggregator().ready(0, since=at(10)).ready(1, since=at(50))
    assert settled(job, what, now=at(50))[1].wake_at == at(70)


def test_lost_clients_are_not_waited_for():
    job = a_job().having(minClients=2).policy(clientsPerRound=2)
    written, _ = settled(job, seen().aggregator().ready(0, 1).lost(2))
    assert written.status.start_time is not None


def test_below_min_clients_nothing_starts_however_long_it_takes():
    job = a_job().having(minClients=2).policy(clientsPerRound=2)
    written, _ = settled(job, seen().aggregator().ready(0).starting(1, 2), now=at(100_000))
    assert written.status.start_time is None


def test_the_initial_model_is_made_by_the_ready_client_with_the_lowest_index():
    job = a_job().having(minClients=2).policy(clientsPerRound=2)
    what = seen().aggregator().starting(0).ready(1, 2).round(0)
    written, decision = settled(job, what, now=at(60))
    assert written.status.current_round.selected == (1,)
    task = only(decision, StartTask)
    assert task.client == 1
    assert isinstance(task.task, InitTask)


def test_the_initial_model_has_one_participant_and_no_base():
    _, decision = settled(a_job(), seen().aggregator().ready(0, 1, 2))
    spec = only(decision, OpenRound).spec
    assert spec.base is None
    assert [participant.client for participant in spec.participants] == [0]
    assert (spec.clients_per_round, spec.min_reports) == (1, 1)
    assert not spec.expects_evaluation


def test_when_whoever_made_the_initial_model_is_lost_another_one_does():
    job = a_job().in_round(0, 0)
    what = seen().aggregator().lost(0).ready(1, 2).round(0, AggregatorRound.ABANDONED)
    written, _ = settled(job, what)
    assert written.status.current_round.selected == (1,)
    assert (written.status.current_round.attempt, written.status.current_round.redraw) == (2, 1)


def test_the_initial_model_waits_for_a_client_when_none_is_ready():
    """An attempt without a participant would be a request that no aggregator can accept."""
    job = a_job().in_round(0, 0)
    what = seen().aggregator().lost(0).starting(1, 2).round(0, AggregatorRound.ABANDONED)
    written, decision = settled(job, what)
    assert written.status.current_round.selected == (1,)
    assert written.status.current_round.state is RoundState.PROVISIONING
    assert of_type(decision, OpenRound) == []


def test_conditions_say_when_they_changed():
    job, _ = settled(a_job(), seen().aggregator().ready(0), now=at(1))
    later, _ = settled(job, seen().aggregator().ready(0, 1, 2), now=at(5))
    ready = later.status.condition(ConditionType.CLIENTS_READY)
    assert (ready.reason, ready.last_transition_time) == (Reason.CLIENTS_READY, at(5))
    assert later.status.condition(ConditionType.AGGREGATOR_READY).last_transition_time == at(1)
