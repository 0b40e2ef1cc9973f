"""A round that gets fewer reports than it needs: drawn anew, waited for, or given up."""

import pytest

from fedjob_operator.api.v1alpha1 import ConditionType, Phase, RoundState
from fedjob_operator.core.actions import OpenRound
from fedjob_operator.core.quorum import definitive_reason, retry_delay
from fedjob_operator.core.selection import select
from fedjob_protocol.reasons import Reason
from fedjob_protocol.round import RoundState as AggregatorRound
from tests.support.builders import a_job, at, decided, failure, of_type, only, seen, settled

EVERYBODY = seen().aggregator(committed=0).ready(*range(5))
LATE = failure(3, Reason.DEADLINE_EXCEEDED, "no verified update within 60 s")


def abandoned(attempt=1, *, reported=(1,), failed=(LATE,)):
    return EVERYBODY.round(1, AggregatorRound.ABANDONED, attempt=attempt, reported=reported, failed=failed)


def in_round(*, failed_attempts=0, **policy):
    job = a_job().clients(5).policy(clientsPerRound=2, **policy)
    attempt = failed_attempts + 1
    return job.in_round(1, 1, 3, attempt=attempt, redraw=failed_attempts).saying(failed_attempts=failed_attempts)


def test_an_abandoned_attempt_is_drawn_anew():
    first = decided(in_round(), abandoned())
    current = first.status.current_round
    assert (current.attempt, current.redraw) == (2, 1)
    assert current.selected == select(seed=7, round_number=1, redraw=1, candidates=range(5), count=2)
    assert first.status.failed_attempts == 1
    assert only(settled(in_round(), abandoned())[1], OpenRound).spec.redraw == 1


def test_after_the_last_attempt_the_job_waits_and_says_why():
    job, decision = settled(in_round(failed_attempts=2), abandoned(attempt=3), now=at(100))
    assert (job.status.phase, job.status.reason) == (Phase.WAITING_FOR_CLIENTS, Reason.QUORUM_LOST)
    assert "round 1, attempt 3: 1 of 2 needed reports" in job.status.message
    assert "client 3: DeadlineExceeded: no verified update within 60 s" in job.status.message
    assert decision.wake_at == at(105)
    assert of_type(decision, OpenRound) == []


def test_when_the_wait_is_over_the_round_is_drawn_anew():
    waiting, _ = settled(in_round(failed_attempts=2), abandoned(attempt=3), now=at(100))
    early, _ = settled(waiting, abandoned(attempt=3), now=at(104))
    assert early.status.current_round.attempt == 3
    again, decision = settled(waiting, abandoned(attempt=3), now=at(105))
    assert (again.status.current_round.attempt, again.status.current_round.redraw) == (4, 3)
    assert again.status.phase is Phase.RUNNING
    assert again.status.failed_attempts == 3
    assert only(decision, OpenRound)


def test_the_wait_doubles_with_each_further_attempt():
    waiting, decision = settled(in_round(failed_attempts=3), abandoned(attempt=4), now=at(200))
    assert decision.wake_at == at(210)
    assert waiting.status.condition(ConditionType.PROGRESSING).last_transition_time == at(200)


def test_a_wait_ends_no_earlier_than_enough_clients_are_back():
    few = seen().aggregator(committed=0).ready(1).starting(0, 2, 3, 4)
    few = few.round(1, AggregatorRound.ABANDONED, attempt=3, reported=[1], failed=[LATE])
    waiting, _ = settled(in_round(failed_attempts=2), few, now=at(100))
    still, decision = settled(waiting, few, now=at(1000))
    assert still.status.current_round.attempt == 3
    assert decision.wake_at is None
    back, _ = settled(still, abandoned(attempt=3), now=at(1001))
    assert back.status.current_round.attempt == 4


def test_a_wait_says_who_is_missing_now():
    few = seen().aggregator(committed=0).ready(1).starting(0, 2, 4)
    few = few.waiting(3, Reason.IMAGE_PULL_FAILED, "no such image")
    few = few.round(1, AggregatorRound.ABANDONED, attempt=3, reported=[1], failed=[LATE])
    waiting, _ = settled(in_round(failed_attempts=2), few, now=at(100))
    progress = waiting.status.condition(ConditionType.PROGRESSING)
    assert "1 of 2 needed clients are ready; client 3: ImagePullFailed: no such image" in progress.message
    back, _ = settled(waiting, abandoned(attempt=3), now=at(104))
    assert "needed clients" not in back.status.condition(ConditionType.PROGRESSING).message


def test_a_wait_ends_no_earlier_than_min_clients_are_back():
    """Below minClients training waits; fewer reports than that may be enough for a round."""
    few = seen().aggregator(committed=0).ready(1, 2, 3).starting(0, 4)
    few = few.round(1, AggregatorRound.ABANDONED, attempt=3, reported=[1], failed=[LATE])
    job = in_round(failed_attempts=2).having(minClients=4)
    still, _ = settled(job, few, now=at(100))
    still, _ = settled(still, few, now=at(1000))
    assert (still.status.current_round.attempt, still.status.phase) == (3, Phase.WAITING_FOR_CLIENTS)
    back, _ = settled(still, few.ready(0), now=at(1001))
    assert back.status.current_round.attempt == 4


def test_a_round_whose_participants_are_away_waits_for_clients_below_min_clients():
    job = a_job().clients(3).committed(0).in_round(1, 0, 1, 2, state=RoundState.PROVISIONING)
    away = seen().aggregator(committed=0).ready(0).starting(1, 2)
    waiting, _ = settled(job, away)
    assert (waiting.status.phase, waiting.status.reason) == (Phase.WAITING_FOR_CLIENTS, Reason.WAITING_FOR_CLIENTS)
    assert "1 of 3 needed clients are ready; client 1: starting; client 2: starting" in waiting.status.message
    back, decision = settled(waiting, seen().aggregator(committed=0).ready(0, 1, 2))
    assert back.status.phase is Phase.RUNNING
    assert only(decision, OpenRound).round == 1


def test_a_round_whose_participants_are_away_is_provisioning_with_min_clients_there():
    job = a_job().clients(3).having(minClients=2).committed(0).in_round(1, 0, 1, 2, state=RoundState.PROVISIONING)
    there = seen().aggregator(committed=0).ready(0, 1).starting(2)
    assert settled(job, there)[0].status.reason == Reason.PROVISIONING


def test_where_the_job_says_so_it_fails_instead():
    job, decision = settled(in_round(failed_attempts=2, onQuorumLoss="Fail"), abandoned(attempt=3))
    assert decision.finished
    assert (job.status.phase, job.status.reason) == (Phase.FAILED, Reason.QUORUM_LOST)
    assert "1 of 2 needed reports" in job.status.message


def test_one_attempt_is_enough_to_give_up_where_the_job_says_so():
    job, _ = settled(in_round(maxAttempts=1, onQuorumLoss="Fail"), abandoned())
    assert job.status.phase is Phase.FAILED


def test_trainers_that_raise_fail_the_job_in_their_own_words():
    failed = [failure(1), failure(3, message="ValueError: shapes differ")]
    job, _ = settled(in_round(failed_attempts=2), abandoned(attempt=3, reported=(), failed=failed))
    assert (job.status.phase, job.status.reason) == (Phase.FAILED, Reason.TRAINER_ERROR)
    assert "client 3: TrainerError: ValueError: shapes differ" in job.status.message


def test_trainers_that_raise_are_tried_with_other_participants_first():
    failed = [failure(1), failure(3)]
    job, _ = settled(in_round(), abandoned(reported=(), failed=failed))
    assert job.status.current_round.redraw == 1


def test_nobody_to_choose_is_a_lost_quorum_and_no_crash():
    """All clients are lost: the attempt has no participant and no view, so there is no reason but that."""
    gone = seen().aggregator(committed=0).lost(*range(5))
    job, decision = settled(in_round(), gone)
    assert not decision.finished
    assert (job.status.phase, job.status.reason) == (Phase.WAITING_FOR_CLIENTS, Reason.QUORUM_LOST)
    job, decision = settled(in_round(onQuorumLoss="Fail"), gone)
    assert (decision.finished, job.status.reason) == (True, Reason.QUORUM_LOST)


@pytest.mark.parametrize("job", [a_job().accepted(), a_job().committed(0)], ids=["before the start", "between rounds"])
def test_too_few_clients_left_are_the_end_where_the_job_says_so(job):
    """Lost clients do not come back, so nothing is left to wait for."""
    what = seen().aggregator(committed=job.status.rounds.committed).ready(0, 1).lost(2)
    waiting, _ = settled(job, what)
    assert waiting.status.reason == Reason.WAITING_FOR_CLIENTS
    failed, decision = settled(job.policy(onQuorumLoss="Fail"), what)
    assert decision.finished
    assert failed.status.reason == Reason.QUORUM_LOST
    assert "1 clients are lost; client 2: Crashed: exit code 1 (given up)" in failed.status.message


def test_enough_clients_left_are_waited_for_even_then():
    job = a_job().clients(4).policy(onQuorumLoss="Fail").having(minClients=3).committed(0)
    written, decision = settled(job, seen().aggregator(committed=0).ready(0, 1).starting(2).lost(3))
    assert not decision.finished
    assert written.status.reason == Reason.WAITING_FOR_CLIENTS


@pytest.mark.parametrize(
    ("failed_attempts", "seconds"), [(3, 5), (4, 10), (5, 20), (8, 160), (9, 300), (50, 300), (10**6, 300)]
)
def test_retries_come_later_and_later_but_always_come(failed_attempts, seconds):
    assert retry_delay(failed_attempts, 3).total_seconds() == seconds


@pytest.mark.parametrize(
    ("failures", "participants", "needed", "reason"),
    [
        pytest.param([], 0, 1, None, id="nobody took part"),
        pytest.param([], 2, 3, None, id="too few took part"),
        pytest.param([Reason.TRAINER_ERROR], 3, 2, None, id="the others could do it"),
        pytest.param([Reason.TRAINER_ERROR, Reason.TRAINER_ERROR], 3, 2, Reason.TRAINER_ERROR, id="trainers raise"),
        pytest.param([Reason.CLIENT_LOST, Reason.DEADLINE_EXCEEDED], 2, 1, None, id="waiting may help"),
        pytest.param(
            [Reason.DATA_ERROR, Reason.TRAINER_ERROR, Reason.DATA_ERROR], 3, 1, Reason.DATA_ERROR, id="the commonest"
        ),
        pytest.param(["SomethingNew"], 1, 1, None, id="a reason of a newer release"),
    ],
)
def test_only_failures_that_waiting_does_not_mend_are_definitive(failures, participants, needed, reason):
    failed = [failure(index, cause) for index, cause in enumerate(failures)]
    assert definitive_reason(failed, participants=participants, needed=needed) == reason
