"""Which statuses may wait a moment to be written."""

import pytest

from fedjob_operator.api.v1alpha1 import ConditionType, RoundState
from fedjob_operator.core.conditions import set_condition
from fedjob_operator.core.progress import is_progress_only
from fedjob_protocol.reasons import Reason
from tests.support.builders import a_job, at, seen, settled

JOB, _ = settled(a_job().evaluated().in_round(1, 0, 1, 2), seen().aggregator(committed=0).ready(0, 1, 2).round(1))
BEFORE = JOB.status


def saying(holds, reason, message):
    return set_condition(BEFORE, ConditionType.PROGRESSING, holds=holds, reason=reason, message=message, now=at(9))


def in_round(**fields):
    return BEFORE.model_copy(update={"current_round": BEFORE.current_round.model_copy(update=fields)})


@pytest.mark.parametrize(
    "after",
    [
        pytest.param(in_round(reported=2), id="reports"),
        pytest.param(in_round(state=RoundState.EVALUATING), id="evaluating"),
        pytest.param(saying(True, Reason.EVALUATING, "round 1 is being evaluated"), id="another reason"),
        pytest.param(
            BEFORE.model_copy(update={"clients": BEFORE.clients.model_copy(update={"ready": 2})}), id="who is ready"
        ),
    ],
)
def test_what_only_counts_on_may_wait(after):
    assert after != BEFORE
    assert is_progress_only(BEFORE, after)


@pytest.mark.parametrize(
    "after",
    [
        pytest.param(in_round(attempt=2), id="an attempt"),
        pytest.param(in_round(state=RoundState.PROVISIONING), id="an opening"),
        pytest.param(in_round(selected=(0, 1)), id="participants"),
        pytest.param(saying(False, Reason.QUORUM_LOST, ""), id="a condition that ends"),
        pytest.param(BEFORE.model_copy(update={"term": 2}), id="a term"),
        pytest.param(BEFORE.model_copy(update={"observed_generation": 2}), id="a spec that was seen"),
        pytest.param(
            BEFORE.model_copy(update={"clients": BEFORE.clients.model_copy(update={"lost_indices": (1,)})}), id="a loss"
        ),
        pytest.param(BEFORE.model_copy(update={"current_round": None}), id="the end of a round"),
        pytest.param(BEFORE.model_copy(update={"completion_time": at(1)}), id="the end"),
    ],
)
def test_what_decisions_build_on_may_not(after):
    assert not is_progress_only(BEFORE, after)
