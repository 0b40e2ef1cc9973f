"""A committed round is evaluated before the next one is intended."""

from dataclasses import replace

import pytest

from fedjob_operator.api.v1alpha1 import ConditionType, Phase
from fedjob_operator.core.actions import Evaluate, RecordEvaluation, WatchRound
from fedjob_operator.core.observed import PodPhase, PodRole
from fedjob_operator.core.stopping import is_due
from fedjob_protocol.reasons import Reason
from fedjob_protocol.round import RoundState as AggregatorRound
from fedjob_protocol.tasks import EvaluationState
from tests.support.builders import a_job, at, chain_digest, of_type, only, pod, record, seen, settled

JOB = a_job().rounds(5).evaluated(deadlineSeconds=60).objective()
IN_ROUND = JOB.in_round(1, 0, 1, 2)


def committed(*, evaluator=True, **fields):
    what = seen().aggregator(committed=0).ready(0, 1, 2)
    what = what.evaluator() if evaluator else what
    done = record(1, 0, 1, 2, expects_evaluation=True, **fields)
    return what.round(1, AggregatorRound.COMMITTED, record=done)


def test_the_evaluator_gets_the_committed_model():
    job, decision = settled(IN_ROUND, committed())
    action = only(decision, Evaluate)
    assert action.url == "http://evaluator-0-0"
    assert (action.task.base.round, action.task.base.digest) == (1, chain_digest(1))
    assert action.task.model_url == "http://aggregator-0-0/v1/models/1"
    assert job.status.rounds.committed == 0


def test_an_aggregator_that_came_back_elsewhere_is_named_to_the_evaluator_at_once():
    # Under the same key it would wait for the answer to the call before, which waits for an address that is gone.
    first = only(settled(IN_ROUND, committed())[1], Evaluate)
    moved = committed().pod(replace(pod(PodRole.AGGREGATOR), url="http://elsewhere"))
    again = only(settled(IN_ROUND, moved)[1], Evaluate)
    assert again.task.model_url == "http://elsewhere/v1/models/1"
    assert again.task.base == first.task.base
    assert again.key != first.key


def test_its_answer_is_recorded_before_the_round_is_adopted():
    what = committed().evaluation(1, metrics={"accuracy": 0.9, "loss": 0.3}, examples=50)
    job, decision = settled(IN_ROUND, what)
    evaluation = only(decision, RecordEvaluation).evaluation
    assert (evaluation.term, evaluation.digest) == (1, chain_digest(1))
    assert evaluation.metrics == {"accuracy": 0.9, "loss": 0.3}
    assert (evaluation.examples, evaluation.best, evaluation.problem) == (50, True, None)
    assert job.status.rounds.committed == 0


def test_an_evaluated_round_is_adopted_with_its_metrics():
    done = record(1, 0, 1, 2, expects_evaluation=True, metrics={"loss": 0.3, "accuracy": 0.9}, best=True)
    what = committed().round(1, AggregatorRound.EVALUATED, record=done)
    job, _ = settled(IN_ROUND, what)
    assert [(metric.name, metric.value) for metric in job.status.metrics] == [("accuracy", 0.9), ("loss", 0.3)]
    assert (job.status.best.round, job.status.best.value, job.status.best.digest) == (1, 0.9, chain_digest(1))
    assert job.status.summary.metric == "accuracy 0.9000"
    assert job.status.current_round.number == 2


def test_an_answer_about_another_model_does_not_count():
    _, decision = settled(IN_ROUND, committed().evaluation(0, metrics={"accuracy": 0.9}))
    assert only(decision, Evaluate)
    assert of_type(decision, RecordEvaluation) == []


def test_an_evaluation_that_takes_long_is_asked_for_again():
    _, decision = settled(IN_ROUND, committed().evaluation(1, EvaluationState.RUNNING))
    assert only(decision, Evaluate)


def test_metrics_that_no_status_can_hold_are_left_out():
    metrics = {f"metric {index:03}": 1.0 for index in range(70)} | {"accuracy": 0.5, "": 1.0, "x" * 65: 1.0}
    _, decision = settled(JOB.objective("zeal").in_round(1, 0, 1, 2), committed().evaluation(1, metrics=metrics))
    assert len(only(decision, RecordEvaluation).evaluation.metrics) == 64
    _, decision = settled(IN_ROUND, committed().evaluation(1, metrics=metrics))
    kept = only(decision, RecordEvaluation).evaluation.metrics
    assert kept["accuracy"] == 0.5
    assert all(1 <= len(name) <= 64 for name in kept)


def test_metrics_of_a_record_are_held_to_the_same():
    metrics = {f"metric {index:03}": 1.0 for index in range(70)} | {"": 1.0, "x" * 65: 1.0}
    done = record(1, 0, 1, 2, expects_evaluation=True, metrics=metrics)
    job, _ = settled(IN_ROUND, committed().round(1, AggregatorRound.EVALUATED, record=done))
    assert len(job.status.metrics) == 64


# Without an answer


def test_the_loop_wakes_at_the_time_limit():
    _, decision = settled(IN_ROUND, committed(committed_at=at(5)), now=at(10))
    assert decision.wake_at == at(65)


def test_after_its_time_limit_training_goes_on_without_metrics():
    _, decision = settled(IN_ROUND, committed(), now=at(60))
    evaluation = only(decision, RecordEvaluation).evaluation
    assert (evaluation.metrics, evaluation.best) == ({}, False)
    assert evaluation.problem == "no evaluation within 60 s"


def test_the_time_limit_does_not_run_while_the_job_is_interrupted():
    """The record is from yesterday, the evaluator from today."""
    what = committed(committed_at=at(-100_000))
    _, decision = settled(IN_ROUND, what, now=at(59))
    assert only(decision, Evaluate)
    assert decision.wake_at == at(60)
    starting = committed(evaluator=False, committed_at=at(-100_000)).pod(
        pod(PodRole.EVALUATOR, phase=PodPhase.STARTING)
    )
    _, decision = settled(IN_ROUND, starting, now=at(59))
    assert of_type(decision, RecordEvaluation) == []


def test_an_evaluation_that_failed_is_recorded_with_its_reason():
    what = committed().evaluation(1, EvaluationState.FAILED, reason="TrainerError", message="ValueError: no")
    _, decision = settled(IN_ROUND, what)
    assert only(decision, RecordEvaluation).evaluation.problem == "evaluation failed: TrainerError: ValueError: no"


def test_a_lost_evaluator_is_not_waited_for():
    what = committed(evaluator=False).exited(PodRole.EVALUATOR, ordinal=3, reason=Reason.DATA_ERROR, message="no file")
    _, decision = settled(IN_ROUND, what)
    assert only(decision, RecordEvaluation).evaluation.problem == "the evaluator is lost: DataError: no file"


def test_an_evaluator_that_comes_back_is_waited_for():
    what = committed(evaluator=False).exited(PodRole.EVALUATOR, ordinal=0)
    job, decision = settled(IN_ROUND, what, now=at(1))
    assert not of_type(decision, RecordEvaluation | Evaluate)
    assert job.status.current_round.number == 1


@pytest.mark.parametrize(
    ("what", "seconds"),
    [
        pytest.param(committed().evaluation(1, EvaluationState.FAILED, message="no"), 1, id="failed"),
        pytest.param(committed(), 60, id="too late"),
        pytest.param(committed(evaluator=False).exited(PodRole.EVALUATOR, ordinal=3), 1, id="lost"),
    ],
)
def test_where_stopping_depends_on_it_the_job_waits_for_its_evaluation(what, seconds):
    job, decision = settled(JOB.having(stop={"patienceRounds": 3}).in_round(1, 0, 1, 2), what, now=at(seconds))
    assert of_type(decision, RecordEvaluation) == []
    assert (job.status.phase, job.status.reason) == (Phase.RUNNING, Reason.EVALUATION_FAILED)
    assert not job.status.holds(ConditionType.PROGRESSING)
    assert "`stop` needs its metrics" in job.status.message


def test_a_failed_evaluation_is_not_asked_for_without_pause():
    """Its answer is the same again, at once; only another evaluator may do better."""
    what = committed().evaluation(1, EvaluationState.FAILED, message="no")
    _, decision = settled(JOB.having(stop={"patienceRounds": 3}).in_round(1, 0, 1, 2), what)
    assert of_type(decision, Evaluate) == []


def test_a_round_that_nobody_evaluates_is_adopted_as_it_is():
    what = seen().aggregator(committed=0).ready(0, 1, 2).round(1, AggregatorRound.EVALUATED, reported=[0, 1, 2])
    job, decision = settled(a_job().in_round(1, 0, 1, 2), what)
    assert job.status.rounds.committed == 1
    assert job.status.metrics == ()
    assert of_type(decision, Evaluate) == []


def test_the_record_is_asked_for_while_only_the_commit_is_known():
    what = seen().aggregator(committed=1).ready(0, 1, 2).evaluator()
    _, decision = settled(IN_ROUND, what)
    assert only(decision, WatchRound)
    assert of_type(decision, Evaluate) == []


@pytest.mark.parametrize(
    ("period", "modes", "due"),
    [(1, ["Evaluator"], [1, 2, 3, 4, 5]), (2, ["Evaluator"], [2, 4, 5]), (9, ["Evaluator"], [5]), (1, [], [])],
)
def test_every_nth_round_and_the_last_are_evaluated_never_the_initial_model(period, modes, due):
    spec = a_job().rounds(5).having(evaluation={"modes": modes, "periodRounds": period}).build().spec
    assert [number for number in range(6) if is_due(spec, number)] == due
