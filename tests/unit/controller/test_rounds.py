"""The round in progress: intended, provisioned, opened, collected, adopted."""

from dataclasses import replace

import pytest

from fedjob_operator.api.v1alpha1 import ConditionType, Phase, RoundState, dump
from fedjob_operator.core.actions import OpenRound, ReadState, ReportFailure, StartTask, WatchRound
from fedjob_operator.core.observed import PodRole
from fedjob_operator.core.selection import init_seed, select, training_seed
from fedjob_protocol.errors import Word
from fedjob_protocol.messages import Judgement, StorageProblem, Weighting
from fedjob_protocol.reasons import Reason
from fedjob_protocol.round import RoundState as AggregatorRound
from tests.support.builders import (
    BOOT,
    a_job,
    at,
    chain_digest,
    decided,
    failure,
    of_type,
    only,
    pod,
    record,
    seen,
    settled,
)

EVERYBODY = seen().aggregator(committed=0).ready(0, 1, 2)


# Intent


def test_the_intent_is_written_before_any_call():
    """The decision that makes the intent asks for no call; the one that finds it in the status does."""
    first = decided(a_job().committed(0), EVERYBODY)
    assert first.status.current_round.number == 1
    assert of_type(first, OpenRound) == []
    _, second = settled(a_job().committed(0), EVERYBODY)
    assert only(second, OpenRound).round == 1


def test_the_intent_says_everything_that_a_successor_needs():
    job, _ = settled(a_job().clients(5).policy(clientsPerRound=2).committed(0), EVERYBODY.ready(3, 4), now=at(9))
    current = job.status.current_round
    assert (current.number, current.attempt, current.redraw, current.boot_id) == (1, 1, 0, BOOT)
    assert current.selected == select(seed=7, round_number=1, redraw=0, candidates=range(5), count=2)
    assert (current.state, current.started_at, current.deadline) == (RoundState.OPEN, at(9), at(3609))


def test_one_write_records_a_round_and_intends_the_next():
    job = a_job().in_round(1, 0, 1, 2)
    decision = decided(job, EVERYBODY.round(1, AggregatorRound.EVALUATED, reported=[0, 1, 2]))
    assert decision.status.rounds.committed == 1
    assert decision.status.current_round.number == 2
    assert of_type(decision, OpenRound) == []


def test_more_are_selected_than_needed_where_the_job_says_so():
    job, decision = settled(
        a_job().clients(10).policy(clientsPerRound=4, overSelect="50%").committed(0),
        seen().aggregator(committed=0).ready(*range(10)),
    )
    assert len(job.status.current_round.selected) == 6
    spec = only(decision, OpenRound).spec
    assert (len(spec.participants), spec.clients_per_round, spec.min_reports) == (6, 4, 4)


def test_lost_clients_are_not_selected():
    job, _ = settled(
        a_job().clients(5).policy(clientsPerRound=2).committed(0),
        seen().aggregator(committed=0).ready(0, 2, 3, 4).lost(1),
    )
    assert job.status.current_round.selected == select(
        seed=7, round_number=1, redraw=0, candidates=[0, 2, 3, 4], count=2
    )


def test_clients_that_are_only_away_are_selected_all_the_same():
    """Otherwise the model would depend on timing."""
    job = a_job().clients(5).policy(clientsPerRound=2).committed(0)
    calm = select(seed=7, round_number=1, redraw=0, candidates=range(5), count=2)
    away = calm[0]
    others = [index for index in range(5) if index != away]
    written, _ = settled(job, seen().aggregator(committed=0).ready(*others).starting(away))
    assert written.status.current_round.selected == calm
    assert written.status.current_round.state is RoundState.PROVISIONING


def test_between_rounds_training_waits_for_min_clients():
    job, decision = settled(a_job().committed(0), seen().aggregator(committed=0).ready(0, 1).starting(2))
    assert (job.status.phase, job.status.reason) == (Phase.WAITING_FOR_CLIENTS, Reason.WAITING_FOR_CLIENTS)
    assert "2 of 3 needed clients are ready; client 2: starting" in job.status.message
    assert of_type(decision, OpenRound) == []


# Provisioning


def test_participants_are_made_ready_before_the_deadline_runs():
    job = a_job().in_round(1, 0, 1, 2, state=RoundState.PROVISIONING, deadline=None)
    waiting = seen().aggregator(committed=0).ready(0, 1).starting(2)
    written, decision = settled(job, waiting, now=at(100))
    assert written.status.current_round.state is RoundState.PROVISIONING
    assert of_type(decision, OpenRound) == []
    assert decision.wake_at == at(900)
    written, decision = settled(job, EVERYBODY, now=at(100))
    assert (written.status.current_round.state, written.status.current_round.deadline) == (RoundState.OPEN, at(3700))
    assert only(decision, OpenRound)


def test_after_the_time_for_provisioning_a_round_opens_with_who_is_there():
    job = a_job().policy(minReports=2).in_round(1, 0, 1, 2, state=RoundState.PROVISIONING, deadline=None)
    waiting = seen().aggregator(committed=0).ready(0, 1).starting(2)
    written, decision = settled(job, waiting, now=at(900))
    assert written.status.current_round.state is RoundState.OPEN
    spec = only(decision, OpenRound).spec
    assert [participant.client for participant in spec.participants] == [0, 1, 2]


def test_after_the_time_for_provisioning_too_few_are_drawn_anew():
    job = a_job().in_round(1, 0, 1, 2, state=RoundState.PROVISIONING, deadline=None)
    waiting = seen().aggregator(committed=0).ready(0, 1).starting(2)
    written, decision = settled(job, waiting, now=at(900))
    current = written.status.current_round
    assert (current.attempt, current.redraw, current.started_at) == (2, 1, at(900))
    assert written.status.failed_attempts == 1
    assert decision.wake_at == at(1800)


def test_lost_participants_are_not_waited_for():
    job = a_job().policy(minReports=2).in_round(1, 0, 1, 2, state=RoundState.PROVISIONING, deadline=None)
    written, decision = settled(job, seen().aggregator(committed=0).ready(0, 1).lost(2), now=at(1))
    assert written.status.current_round.state is RoundState.OPEN
    assert only(decision, OpenRound)


# Opening


def test_a_round_is_opened_as_the_spec_says():
    job = a_job().evaluated().policy(deadlineSeconds=60, minReports=2).having(strategy={"weighting": "Uniform"})
    _, decision = settled(job.in_round(1, 0, 1, 2, attempt=3, redraw=1), EVERYBODY)
    action = only(decision, OpenRound)
    spec = action.spec
    assert (action.url, action.round) == ("http://aggregator-0-0", 1)
    assert (spec.term, spec.attempt, spec.redraw) == (1, 3, 1)
    assert (spec.base.round, spec.base.digest) == (0, chain_digest(0))
    assert (spec.clients_per_round, spec.min_reports, spec.deadline_seconds) == (3, 2, 60)
    assert (spec.weighting, spec.expects_evaluation, spec.strategy.name) == (Weighting.UNIFORM, True, "FedAvg")
    assert [participant.name for participant in spec.participants] == ["clients-0", "clients-1", "clients-2"]


@pytest.mark.parametrize(
    ("announced", "limit"), [(100, 100), (None, None), (0, None), (-5, None), (2**53, 2**53), (2**53 + 1, None)]
)
def test_participants_may_claim_as_many_examples_as_they_announced(announced, limit):
    """Whatever a client announces, a round can be opened."""
    what = EVERYBODY.ready(1, examples=announced)
    _, decision = settled(a_job().in_round(1, 0, 1, 2), what)
    assert only(decision, OpenRound).spec.participants[1].max_examples == limit


def test_the_aggregator_is_told_what_a_client_of_a_divided_data_set_has():
    told = EVERYBODY.ready(1)
    infos = {
        key: each.model_copy(update={"labels": (4, 0, 6)}) if each.index == 1 else each
        for key, each in told.observed.infos.items()
    }
    what = replace(told, observed=replace(told.observed, infos=infos))
    _, decision = settled(a_job().in_round(1, 0, 1, 2), what)
    assert [each.labels for each in only(decision, OpenRound).spec.participants] == [None, (4, 0, 6), None]


def test_labels_are_left_out_where_they_would_make_the_request_too_large(monkeypatch):
    told = EVERYBODY.ready(1)
    infos = {key: each.model_copy(update={"labels": (4, 0, 6)}) for key, each in told.observed.infos.items()}
    what = replace(told, observed=replace(told.observed, infos=infos))
    for most, expected in ((9, (4, 0, 6)), (8, None)):
        monkeypatch.setattr("fedjob_operator.core.tasks.MAX_LABEL_COUNTS", most)
        _, decision = settled(a_job().in_round(1, 0, 1, 2), what)
        assert [each.labels for each in only(decision, OpenRound).spec.participants] == [expected] * 3


@pytest.mark.parametrize("word", [Word.ROUND_CONFLICT, Word.STALE_ATTEMPT])
def test_an_attempt_that_the_aggregator_has_otherwise_is_tried_again_with_a_higher_number(word):
    job = a_job().in_round(1, 0, 1, 2)
    refused = only(settled(job, EVERYBODY)[1], OpenRound)
    written, decision = settled(job, EVERYBODY.failing(refused, word))
    current = written.status.current_round
    assert (current.attempt, current.redraw, current.selected) == (2, 0, (0, 1, 2))
    assert only(decision, OpenRound).spec.attempt == 2


@pytest.mark.parametrize("word", [None, Word.INTERNAL, Word.UNAVAILABLE, Word.STALE_TERM])
def test_an_aggregator_that_does_not_answer_is_asked_again(word):
    job = a_job().in_round(1, 0, 1, 2)
    refused = only(settled(job, EVERYBODY)[1], OpenRound)
    written, decision = settled(job, EVERYBODY.failing(refused, word))
    assert written.status.current_round.attempt == 1
    assert only(decision, OpenRound) == refused


# Collecting


def test_every_participant_gets_its_task_and_the_round_is_watched():
    _, decision = settled(a_job().clients(5).in_round(1, 1, 3), EVERYBODY.ready(3, 4).round(1))
    assert [action.client for action in of_type(decision, StartTask)] == [1, 3]
    watch = only(decision, WatchRound)
    assert (watch.round, watch.attempt) == (1, 1)


def test_a_task_says_what_to_train_with_which_seed_and_where_to_send_it():
    training = {"epochs": 2, "batchSize": 8, "learningRate": 0.5, "optimizer": {"parameters": {"momentum": 0.9}}}
    job = a_job().having(training=training).in_round(1, 0, 1, 2, attempt=2, deadline=at(60))
    _, decision = settled(job, EVERYBODY.round(1, attempt=2, seconds_left=50), now=at(10))
    action = only(decision, StartTask, lambda action: action.client == 2)
    task, goal = action.task, action.task.destination
    assert action.url == "http://client-2-0"
    assert (task.config.epochs, task.config.batch_size, task.config.learning_rate) == (2, 8, 0.5)
    assert task.config.optimizer.parameters == {"momentum": 0.9}
    assert task.config.seed == training_seed(seed=7, round_number=1, index=2)
    assert (task.base.round, task.base.digest) == (0, chain_digest(0))
    assert task.model_url == "http://aggregator-0-0/v1/models/0"
    assert (goal.term, goal.attempt, goal.boot_id, goal.deadline_seconds) == (1, 2, BOOT, 50)  # as the aggregator says
    assert goal.upload_url == "http://aggregator-0-0/v1/rounds/1/updates/2"
    assert goal.failure_url == "http://aggregator-0-0/v1/rounds/1/failures/2"


def test_the_initial_model_is_made_from_the_seed_of_the_job():
    _, decision = settled(a_job().in_round(0, 0), seen().aggregator().ready(0, 1, 2).round(0))
    assert only(decision, StartTask).task.seed == init_seed(seed=7)


def test_who_accepted_its_task_is_left_alone():
    job, what = a_job().in_round(1, 0, 1, 2), EVERYBODY.round(1)
    task = only(settled(job, what)[1], StartTask, lambda action: action.client == 1)
    _, decision = settled(job, what.acknowledged(task))
    assert [action.client for action in of_type(decision, StartTask)] == [0, 2]


def test_who_was_restarted_gets_its_task_again_in_the_same_attempt():
    job, what = a_job().in_round(1, 0, 1, 2), EVERYBODY.round(1)
    task = only(settled(job, what)[1], StartTask, lambda action: action.client == 1)
    away = what.acknowledged(task).exited(index=1)
    assert [action.client for action in of_type(settled(job, away)[1], StartTask)] == [0, 2]
    written, decision = settled(job, away.ready(1, ordinal=1))
    assert [action.client for action in of_type(decision, StartTask)] == [0, 1, 2]
    assert written.status.current_round.attempt == 1


def test_who_reported_or_failed_needs_no_task():
    what = EVERYBODY.round(1, reported=[0], failed=[failure(2)])
    written, decision = settled(a_job().in_round(1, 0, 1, 2), what)
    assert [action.client for action in of_type(decision, StartTask)] == [1]
    assert written.status.current_round.reported == 1


@pytest.mark.parametrize(
    ("reason", "reported"),
    [
        pytest.param(Reason.CRASHED, Reason.CLIENT_LOST, id="a crash says no more than that it is lost"),
        pytest.param(Reason.DATA_ERROR, Reason.DATA_ERROR, id="its own reason says more"),
    ],
)
def test_a_lost_client_is_reported_in_its_place(reason, reported):
    what = seen().aggregator(committed=0).ready(0, 1).lost(2, reason=reason).round(1)
    job = a_job().having(minClients=2).in_round(1, 0, 1, 2, attempt=2)
    _, decision = settled(job, what.round(1, attempt=2))
    action = only(decision, ReportFailure)
    assert (action.client, action.round) == (2, 1)
    assert (action.report.reason, action.report.attempt, action.report.boot_id) == (reported, 2, BOOT)
    assert action.report.message == "exit code 1"


def test_a_client_that_refuses_its_task_for_good_is_reported():
    job, what = a_job().in_round(1, 0, 1, 2), EVERYBODY.round(1)
    task = only(settled(job, what)[1], StartTask, lambda action: action.client == 1)
    _, decision = settled(job, what.failing(task, Word.UNSUPPORTED_PROTOCOL, "the peer speaks protocol 9"))
    report = only(decision, ReportFailure).report
    assert (report.reason, report.message) == (Reason.PROTOCOL_MISMATCH, "the peer speaks protocol 9")
    assert [action.client for action in of_type(decision, StartTask)] == [0, 2]


@pytest.mark.parametrize("word", [None, Word.INTERNAL, Word.STALE_TERM, Word.STALE_ATTEMPT])
def test_a_client_that_does_not_take_its_task_now_is_asked_again(word):
    job, what = a_job().in_round(1, 0, 1, 2), EVERYBODY.round(1)
    task = only(settled(job, what)[1], StartTask, lambda action: action.client == 1)
    _, decision = settled(job, what.failing(task, word))
    assert task in decision.actions


def test_a_round_that_is_being_committed_is_watched():
    what = EVERYBODY.round(1, AggregatorRound.COMMITTING, reported=[0, 1])
    _, decision = settled(a_job().in_round(1, 0, 1, 2), what)
    assert decision.actions == (only(decision, WatchRound),)


def test_a_checkpoint_that_cannot_be_written_is_shown():
    storage = StorageProblem(message="No space left on device", failures=3)
    what = EVERYBODY.round(1, AggregatorRound.COMMITTING, reported=[0, 1, 2], storage=storage)
    job, decision = settled(a_job().in_round(1, 0, 1, 2), what)
    progressing = job.status.condition(ConditionType.PROGRESSING)
    assert (progressing.status, progressing.reason) == ("False", Reason.CHECKPOINT_FAILED)
    assert "No space left on device" in job.status.message
    assert only(decision, WatchRound)
    job, _ = settled(job, EVERYBODY.round(1, AggregatorRound.COMMITTING, reported=[0, 1, 2]))
    assert job.status.reason == Reason.ROUND_IN_PROGRESS


# Somebody died


def test_a_new_operator_hands_an_open_round_its_term():
    job = a_job().in_round(1, 0, 1, 2).saying(term=2)
    written, decision = settled(job, EVERYBODY.round(1, term=1))
    action = only(decision, OpenRound)
    assert (action.spec.term, action.spec.attempt) == (2, 1)
    assert written.status.current_round.attempt == 1
    assert of_type(decision, StartTask) == []
    _, decision = settled(job, EVERYBODY.round(1, term=2, reported=[1]))
    assert [action.client for action in of_type(decision, StartTask)] == [0, 2]


def test_when_the_aggregator_was_restarted_the_same_participants_try_again():
    job = a_job().clients(5).policy(clientsPerRound=2).in_round(1, 1, 3, reported=1)
    what = seen().aggregator(committed=0, boot="boot-b").ready(*range(5))
    first = decided(job, what, now=at(7))
    current = first.status.current_round
    assert (current.attempt, current.redraw, current.selected, current.reported) == (2, 0, (1, 3), 0)
    assert (current.boot_id, current.started_at) == ("boot-b", at(7))
    assert first.actions == ()
    _, decision = settled(job, what)
    assert only(decision, OpenRound).spec.attempt == 2


def test_a_view_of_another_boot_counts_for_nothing():
    what = seen().aggregator(committed=0, boot="boot-b").ready(0, 1, 2).round(1, boot_id=BOOT, reported=[0, 1, 2])
    _, decision = settled(a_job().in_round(1, 0, 1, 2, boot_id="boot-b"), what)
    assert only(decision, OpenRound)
    assert of_type(decision, StartTask) == []


def test_a_higher_attempt_at_the_aggregator_is_outbid():
    written, decision = settled(a_job().in_round(1, 0, 1, 2, attempt=2), EVERYBODY.round(1, attempt=5))
    assert written.status.current_round.attempt == 6
    assert only(decision, OpenRound).spec.attempt == 6


def test_a_cancelled_attempt_is_tried_again_with_the_same_participants():
    written, _ = settled(a_job().in_round(1, 0, 1, 2), EVERYBODY.round(1, AggregatorRound.CANCELLED))
    current = written.status.current_round
    assert (current.attempt, current.redraw, current.selected) == (2, 0, (0, 1, 2))


def test_a_higher_term_is_answered_with_a_higher_claim():
    job = a_job().in_round(1, 0, 1, 2).saying(term=2)
    decision = decided(job, seen().aggregator(committed=0, term=7).ready(0, 1, 2))
    assert decision.status.term == 8
    assert decision.actions == ()


def test_without_the_aggregator_nothing_is_decided_about_rounds():
    gone = seen().aggregator(committed=0).round(1).exited(PodRole.AGGREGATOR).ready(0, 1, 2)
    job, decision = settled(a_job().in_round(1, 0, 1, 2), gone)
    assert not of_type(decision, OpenRound | WatchRound | StartTask | ReadState)
    assert (job.status.phase, job.status.reason) == (Phase.RUNNING, Reason.CRASHED)
    assert "exit code 1; it is started again" in job.status.message


@pytest.mark.parametrize(
    ("what", "kind"), [(EVERYBODY, OpenRound), (EVERYBODY.round(1), WatchRound)], ids=["opening", "watching"]
)
def test_an_aggregator_that_does_not_answer_for_a_while_is_shown(what, kind):
    job = a_job().in_round(1, 0, 1, 2)
    silent = what.failing(only(settled(job, what)[1], kind), message="GET http://aggregator-0-0: TimeoutError")
    written, decision = settled(job, silent, now=at(5))
    assert (written.status.phase, written.status.reason) == (Phase.RUNNING, Reason.AGGREGATOR_UNREACHABLE)
    assert "does not answer: GET http://aggregator-0-0: TimeoutError" in written.status.message
    assert only(decision, kind)
    assert settled(job, silent, now=at(4))[0].status.holds(ConditionType.AGGREGATOR_READY)
    assert settled(written, what, now=at(6))[0].status.holds(ConditionType.AGGREGATOR_READY)


@pytest.mark.parametrize("word", [None, Word.BAD_TOKEN])
def test_an_aggregator_that_never_answered_is_shown(word):
    unread = seen().pod(pod(PodRole.AGGREGATOR)).ready(0, 1, 2)
    job = a_job().accepted()
    silent = unread.failing(only(settled(job, unread)[1], ReadState), word)
    assert settled(job, unread, now=at(60))[0].status.reason == Reason.AGGREGATOR_STARTING
    assert settled(job, silent, now=at(60))[0].status.reason == Reason.AGGREGATOR_UNREACHABLE


def test_a_refusal_is_an_answer():
    job = a_job().in_round(1, 0, 1, 2)
    refused = EVERYBODY.failing(only(settled(job, EVERYBODY)[1], OpenRound), Word.STORAGE_FULL)
    assert settled(job, refused, now=at(60))[0].status.holds(ConditionType.AGGREGATOR_READY)


# Adoption


def test_what_was_committed_while_the_operator_was_away_is_adopted():
    """The crash between commit and patch: the aggregator's record becomes part of the status."""
    job = a_job().clients(5).policy(clientsPerRound=2).in_round(1, 1, 3, attempt=2)
    done = record(1, 1, 3, attempt=2, examples=30, refused=[], failed=[failure(4)], duration_seconds=2.5)
    what = seen().aggregator(committed=1).ready(*range(5)).round(1, AggregatorRound.EVALUATED, record=done, attempt=2)
    status = decided(job.saying(term=4), what).status
    assert status.rounds.committed == 1
    assert (status.model.round, status.model.digest) == (1, chain_digest(1))
    assert status.model.path == "checkpoints/round-000001.safetensors"
    row = status.recent_rounds[-1]
    assert (row.number, row.attempt, row.reported, row.failed, row.examples) == (1, 2, 2, 1, 30)
    assert (row.contributors, row.duration_seconds) == ((1, 3), 2.5)


def test_whom_the_strategy_judged_is_in_the_status_with_the_evidence_the_first_ten_of_them():
    judgements = [
        Judgement(client=client, verdict="Rejected", evidence={"score": 3.14159, "limit": 0.5}) for client in range(12)
    ]
    done = record(1, *range(12)).model_copy(update={"judgements": judgements})
    what = seen().aggregator(committed=1).ready(*range(12)).round(1, AggregatorRound.EVALUATED, record=done)
    row = decided(a_job().clients(12).in_round(1, *range(12)), what).status.recent_rounds[-1]
    assert (row.judged, len(row.judgements)) == (12, 10)
    assert dump(row.judgements[1]) == {"client": 1, "verdict": "Rejected", "evidence": "score 3.142, limit 0.5"}


@pytest.mark.parametrize(
    ("strategy", "weighting"),
    [
        ({"name": "FedAdam"}, "Examples"),
        ({"name": "FedAdam", "weighting": "Uniform"}, "Uniform"),
        ({"name": "Median"}, "Uniform"),
        ({"name": "Own"}, "Examples"),
    ],
)
def test_a_strategy_that_takes_no_mean_counts_each_update_the_same(strategy, weighting):
    job = a_job().having(strategy=strategy).in_round(1, 0, 1, 2)
    spec = only(settled(job, EVERYBODY)[1], OpenRound).spec
    assert (spec.strategy.name, spec.weighting) == (strategy["name"], weighting)


def test_a_strategy_that_the_aggregator_does_not_have_fails_the_job_with_its_words():
    job = a_job().having(strategy={"name": "Own"}).in_round(1, 0, 1, 2)
    action = only(settled(job, EVERYBODY)[1], OpenRound)
    status = decided(job, EVERYBODY.failing(action, Word.BAD_REQUEST)).status
    assert (status.phase, status.reason) == ("Failed", "InvalidSpec")


def test_a_round_that_the_state_says_is_committed_is_asked_for():
    what = seen().aggregator(committed=1).ready(0, 1, 2)
    written, decision = settled(a_job().in_round(1, 0, 1, 2), what)
    assert written.status.rounds.committed == 0
    assert only(decision, WatchRound).round == 1


def test_an_aggregator_that_was_restarted_after_its_commit_repeats_nothing():
    what = seen().aggregator(committed=1, boot="boot-b").ready(0, 1, 2)
    what = what.round(1, AggregatorRound.EVALUATED, reported=[0, 1, 2], boot_id="boot-b")
    status = decided(a_job().in_round(1, 0, 1, 2), what).status
    assert (status.rounds.committed, status.current_round.number) == (1, 2)


def test_failed_attempts_are_counted_for_each_round_anew():
    what = EVERYBODY.round(1, AggregatorRound.EVALUATED, reported=[0, 1, 2])
    assert decided(a_job().in_round(1, 0, 1, 2).saying(failed_attempts=2), what).status.failed_attempts == 0


def test_only_the_last_ten_rounds_are_kept_in_the_status():
    job = a_job().rounds(30).committed(0)
    for number in range(1, 15):
        what = seen().aggregator(committed=number).ready(0, 1, 2)
        status = job.in_round(number, 0, 1, 2).status.model_copy(update={"recent_rounds": job.status.recent_rounds})
        job = job.saying(**dict(status))
        done = decided(job, what.round(number, AggregatorRound.EVALUATED, reported=[0, 1, 2])).status
        job = job.saying(recent_rounds=done.recent_rounds)
    assert [row.number for row in job.status.recent_rounds] == list(range(5, 15))
