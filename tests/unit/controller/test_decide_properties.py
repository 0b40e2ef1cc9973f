"""What holds of every decision, whatever was written and whatever is seen.

FEDJOB_DECIDE_EXAMPLES sets how many scenes there are.
"""

import os
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from fedjob_operator.api.v1alpha1 import FederatedJobStatus, Phase, dump
from fedjob_operator.core.actions import DeletePod, OpenRound, RecordEvaluation, ReportFailure, StartTask, WatchRound
from fedjob_operator.core.decide import decide
from fedjob_operator.core.phases import TERMINAL, TRANSITIONS
from tests.support.scenes import SceneMaker

EXAMPLES = int(os.environ.get("FEDJOB_DECIDE_EXAMPLES", "300"))


@given(seed=st.integers(0, 2**64 - 1))
@settings(max_examples=EXAMPLES, deadline=None)
def test_every_decision_is_total_honest_and_comes_to_rest(seed):
    maker = SceneMaker(seed)
    job, now, platform = maker.job, maker.now, maker.platform
    seen = maker.with_failures([action.key for action in decide(job, maker.seen, now, platform=platform).actions])
    decision = decide(job, seen, now, platform=platform)
    it_only_goes_forward(job, decision)
    a_suspended_job_only_lets_go(job, decision)
    calls_follow_from_what_is_written(job, decision)
    what_is_written_can_be_read_again(decision)
    actions_have_names_of_their_own(decision)
    the_order_of_pods_does_not_matter(job, seen, now, platform, decision)
    it_comes_to_rest(job, seen, now, platform)


def it_only_goes_forward(job, decision):
    before, after = job.status, decision.status
    assert after.term >= before.term
    assert after.rounds.committed >= before.rounds.committed
    assert after.phase is before.phase or after.phase in TRANSITIONS[before.phase]
    assert decision.finished == (after.phase in TERMINAL)
    assert before.phase not in TERMINAL or (after.phase, after.rounds) == (before.phase, before.rounds)


def a_suspended_job_only_lets_go(job, decision):
    if job.spec.suspend and not decision.finished:
        assert all(isinstance(action, DeletePod) for action in decision.actions)
        assert decision.status.phase in (Phase.SUSPENDING, Phase.SUSPENDED)


def calls_follow_from_what_is_written(job, decision):
    """Intent before effect: the term, round and attempt of every call are in the status that was read."""
    current, term = job.status.current_round, job.status.term
    for action in decision.actions:
        match action:
            case OpenRound(spec=spec):
                written = (term, current.number, current.attempt, current.redraw)
                assert (spec.term, action.round, spec.attempt, spec.redraw) == written
                assert tuple(item.client for item in spec.participants) == current.selected
            case StartTask():
                goal = action.task.destination
                written = (term, current.number, current.attempt, current.boot_id)
                assert (goal.term, action.round, goal.attempt, goal.boot_id) == written
                assert action.client in current.selected
            case ReportFailure(report=report):
                assert (report.term, action.round, report.attempt) == (term, current.number, current.attempt)
                assert action.client in current.selected
            case WatchRound() | RecordEvaluation():
                assert action.round == current.number


def what_is_written_can_be_read_again(decision):
    assert FederatedJobStatus.model_validate(dump(decision.status)) == decision.status


def actions_have_names_of_their_own(decision):
    keys = [action.key for action in decision.actions]
    assert len(set(keys)) == len(keys)


def the_order_of_pods_does_not_matter(job, seen, now, platform, decision):
    backwards = decide(job, replace(seen, pods=seen.pods[::-1]), now, platform=platform)
    assert backwards.status == decision.status
    assert {action.key for action in backwards.actions} == {action.key for action in decision.actions}


def it_comes_to_rest(job, seen, now, platform):
    """Nobody writes without end: with the same world and time there is soon nothing left to change or to wake for."""
    for _ in range(12):
        decision = decide(job, seen, now, platform=platform)
        if decision.status == job.status:
            assert decide(job, seen, now, platform=platform) == decision
            assert decision.wake_at is None or decision.wake_at > now
            return
        job = job.model_copy(update={"status": decision.status})
    raise AssertionError(f"still changing: {job.status}")
