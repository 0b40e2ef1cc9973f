"""When the training diverges: one round from the best model with half the learning rate, then the job fails."""

import pytest

from fedjob_operator.api.v1alpha1 import BestModel, CommittedModel, Divergence, Metric, Phase, Recovery
from fedjob_operator.core.actions import OpenRound, StartTask
from fedjob_operator.core.divergence import base_of_round, watched
from fedjob_operator.core.tasks import training_config
from fedjob_protocol.messages import Base
from fedjob_protocol.reasons import Reason
from fedjob_protocol.round import RoundState as AggregatorRound
from fedjob_protocol.tasks import NON_FINITE_METRICS
from tests.support.builders import a_job, chain_digest, failure, of_type, only, record, seen, settled

BEST = BestModel(round=2, value=0.5, digest=chain_digest(2))
RATE = {"learningRate": 0.8}


def minimising(**status):
    job = a_job().rounds(9).evaluated().objective("loss", "Min").having(training=RATE)
    return job.committed(5).saying(best=BEST, metrics=(Metric(name="loss", value=90.0),), **status)


def spec_of(builder):
    return builder.build().spec


def losses(*values, spec=None):
    """What is known after evaluations with these losses; ``None`` is one that is not finite."""
    known = None
    for value in values:
        metrics = {} if value is None else {"loss": value}
        problem = None if value is not None else NON_FINITE_METRICS + "auc, loss"
        known = watched(spec or spec_of(minimising()), known, metrics, problem)
    return known


@pytest.mark.parametrize(
    ("values", "rounds"),
    [
        ([1.0, 11.0], 1),
        ([1.0, 11.0, 12.0, 13.0], 3),
        ([1.0, 11.0, 12.0, 9.0], 0),
        ([1.0, 10.0], 0),
        ([5.0, 1.0, 11.0], 1),
        ([1.0, None], 3),
        ([None], 3),
        ([1e-12, 1e-9, 1e-9, 1e-9], 0),
        ([-1.0, 0.5], 1),
    ],
)
def test_a_loss_over_ten_times_the_lowest_counts_and_one_that_is_not_finite_counts_three_times(values, rounds):
    assert losses(*values).rounds == rounds


def test_with_an_objective_where_more_is_better_the_metric_loss_is_watched():
    spec = spec_of(a_job().evaluated().objective("accuracy", "Max"))
    assert losses(1.0, 20.0, spec=spec).rounds == 1
    assert watched(spec, None, {"accuracy": 0.1}, None) is None


def test_without_an_objective_nothing_is_watched():
    assert losses(1.0, 20.0, None, spec=spec_of(a_job().evaluated())) is None


def test_the_next_round_begins_from_the_best_model_with_half_the_learning_rate():
    job = minimising(divergence=Divergence(lowest_loss=0.5, rounds=3))
    written, decision = settled(job, seen().aggregator(committed=5).ready(0, 1, 2).evaluator())
    model = CommittedModel(round=2, digest=chain_digest(2))
    assert written.status.divergence == Divergence(lowest_loss=0.5, recovery=Recovery(round=6, base=model))
    assert written.status.current_round.number == 6
    assert "from the model of round 2 with 0.5 times the learning rate" in written.status.message
    opened = only(decision, OpenRound)
    assert (opened.round, opened.spec.base) == (6, Base(round=2, digest=chain_digest(2)))


def test_clients_train_from_the_best_model_too():
    job = minimising(divergence=Divergence(lowest_loss=0.5, rounds=3))
    written, _ = settled(job, seen().aggregator(committed=5).ready(0, 1, 2).evaluator())
    what = seen().aggregator(committed=5).ready(0, 1, 2).evaluator().round(6)
    _, decision = settled(written, what)
    for start in of_type(decision, StartTask):
        assert start.task.base == Base(round=2, digest=chain_digest(2))
        assert start.task.model_url.endswith("/v1/models/2")
        assert start.task.config.learning_rate == pytest.approx(0.4)
    assert len(of_type(decision, StartTask)) == 3


def recovered(**fields):
    model = CommittedModel(round=2, digest=chain_digest(2))
    return Divergence(**{"lowest_loss": 0.5, "recovery": Recovery(round=4, base=model), **fields})


def test_the_learning_rate_stays_halved_and_later_rounds_begin_from_the_newest_model():
    job = minimising(divergence=recovered()).build()
    rates = [training_config(job, round_number=number, index=0).learning_rate for number in (3, 4, 5, 9)]
    assert rates == pytest.approx([0.8, 0.4, 0.4, 0.4])
    assert base_of_round(job, 6) == Base(round=5, digest=chain_digest(5))


def test_the_second_time_the_job_fails_and_the_best_model_is_kept():
    job = minimising(divergence=recovered(rounds=3))
    written, _ = settled(job, seen().aggregator(committed=5).ready(0, 1, 2).evaluator())
    assert (written.status.phase, written.status.reason) == (Phase.FAILED, Reason.DIVERGED)
    assert "loss was over 10 times the lowest (0.5) for 3 rounds, 90 now" in written.status.message
    assert "the best model is that of round 2" in written.status.message
    assert written.status.best == BEST


def test_where_there_is_no_best_model_yet_the_job_fails():
    job = minimising(divergence=Divergence(rounds=3)).saying(best=None, metrics=())
    written, _ = settled(job, seen().aggregator(committed=5).ready(0, 1, 2).evaluator())
    assert (written.status.phase, written.status.reason) == (Phase.FAILED, Reason.DIVERGED)
    assert written.status.message == "loss is not finite"


def test_a_job_whose_rounds_are_over_is_complete_all_the_same():
    job = minimising(divergence=Divergence(lowest_loss=0.5, rounds=3)).rounds(5)
    written, _ = settled(job, seen().aggregator(committed=5).ready(0, 1, 2).evaluator())
    assert written.status.phase is Phase.COMPLETE


def exploding(**status):
    """A round all of whose updates are not finite, in its last attempt."""
    lost = [failure(index, Reason.NON_FINITE_UPDATE, "NaN") for index in range(3)]
    ready = seen().aggregator(committed=5).ready(0, 1, 2).evaluator()
    what = ready.round(6, AggregatorRound.ABANDONED, attempt=3, failed=lost)
    job = minimising(**status).in_round(6, 0, 1, 2, attempt=3).saying(failed_attempts=2)
    return job, what


def test_updates_that_are_not_finite_are_a_divergence_of_the_same_round():
    job, what = exploding(divergence=Divergence(lowest_loss=0.5))
    written, decision = settled(job, what)
    current = written.status.current_round
    assert (current.number, current.attempt) == (6, 4)
    assert written.status.divergence.recovery.base.round == 2
    assert only(decision, OpenRound).spec.base == Base(round=2, digest=chain_digest(2))


def test_updates_that_are_not_finite_even_then_fail_the_job():
    job, what = exploding(divergence=recovered())
    written, _ = settled(job, what)
    assert (written.status.phase, written.status.reason) == (Phase.FAILED, Reason.DIVERGED)


def test_before_any_model_is_the_best_they_are_tried_again_from_the_newest():
    job, what = exploding()
    written, _ = settled(job.saying(best=None), what)
    assert written.status.divergence.recovery.base.round == 5


def test_what_is_adopted_is_watched():
    job = minimising(divergence=Divergence(lowest_loss=0.5, rounds=1)).in_round(6, 0, 1, 2)
    evaluated = record(6, 0, 1, 2, expects_evaluation=True, metrics={"loss": 80.0})
    ready = seen().aggregator(committed=5).ready(0, 1, 2).evaluator()
    written, _ = settled(job, ready.round(6, AggregatorRound.EVALUATED, record=evaluated))
    assert written.status.divergence == Divergence(lowest_loss=0.5, rounds=2)
