"""The best model, and when a job is done."""

import pytest

from fedjob_operator.api.v1alpha1 import BestModel, ConditionType, Metric, Phase
from fedjob_operator.core.observed import PodPhase, PodRole
from fedjob_operator.core.stopping import improves, restarts_patience, usable_metrics, verdict
from fedjob_protocol.reasons import Reason
from fedjob_protocol.round import RoundState as AggregatorRound
from tests.support.builders import a_job, at, chain_digest, pod, record, seen, settled


def job_at(committed, *, best=None, value=None, mode="Max", rounds=10, stop=None):
    job = a_job().rounds(rounds).evaluated().objective("accuracy", mode).committed(committed)
    job = job.having(stop=stop) if stop else job
    if best is not None:
        model = BestModel(round=best[0], value=best[1], digest=chain_digest(best[0]))
        job = job.saying(best=model, last_improvement=model)
    if value is not None:
        job = job.saying(metrics=(Metric(name="accuracy", value=value),))
    return job.build()


@pytest.mark.parametrize(
    ("mode", "best", "value", "min_delta", "better"),
    [
        pytest.param("Max", None, 0.1, 0, True, id="the first is the best"),
        pytest.param("Max", 0.5, 0.6, 0, True, id="more"),
        pytest.param("Max", 0.5, 0.5, 0, False, id="the same"),
        pytest.param("Max", 0.5, 0.4, 0, False, id="less"),
        pytest.param("Min", 0.5, 0.4, 0, True, id="less, where less is better"),
        pytest.param("Min", 0.5, 0.6, 0, False, id="more, where less is better"),
        pytest.param("Max", 0.5, 0.55, 0.1, False, id="not enough more"),
        pytest.param("Max", 0.5, 0.65, 0.1, True, id="enough more"),
        pytest.param("Min", 0.5, 0.45, 0.1, False, id="not enough less"),
    ],
)
def test_patience_begins_again_with_a_model_that_is_better_by_more_than_min_delta(mode, best, value, min_delta, better):
    job = job_at(3, best=best and (2, best), mode=mode, stop={"minDelta": min_delta, "patienceRounds": 5})
    assert restarts_patience(job.spec, job.status, {"accuracy": value}) == better


def test_the_best_model_is_the_best_however_little_better_it_is():
    job = job_at(3, best=(2, 0.5), stop={"minDelta": 0.1, "patienceRounds": 5})
    assert improves(job.spec, job.status, {"accuracy": 0.51})
    assert not improves(job.spec, job.status, {"accuracy": 0.5})


def test_without_an_objective_no_model_is_the_best():
    job = a_job().committed(1).build()
    assert not improves(job.spec, job.status, {"accuracy": 0.9})


def test_a_model_without_the_metric_is_not_the_best():
    job = job_at(1)
    assert not improves(job.spec, job.status, {"loss": 0.1})


@pytest.mark.parametrize(
    ("job", "reason"),
    [
        pytest.param(job_at(9), None, id="rounds are left"),
        pytest.param(job_at(10), Reason.ROUNDS_COMPLETED, id="all rounds"),
        pytest.param(job_at(4, best=(4, 0.97), value=0.97, stop={"target": 0.97}), Reason.TARGET_REACHED, id="target"),
        pytest.param(job_at(4, best=(4, 0.96), value=0.96, stop={"target": 0.97}), None, id="below the target"),
        pytest.param(
            job_at(4, best=(4, 0.1), value=0.1, mode="Min", stop={"target": 0.2}), Reason.TARGET_REACHED, id="less"
        ),
        pytest.param(job_at(4, best=(2, 0.5), stop={"patienceRounds": 3}), None, id="patient"),
        pytest.param(job_at(5, best=(2, 0.5), stop={"patienceRounds": 3}), Reason.NO_IMPROVEMENT, id="out of patience"),
        pytest.param(job_at(5, stop={"patienceRounds": 3}), None, id="nothing evaluated yet"),
        pytest.param(job_at(10, best=(10, 0.99), value=0.99, stop={"target": 0.9}), Reason.TARGET_REACHED, id="both"),
    ],
)
def test_a_job_is_done_when_its_rounds_are_or_when_it_is_to_stop(job, reason):
    done = verdict(job.spec, job.status)
    assert (done[0] if done else None) == reason


def test_the_last_round_completes_the_job():
    what = seen().aggregator(committed=1).ready(0, 1, 2).round(2, AggregatorRound.EVALUATED, reported=[0, 1, 2])
    job, decision = settled(a_job().in_round(2, 0, 1, 2), what, now=at(50))
    status = job.status
    assert decision.finished
    assert (status.phase, status.reason, status.message) == (
        Phase.COMPLETE,
        Reason.ROUNDS_COMPLETED,
        "all 2 rounds are committed",
    )
    assert (status.completion_time, status.current_round) == (at(50), None)
    assert status.holds(ConditionType.COMPLETE)
    assert not status.holds(ConditionType.PROGRESSING)
    assert status.summary.rounds == "2/2"


def test_reaching_the_target_stops_in_the_same_write_as_the_round():
    done = record(1, 0, 1, 2, expects_evaluation=True, metrics={"accuracy": 0.98})
    what = seen().aggregator(committed=0).ready(0, 1, 2).evaluator()
    what = what.round(1, AggregatorRound.EVALUATED, record=done)
    job = a_job().evaluated().objective().having(stop={"target": 0.97}).in_round(1, 0, 1, 2)
    written, decision = settled(job, what)
    assert decision.finished
    assert written.status.reason == Reason.TARGET_REACHED
    assert written.status.message == "accuracy 0.98 reached the target 0.97"
    assert (written.status.rounds.committed, written.status.best.round) == (1, 1)


def test_a_finished_job_stays_as_it_is():
    what = seen().aggregator(committed=1).ready(0, 1, 2).round(2, AggregatorRound.EVALUATED, reported=[0, 1, 2])
    job, _ = settled(a_job().in_round(2, 0, 1, 2), what)
    for other in (seen(), seen().aggregator(committed=-1, boot="boot-b"), what):
        assert settled(job, other, now=at(10**6))[0] == job


def test_a_job_that_runs_too_long_fails():
    job = a_job().having(activeDeadlineSeconds=100).in_round(1, 0, 1, 2)
    what = seen().aggregator(committed=0).ready(0, 1, 2).round(1)
    written, decision = settled(job, what, now=at(99))
    assert decision.wake_at == at(100)
    written, decision = settled(job, what, now=at(100))
    assert decision.finished
    assert (written.status.phase, written.status.reason) == (Phase.FAILED, Reason.ACTIVE_DEADLINE_EXCEEDED)
    assert written.status.message == "the job ran longer than 100 s"


def test_the_time_of_a_job_runs_from_its_first_round():
    job = a_job().having(activeDeadlineSeconds=100).accepted()
    written, _ = settled(job, seen(), now=at(10_000))
    assert written.status.phase is Phase.STARTING


def test_the_objective_is_the_last_metric_to_be_left_out():
    spec = a_job().evaluated().objective("zeal").build().spec
    kept = usable_metrics(spec, {f"m{index}": 1.0 for index in range(64)} | {"zeal": 2.0})
    assert len(kept) == 64
    assert kept["zeal"] == 2.0


def test_a_job_that_ends_says_of_its_programs_what_was_seen_last():
    # Found by the fault harness: killed after the last commit, it was Complete with "the aggregator is starting".
    job = a_job().rounds(2).in_round(2, 0, 1, 2)
    resumed, _ = settled(job, seen().pod(pod(PodRole.AGGREGATOR, phase=PodPhase.STARTING)))
    assert not resumed.status.holds(ConditionType.AGGREGATOR_READY)
    what = seen().aggregator(committed=1).ready(0, 1, 2).round(2, AggregatorRound.EVALUATED, reported=(0, 1, 2))
    ended, _ = settled(resumed, what)
    assert ended.status.phase is Phase.COMPLETE
    assert ended.status.holds(ConditionType.AGGREGATOR_READY)
    assert ended.status.clients.ready == 3
