"""Conditions, and what is derived from them for people."""

import pytest

from fedjob_operator.api.v1alpha1 import ConditionStatus, ConditionType, FederatedJobStatus, Metric, Phase
from fedjob_operator.core.conditions import MAX_MESSAGE, derive_phase, describe, finish, is_finished, set_condition
from fedjob_operator.core.phases import TERMINAL, TRANSITIONS
from fedjob_protocol.reasons import Reason
from tests.support.builders import EPOCH, a_job, at

EMPTY = FederatedJobStatus()


def holding(status, kind, *, holds=True, reason=Reason.STARTING, message="", now=EPOCH):
    return set_condition(status, kind, holds=holds, reason=reason, message=message, now=now)


def test_setting_the_same_condition_again_changes_nothing():
    once = holding(EMPTY, ConditionType.PROGRESSING)
    assert holding(once, ConditionType.PROGRESSING, now=at(10)) is once


def test_another_reason_keeps_the_transition_time():
    before = holding(EMPTY, ConditionType.PROGRESSING)
    after = holding(before, ConditionType.PROGRESSING, reason=Reason.ROUND_IN_PROGRESS, now=at(10))
    condition = after.condition(ConditionType.PROGRESSING)
    assert (condition.reason, condition.last_transition_time) == (Reason.ROUND_IN_PROGRESS, EPOCH)


def test_another_status_is_a_transition():
    before = holding(EMPTY, ConditionType.PROGRESSING)
    after = holding(before, ConditionType.PROGRESSING, holds=False, now=at(10))
    condition = after.condition(ConditionType.PROGRESSING)
    assert (condition.status, condition.last_transition_time) == (ConditionStatus.FALSE, at(10))


def test_conditions_have_a_fixed_order_and_one_entry_per_type():
    status = EMPTY
    for kind in (ConditionType.FAILED, ConditionType.ACCEPTED, ConditionType.PROGRESSING, ConditionType.ACCEPTED):
        status = holding(status, kind, message=f"{len(status.conditions)}")
    assert [condition.type for condition in status.conditions] == ["Accepted", "Progressing", "Failed"]


def test_long_messages_are_cut():
    status = holding(EMPTY, ConditionType.PROGRESSING, message="x" * 5000)
    assert len(status.conditions[0].message) == MAX_MESSAGE
    assert holding(status, ConditionType.PROGRESSING, message="x" * 5000) is status


@pytest.mark.parametrize("failed", [True, False])
def test_complete_and_failed_exclude_one_another(failed):
    status = finish(EMPTY, failed=failed, reason=Reason.ROUNDS_COMPLETED, message="", now=at(3))
    assert is_finished(status)
    assert status.holds(ConditionType.FAILED) == failed
    assert status.holds(ConditionType.COMPLETE) == (not failed)
    assert not status.holds(ConditionType.PROGRESSING)
    assert status.completion_time == at(3)


ACCEPTED = a_job().accepted().status
RUNNING = a_job().committed(1).status


@pytest.mark.parametrize(
    ("status", "phase"),
    [
        pytest.param(EMPTY, Phase.PENDING, id="not accepted"),
        pytest.param(ACCEPTED, Phase.STARTING, id="no round was opened"),
        pytest.param(RUNNING, Phase.RUNNING, id="started"),
        pytest.param(
            holding(RUNNING, ConditionType.PROGRESSING, holds=False, reason=Reason.QUORUM_LOST),
            Phase.WAITING_FOR_CLIENTS,
            id="quorum lost",
        ),
        pytest.param(
            holding(RUNNING, ConditionType.PROGRESSING, holds=False, reason=Reason.WAITING_FOR_CLIENTS),
            Phase.WAITING_FOR_CLIENTS,
            id="too few clients",
        ),
        pytest.param(
            holding(RUNNING, ConditionType.PROGRESSING, holds=False, reason=Reason.CHECKPOINT_FAILED),
            Phase.RUNNING,
            id="the disk is full",
        ),
        pytest.param(
            finish(RUNNING, failed=False, reason=Reason.ROUNDS_COMPLETED, message="", now=EPOCH),
            Phase.COMPLETE,
            id="complete",
        ),
        pytest.param(
            finish(EMPTY, failed=True, reason=Reason.INVALID_SPEC, message="", now=EPOCH), Phase.FAILED, id="failed"
        ),
    ],
)
def test_the_phase_follows_from_the_conditions(status, phase):
    assert derive_phase(status) is phase


def test_the_reason_shown_is_the_one_that_matters_now():
    job = a_job().accepted().build()
    starting = holding(ACCEPTED, ConditionType.CLIENTS_READY, holds=False, reason=Reason.WAITING_FOR_CLIENTS)
    assert describe(job, starting).reason == Reason.WAITING_FOR_CLIENTS
    both = holding(starting, ConditionType.AGGREGATOR_READY, holds=False, reason=Reason.AGGREGATOR_STARTING)
    assert describe(job, both).reason == Reason.AGGREGATOR_STARTING
    running = holding(RUNNING, ConditionType.PROGRESSING, reason=Reason.ROUND_IN_PROGRESS, message="round 2")
    assert (describe(job, running).reason, describe(job, running).message) == (Reason.ROUND_IN_PROGRESS, "round 2")
    gone = holding(running, ConditionType.AGGREGATOR_READY, holds=False, reason=Reason.CRASHED, message="exit code 1")
    assert (describe(job, gone).reason, describe(job, gone).message) == (Reason.CRASHED, "exit code 1")
    over = finish(gone, failed=False, reason=Reason.TARGET_REACHED, message="enough", now=EPOCH)
    assert (describe(job, over).reason, describe(job, over).message) == (Reason.TARGET_REACHED, "enough")


@pytest.mark.parametrize(
    ("job", "metrics", "text"),
    [
        (a_job(), {}, ""),
        (a_job(), {"loss": 0.5, "zeal": 1.0}, "loss 0.5000"),
        (a_job(), {"loss": 0.5, "accuracy": 0.91234}, "accuracy 0.9123"),
        (a_job().objective("zeal"), {"accuracy": 0.9, "zeal": 1.0}, "zeal 1.0000"),
    ],
)
def test_the_columns_show_the_objective_or_the_accuracy_or_whatever_there_is(job, metrics, text):
    built = job.committed(1).build()
    status = built.status.model_copy(
        update={"metrics": tuple(Metric(name=name, value=value) for name, value in sorted(metrics.items()))}
    )
    summary = describe(built, status).summary
    assert (summary.rounds, summary.metric) == ("1/2", text)


def test_before_the_initial_model_zero_rounds_are_shown():
    job = a_job().accepted().build()
    assert describe(job, job.status).summary.rounds == "0/2"


# The table of phases


def test_the_table_has_every_phase():
    assert set(TRANSITIONS) == set(Phase)


def test_what_is_terminal_leads_nowhere():
    assert {phase for phase, following in TRANSITIONS.items() if not following} == TERMINAL


def test_every_phase_can_be_reached():
    reached = {Phase.PENDING}
    while new := {after for before in reached for after in TRANSITIONS[before]} - reached:
        reached |= new
    assert reached == set(Phase)
