"""What the loop remembers of the answers that it got."""

import pytest

from fedjob_operator.core.actions import (
    Evaluate,
    FetchInfo,
    OpenRound,
    ReadState,
    RecordEvaluation,
    ReportFailure,
    StartTask,
    WatchRound,
)
from fedjob_operator.core.observed import PodPhase, PodRole
from fedjob_operator.observations import Observations
from fedjob_protocol.errors import Word
from fedjob_protocol.round import RoundState as AggregatorRound
from fedjob_protocol.tasks import EvaluationState, TaskState, TaskView
from tests.support.builders import BOOT, a_job, at, chain_digest, info, of_type, pod, record, seen, settled

AGGREGATOR, CLIENT, EVALUATOR = pod(PodRole.AGGREGATOR), pod(PodRole.CLIENT, 0), pod(PodRole.EVALUATOR)
PODS = (AGGREGATOR, CLIENT, EVALUATOR)
STATE = seen().aggregator(committed=0).observed.state
READ = ReadState(url="http://aggregator-0-0", incarnation="aggregator-0-0")
WATCH = WatchRound(url="http://aggregator-0-0", incarnation="aggregator-0-0", round=1, attempt=1)


ROUND = seen().aggregator(committed=0).ready(0, 1, 2)
IN_ROUND = a_job().in_round(1, 0, 1, 2)


def asked(kind, *, job=IN_ROUND, what=ROUND):
    """A call as a decision asks for it."""
    return of_type(settled(job, what)[1], kind)[0]


OPEN = asked(OpenRound)
TASK = asked(StartTask, what=ROUND.round(1))
COMMITTED = ROUND.evaluator().round(1, AggregatorRound.COMMITTED, reported=[0, 1, 2])
EVALUATED = a_job().evaluated().in_round(1, 0, 1, 2)
EVALUATE = asked(Evaluate, job=EVALUATED, what=COMMITTED)


def knowing_state():
    observations = Observations()
    observations.look(PODS)
    observations.learn(READ, STATE)
    return observations


def view(number=1, state=AggregatorRound.OPEN, **fields):
    return seen().round(number, state, **fields).observed.round


def test_answers_come_back_with_the_pods_of_now():
    observations = knowing_state()
    observations.learn(FetchInfo(url="", incarnation="client-0-0", role=PodRole.CLIENT, index=0), info(0))
    observations.learn(WATCH, view())
    looked = observations.look((AGGREGATOR, CLIENT))
    assert looked.pods == (AGGREGATOR, CLIENT)
    assert looked.state == STATE
    assert looked.round == view()
    assert looked.infos == {"client-0-0": info(0)}


def test_another_aggregator_makes_what_the_one_before_said_worthless():
    observations = knowing_state()
    observations.learn(WATCH, view())
    looked = observations.look((pod(PodRole.AGGREGATOR, ordinal=1), CLIENT))
    assert (looked.state, looked.round) == (None, None)
    observations.learn(WATCH, view())
    observations.learn(READ, STATE)
    looked = observations.look((pod(PodRole.AGGREGATOR, ordinal=1), CLIENT))
    assert (looked.state, looked.round) == (None, None)


def test_the_aggregators_newest_pod_counts():
    observations = knowing_state()
    old = pod(PodRole.AGGREGATOR, phase=PodPhase.EXITED)
    assert observations.look((pod(PodRole.AGGREGATOR, ordinal=1), old)).state is None


def test_a_client_that_is_gone_is_forgotten():
    observations = Observations()
    observations.look(PODS)
    observations.learn(FetchInfo(url="", incarnation="client-0-0", role=PodRole.CLIENT, index=0), info(0))
    assert observations.look((AGGREGATOR, pod(PodRole.CLIENT, 0, ordinal=1))).infos == {}


def test_a_state_brings_the_round_that_it_knows():
    observations = Observations()
    observations.look(PODS)
    current = view(reported=[1])
    observations.learn(READ, STATE.model_copy(update={"current": current}))
    assert observations.look(PODS).round == current


def test_the_state_follows_what_is_committed_since_it_was_read():
    """It is read once per boot; held against the status, an old one would look like lost checkpoints."""
    observations = knowing_state()
    observations.learn(WATCH, view(1, AggregatorRound.COMMITTED, record=record(1, 0)))
    observations.learn(WATCH, view(2))
    looked = observations.look(PODS)
    assert (looked.state.committed.round, looked.state.committed.digest) == (1, chain_digest(1))
    assert looked.round.round == 2


def test_a_late_view_takes_nothing_back():
    observations = knowing_state()
    observations.learn(WATCH, view(2, AggregatorRound.COMMITTED, record=record(2, 0)))
    observations.learn(WATCH, view(1, AggregatorRound.COMMITTED, record=record(1, 0)))
    looked = observations.look(PODS)
    assert (looked.round.round, looked.state.committed.round) == (2, 2)
    observations.learn(WATCH, view(3, attempt=2))
    observations.learn(WATCH, view(3, attempt=1))
    assert observations.look(PODS).round.attempt == 2


def test_a_view_of_another_boot_makes_the_state_be_read_again():
    observations = knowing_state()
    observations.learn(WATCH, view(boot_id="boot-b"))
    looked = observations.look(PODS)
    assert (looked.state, looked.round) == (None, None)


@pytest.mark.parametrize(
    ("kind", "word", "is_forgotten"),
    [
        (WatchRound, Word.NOT_FOUND, True),
        (WatchRound, Word.WRONG_ROUND, True),
        (OpenRound, Word.ROUND_CONFLICT, True),
        (OpenRound, Word.STALE_TERM, True),
        (OpenRound, None, False),
        (OpenRound, Word.INTERNAL, False),
        (StartTask, Word.WRONG_ROUND, False),
        (StartTask, Word.STALE_TERM, True),
    ],
)
def test_a_refusal_that_shows_that_we_know_too_little_makes_the_state_be_read_again(kind, word, is_forgotten):
    refused = {WatchRound: WATCH, StartTask: TASK}.get(kind, OPEN)
    observations = knowing_state()
    observations.fail(refused, word=word, message="no", now=at(0))
    assert (observations.look(PODS).state is None) == is_forgotten


def test_an_accepted_task_is_remembered_with_all_that_it_counts_for():
    observations = knowing_state()
    observations.learn(TASK, TaskView(round=1, state=TaskState.FETCHING, term=1, attempt=1))
    ack = observations.look(PODS).acks[0]
    assert (ack.incarnation, ack.round, ack.term, ack.attempt, ack.boot_id) == ("client-0-0", 1, 1, 1, BOOT)


def test_failures_in_a_row_are_counted_from_the_first():
    observations = Observations()
    for seconds in (1, 2, 3):
        observations.fail(WATCH, word=None, message=f"try {seconds}", now=at(seconds))
    failure = observations.look(PODS).failures[WATCH.key]
    assert (failure.since, failure.message) == (at(1), "try 3")


def test_success_ends_a_row_of_failures():
    observations = knowing_state()
    observations.fail(WATCH, word=None, message="no", now=at(1))
    observations.learn(WATCH, view())
    assert observations.look(PODS).failures == {}


def test_whoever_answers_is_not_silent_any_more():
    """A leader that had been frozen was deposed again and again, for a call that had no answer long ago."""
    observations = knowing_state()
    observations.fail(WATCH, word=None, message="no answer", now=at(0))
    observations.fail(
        FetchInfo(url="", incarnation="client-0-0", role=PodRole.CLIENT, index=0), word=None, message="no", now=at(0)
    )
    observations.learn(READ, STATE)
    assert [key.split("/")[0] for key in observations.look(PODS).failures] == ["info"]


def test_failures_of_rounds_that_are_over_are_forgotten_when_there_are_many():
    observations = knowing_state()
    for number in range(200):
        old = WatchRound(url="", incarnation="aggregator-0-0", round=number, attempt=1)
        observations.fail(old, word="internal", message="no", now=at(0))
    observations.learn(WATCH, view(7))
    assert {key.split("/")[2] for key in observations.look(PODS).failures} == {"7"}


@pytest.mark.parametrize(
    ("state", "is_kept"),
    [(EvaluationState.DONE, True), (EvaluationState.RUNNING, True), (EvaluationState.FAILED, False)],
)
def test_a_failed_evaluation_is_forgotten_with_its_evaluator(state, is_kept):
    """Its successor may do better; what is done is done."""
    observations = knowing_state()
    answer = seen().evaluation(1, state, message="no").observed.evaluation
    observations.learn(EVALUATE, answer)
    assert observations.look(PODS).evaluation == answer
    after = observations.look((AGGREGATOR, CLIENT, pod(PodRole.EVALUATOR, ordinal=1)))
    assert (after.evaluation is not None) == is_kept


def test_nothing_is_learned_from_an_answer_that_does_not_fit_the_call():
    observations = knowing_state()
    before = observations.look(PODS)
    observations.learn(READ, info(0))
    observations.learn(WATCH, None)
    assert observations.look(PODS) == before


def test_actions_are_named_by_what_they_are_about():
    """Two actions with the same name are the same action; another term, attempt or run of a program is another one."""
    lost = seen().aggregator(committed=0).ready(0, 1).lost(2).round(1)
    report = asked(ReportFailure, job=a_job().having(minClients=2).in_round(1, 0, 1, 2), what=lost)
    recorded = asked(RecordEvaluation, job=EVALUATED, what=COMMITTED.evaluation(1))
    assert READ.key == "state/aggregator-0-0"
    assert WATCH.key == "watch/aggregator-0-0/1/1"
    assert TASK.key == f"task/0/client-0-0/1/1/1/{BOOT}"
    assert OPEN.key == "open/aggregator-0-0/1/1/1"
    assert report.key == "failure/aggregator-0-0/2/1/1/1"
    assert EVALUATE.key == f"evaluate/evaluator-0-0/1/{chain_digest(1)}/http://aggregator-0-0/v1/models/1"
    assert recorded.key == "record/aggregator-0-0/1/1"
