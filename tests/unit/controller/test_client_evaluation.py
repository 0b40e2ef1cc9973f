"""Evaluation by the clients: who is asked, what their answers make together, and what is recorded."""

from dataclasses import replace

import pytest

from fedjob_operator.api.v1alpha1 import Phase
from fedjob_operator.core.actions import Evaluate, RecordEvaluation
from fedjob_operator.core.client_evaluation import ClientAnswers, together
from fedjob_protocol.messages import Base, ClientEvaluation, Evaluation
from fedjob_protocol.reasons import Reason
from fedjob_protocol.round import RoundState as AggregatorRound
from fedjob_protocol.tasks import NON_FINITE_METRICS, EvaluationState, EvaluationView
from tests.support.builders import UID, a_job, at, chain_digest, digest_of, of_type, only, record, seen, settled

BASE = Base(round=1, digest=chain_digest(1))
BY_CLIENTS = a_job().rounds(5).having(evaluation={"modes": ["Clients"], "deadlineSeconds": 60}).objective()
IN_ROUND = BY_CLIENTS.in_round(1, 0, 1, 2)


def committed(*ready):
    what = seen().aggregator(committed=0).ready(*(ready or (0, 1, 2)))
    return what.round(1, AggregatorRound.COMMITTED, record=record(1, 0, 1, 2, expects_evaluation=True))


def answering(what, **by_client):
    """Answers by client: metrics and examples, or a problem."""
    answers = {}
    for name, said in by_client.items():
        index = int(name.removeprefix("c"))
        values = {"state": EvaluationState.DONE, **said} if isinstance(said, dict) else said
        answers[index] = EvaluationView(**{"base": BASE, **values})
    return replace(what, observed=replace(what.observed, client_evaluations=answers))


def accuracy(value, examples):
    return {"metrics": {"accuracy": value}, "examples": examples}


def test_every_client_is_asked_for_its_own_measure():
    job, decision = settled(IN_ROUND, committed())
    asked = of_type(decision, Evaluate)
    assert {action.client: action.url for action in asked} == {index: f"http://client-{index}-0" for index in range(3)}
    assert {action.task.base for action in asked} == {BASE}
    assert "0 of 3 clients have evaluated it" in job.status.message


def test_only_those_that_have_not_answered_are_asked_again():
    running = {"state": EvaluationState.RUNNING}
    what = answering(committed(), c0=accuracy(0.5, 10), c1=running)
    _, decision = settled(IN_ROUND, what)
    assert [action.client for action in of_type(decision, Evaluate)] == [1, 2]
    assert of_type(decision, RecordEvaluation) == []


def test_the_mean_is_weighted_by_examples_and_the_spread_is_recorded():
    what = answering(committed(), c0=accuracy(1.0, 30), c1=accuracy(0.5, 10), c2=accuracy(0.0, 0))
    evaluation = only(settled(IN_ROUND, what)[1], RecordEvaluation).evaluation
    assert evaluation.metrics == {"accuracy": 0.875}
    assert evaluation.examples == 40
    assert evaluation.best
    spread = evaluation.spread["accuracy"]
    assert (spread.clients, spread.lowest, spread.highest) == (3, 0.0, 1.0)
    assert spread.deviation == pytest.approx(0.21650635)
    assert [(item.client, item.metrics["accuracy"]) for item in evaluation.clients] == [(0, 1.0), (1, 0.5), (2, 0.0)]


def test_a_client_that_fails_is_named_and_not_waited_for():
    failed = {"state": EvaluationState.FAILED, "reason": "TrainerError", "message": "ValueError: no"}
    what = answering(committed(), c0=accuracy(0.5, 10), c1=failed, c2=accuracy(1.0, 10))
    evaluation = only(settled(IN_ROUND, what)[1], RecordEvaluation).evaluation
    assert evaluation.metrics == {"accuracy": 0.75}
    assert evaluation.problem == "client 1: TrainerError: ValueError: no"


def test_who_is_lost_or_has_no_pod_holds_nothing_up():
    what = seen().aggregator(committed=0).ready(0).lost(1).starting(2)
    what = what.round(1, AggregatorRound.COMMITTED, record=record(1, 0, 1, expects_evaluation=True))
    _, decision = settled(IN_ROUND, answering(what, c0=accuracy(0.5, 10)))
    assert only(decision, RecordEvaluation).evaluation.metrics == {"accuracy": 0.5}


def test_a_contributor_that_is_being_replaced_is_waited_for_until_the_time_is_over():
    what = seen().aggregator(committed=0).ready(0, 1).starting(2)
    what = what.round(1, AggregatorRound.COMMITTED, record=record(1, 0, 1, 2, expects_evaluation=True))
    what = answering(what, c0=accuracy(0.5, 10), c1=accuracy(0.5, 10))
    assert of_type(settled(IN_ROUND, what, now=at(59))[1], RecordEvaluation) == []
    evaluation = only(settled(IN_ROUND, what, now=at(60))[1], RecordEvaluation).evaluation
    assert evaluation.metrics == {"accuracy": 0.5}
    assert evaluation.problem == "client 2 did not answer in time"


def test_answers_about_another_model_do_not_count():
    other = Base(round=1, digest=digest_of("other"))
    said = {"state": EvaluationState.DONE, "base": other, **accuracy(0.9, 1)}
    _, decision = settled(IN_ROUND, answering(committed(), c0=said, c1=said, c2=said))
    assert len(of_type(decision, Evaluate)) == 3


def test_beside_an_evaluator_the_clients_metrics_have_names_of_their_own():
    job = BY_CLIENTS.having(evaluation={"modes": ["Evaluator", "Clients"]}).in_round(1, 0, 1, 2)
    what = answering(committed().evaluator(), c0=accuracy(0.5, 1), c1=accuracy(0.5, 1), c2=accuracy(0.8, 1))
    assert of_type(settled(job, what)[1], RecordEvaluation) == []
    what = what.evaluation(1, metrics={"accuracy": 0.7}, examples=360)
    evaluation = only(settled(job, what)[1], RecordEvaluation).evaluation
    assert evaluation.metrics == pytest.approx({"accuracy": 0.7, "clients/accuracy": 0.6})
    assert evaluation.examples == 360


def test_when_no_client_can_evaluate_the_round_is_closed_without_metrics_unless_stop_needs_them():
    failed = {"state": EvaluationState.FAILED, "reason": "TrainerError", "message": "no method evaluate"}
    what = answering(committed(), c0=failed, c1=failed, c2=failed)
    evaluation = only(settled(IN_ROUND, what)[1], RecordEvaluation).evaluation
    assert evaluation.metrics == {}
    assert evaluation.problem.startswith("no client evaluated it: client 0: TrainerError: no method evaluate")
    waiting, decision = settled(BY_CLIENTS.having(stop={"target": 1}).in_round(1, 0, 1, 2), what)
    assert (waiting.status.phase, waiting.status.reason) == (Phase.RUNNING, Reason.EVALUATION_FAILED)
    assert of_type(decision, RecordEvaluation) == []


def test_a_metric_that_is_finite_nowhere_is_told_as_the_evaluator_tells_it():
    nan = {"metrics": {"accuracy": 0.1}, "examples": 5, "message": NON_FINITE_METRICS + "loss"}
    evaluation = only(settled(IN_ROUND, answering(committed(), c0=nan, c1=nan, c2=nan))[1], RecordEvaluation).evaluation
    assert evaluation.problem == NON_FINITE_METRICS + "loss"


def test_names_and_numbers_that_no_record_can_hold_are_left_out():
    wild = {"metrics": {"x" * 65: 1.0, "": 1.0, "loss": 1e300, "accuracy": 0.5}, "examples": -3}
    odd = {"metrics": {"loss": -1e300, "accuracy": 1.0}, "examples": 2**60}
    what = answering(committed(), c0=wild, c1=odd, c2=accuracy(0.75, None))
    evaluation = only(settled(IN_ROUND, what)[1], RecordEvaluation).evaluation
    assert evaluation.metrics == {"accuracy": 0.75}, "a spread of 1e300 squared is no number"
    assert [item.examples for item in evaluation.clients] == [None, None, None]


def test_the_order_of_the_answers_does_not_matter():
    items = [ClientEvaluation(client=index, examples=index + 1, metrics={"loss": 0.1 * index}) for index in range(9)]
    forwards = together(ClientAnswers(answers=tuple(items), pending=()))
    backwards = together(ClientAnswers(answers=tuple(reversed(items)), pending=()))
    assert forwards == backwards


def test_an_aggregator_of_the_release_before_is_told_nothing_that_it_does_not_know():
    plain = Evaluation(job_uid=UID, term=1, digest=chain_digest(1), metrics={"loss": 1.0})
    assert "clients" not in plain.model_dump_json(by_alias=True)
    assert "spread" not in plain.model_dump_json(by_alias=True)
