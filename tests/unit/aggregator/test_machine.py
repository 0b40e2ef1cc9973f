"""The rules of rounds, case by case."""

import pytest

from fedjob_aggregator.admission import Admission, admit
from fedjob_aggregator.events import (
    Cancel,
    Commit,
    CommitFailed,
    Fold,
    KeepRecord,
    StartAttempt,
    StopUploads,
    SumsLost,
)
from fedjob_protocol.errors import Refusal, Word
from fedjob_protocol.messages import Base, Participant, Weighting
from fedjob_protocol.reasons import Reason
from fedjob_protocol.round import RoundState
from tests.unit.aggregator.builders import (
    BOOT,
    JOB,
    Driver,
    a_spec,
    an_update,
    committed,
    credentials,
    opened,
    restarted,
    sha,
    xxh,
)


def word_of(call, *arguments, **keywords):
    with pytest.raises(Refusal) as caught:
        call(*arguments, **keywords)
    return caught.value.word


# Opening


def test_a_first_round_is_opened_on_no_model():
    driver = Driver()
    driver.open(0, clients=1)
    assert (driver.state.job_uid, driver.state.term, driver.current.state) == (JOB, 1, RoundState.OPEN)
    (start,) = driver.asked(StartAttempt)
    assert start.attempt is driver.current
    assert driver.current.deadline == 160.0


@pytest.mark.parametrize(
    ("round_number", "changes", "word"),
    [
        (1, {"term": 1, "job_uid": "other"}, Word.WRONG_JOB),
        (1, {"term": 2}, Word.STALE_TERM),
        (2, {"term": 3}, Word.WRONG_ROUND),
        (1, {"term": 3, "base": Base(round=0, digest=sha(9))}, Word.WRONG_BASE),
        (1, {"term": 3, "base": None}, Word.WRONG_BASE),
    ],
)
def test_a_round_that_may_not_be_opened_is_refused_and_nothing_starts(round_number, changes, word):
    driver = committed(0)
    driver.claim(3)
    assert word_of(driver.open, round_number, **changes) is word
    assert driver.current is None


@pytest.mark.parametrize("changes", [{"clients": 2}, {"clients": 1, "base": Base(round=0, digest=sha(0))}])
def test_round_0_is_one_upload_on_no_base(changes):
    assert word_of(Driver().open, 0, **changes) in {Word.BAD_REQUEST, Word.WRONG_BASE}


def test_a_committed_round_is_not_opened_again():
    driver = committed(1)
    state = driver.state
    assert driver.open(1) == []
    assert driver.open(0, clients=1) == []
    assert driver.state == state


def test_the_same_request_again_changes_nothing():
    driver = opened()
    driver.report(0)
    state = driver.state
    assert driver.open(1, now=500.0) == []
    assert driver.state == state


def test_a_higher_term_takes_the_attempt_over_and_keeps_what_was_folded():
    driver = opened()
    driver.report(0)
    assert driver.open(1, term=5) == []
    assert (driver.state.term, driver.current.spec.term, list(driver.current.folded)) == (5, 5, [0])


def test_the_same_attempt_with_other_settings_is_a_conflict():
    driver = opened()
    assert word_of(driver.open, 1, min_reports=2) is Word.ROUND_CONFLICT
    assert word_of(driver.open, 1, clients=4) is Word.ROUND_CONFLICT


def test_a_higher_term_fences_a_lower_one_off_though_its_own_opening_was_refused():
    """The deadline was edited in between, so that the attempt cannot go on; the next one of the higher term comes."""
    driver = opened()
    assert word_of(driver.open, 1, term=2, deadline_seconds=61.0) is Word.ROUND_CONFLICT
    assert word_of(driver.fail, 0, term=1) is Word.STALE_TERM
    assert word_of(admit, driver.state, 1, 0, credentials(term=1), xxh(9)) is Word.STALE_TERM
    assert (driver.state.term, driver.current.failed) == (2, {})


def test_a_higher_attempt_starts_anew_and_a_lower_one_is_stale():
    driver = opened()
    driver.report(0)
    driver.open(1, attempt=3, now=200.0)
    assert driver.asked(StartAttempt)
    assert driver.asked(StopUploads)
    assert (driver.current.folded, driver.current.deadline) == ({}, 260.0)
    assert word_of(driver.open, 1, attempt=2) is Word.STALE_ATTEMPT


def test_a_new_attempt_waits_while_the_round_is_being_committed():
    driver = opened(clients=1)
    driver.report(0)
    assert driver.current.state is RoundState.COMMITTING
    assert word_of(driver.open, 1, clients=1, attempt=2) is Word.ROUND_CONFLICT
    assert driver.open(1, clients=1, term=2) == []


@pytest.mark.parametrize("end", ["abandoned", "cancelled"])
def test_a_higher_attempt_follows_one_that_ended(end):
    driver = opened()
    if end == "abandoned":
        driver.deadline()
    else:
        driver.apply(Cancel(round=1, attempt=1))
    assert driver.open(1) == []
    driver.open(1, attempt=2)
    assert driver.current.state is RoundState.OPEN


def test_an_unknown_attempt_is_opened_after_a_restart():
    driver = Driver(restarted(opened().state))
    driver.open(1, attempt=2)
    assert driver.current.state is RoundState.OPEN


# Who may upload


@pytest.mark.parametrize(
    ("changes", "round_number", "client", "word"),
    [
        ({"job_uid": "other"}, 1, 0, Word.WRONG_JOB),
        ({"term": 1}, 1, 0, Word.STALE_TERM),
        ({"term": 3}, 1, 0, Word.ROUND_CONFLICT),
        ({"attempt": 1}, 1, 0, Word.STALE_ATTEMPT),
        ({"attempt": 3}, 1, 0, Word.ROUND_CONFLICT),
        ({"boot_id": "old"}, 1, 0, Word.WRONG_BOOT),
        ({"boot_id": "old"}, 2, 0, Word.WRONG_BOOT),
        ({}, 2, 0, Word.WRONG_ROUND),
        ({}, 0, 0, Word.ROUND_CLOSED),
        ({}, 1, 7, Word.NOT_A_PARTICIPANT),
    ],
)
def test_uploads_count_only_where_they_belong(changes, round_number, client, word):
    driver = opened(term=2, attempt=2)
    held = credentials(**({"term": 2, "attempt": 2} | changes))
    assert word_of(admit, driver.state, round_number, client, held, xxh(9)) is word


def test_an_upload_is_admitted_once():
    driver = opened()
    admission = admit(driver.state, 1, 0, credentials(), xxh(0))
    assert isinstance(admission, Admission)
    assert admission.participant.name == "client-0"
    driver.offer(0)
    assert admit(driver.state, 1, 0, credentials(), xxh(0)) == an_update(0)
    driver.folded(0)
    assert admit(driver.state, 1, 0, credentials(), xxh(0)) == an_update(0)
    assert word_of(admit, driver.state, 1, 0, credentials(), xxh(9)) is Word.ALREADY_REPORTED


def test_a_client_whose_answer_got_lost_hears_that_its_update_counted():
    driver = committed(1, clients=2)
    assert admit(driver.state, 1, 1, credentials(), xxh(1)).digest == xxh(1)
    assert word_of(admit, driver.state, 1, 1, credentials(), xxh(9)) is Word.ROUND_CLOSED
    assert word_of(admit, driver.state, 0, 0, credentials(), xxh(0)) is Word.ROUND_CLOSED


def test_a_failed_client_is_out_of_this_attempt():
    driver = opened()
    driver.fail(0)
    assert word_of(admit, driver.state, 1, 0, credentials(), xxh(0)) is Word.ALREADY_REPORTED


def test_two_uploads_of_one_client_are_not_both_folded():
    driver = opened()
    driver.offer(0)
    assert word_of(driver.offer, 0, digest=xxh(9)) is Word.ALREADY_REPORTED


@pytest.mark.parametrize(("weighting", "weight"), [(Weighting.EXAMPLES, 10), (Weighting.UNIFORM, 1)])
def test_updates_are_weighted_as_the_round_says(weighting, weight):
    driver = opened(weighting=weighting)
    (fold,) = driver.offer(0)
    assert fold == Fold(round=1, attempt=1, client=0, weight=weight)


# Closing


def test_a_round_closes_at_clients_per_round_and_others_come_too_late():
    driver = opened(clients=3, clients_per_round=2)
    driver.report(0)
    driver.offer(1)
    assert word_of(driver.offer, 2) is Word.ROUND_CLOSED
    assert word_of(admit, driver.state, 1, 2, credentials(), xxh(2)) is Word.ROUND_CLOSED
    driver.folded(1)
    (commit,) = driver.asked(Commit)
    assert driver.asked(StopUploads)
    assert (commit.attempt.closing, driver.current.failed) == ("ClientsPerRound", {})


def test_a_round_closes_when_everybody_reported_or_failed():
    driver = opened()
    driver.report(0)
    driver.fail(1)
    assert driver.current.state is RoundState.OPEN
    driver.fail(2)
    (commit,) = driver.asked(Commit)
    assert commit.attempt.closing == "AllReported"


def test_a_round_that_nobody_can_fill_any_more_is_abandoned():
    driver = opened(min_reports=2)
    driver.report(0)
    driver.fail(1)
    driver.fail(2)
    assert driver.current.state is RoundState.ABANDONED
    assert not driver.asked(Commit)


def test_the_deadline_closes_with_enough_reports_and_names_the_missing():
    driver = opened()
    driver.report(0)
    driver.fail(1)
    driver.deadline()
    (commit,) = driver.asked(Commit)
    assert commit.attempt.closing == "Deadline"
    assert {client: failed.reason for client, failed in driver.current.failed.items()} == {
        1: "TrainerError",
        2: Reason.DEADLINE_EXCEEDED,
    }


def test_the_deadline_abandons_with_too_few_reports():
    driver = opened(min_reports=2)
    driver.report(0)
    driver.deadline()
    assert driver.current.state is RoundState.ABANDONED
    assert sorted(driver.current.failed) == [1, 2]


def test_a_fold_in_flight_at_the_deadline_is_waited_for():
    driver = opened()
    driver.offer(0)
    assert driver.deadline() == []
    assert word_of(driver.offer, 1) is Word.ROUND_CLOSED
    driver.folded(0)
    (commit,) = driver.asked(Commit)
    assert list(commit.attempt.folded) == [0]


def test_the_deadline_of_an_attempt_that_is_over_means_nothing():
    driver = opened()
    driver.open(1, attempt=2)
    assert driver.deadline(attempt=1) == []
    assert driver.current.state is RoundState.OPEN


def test_updates_without_examples_have_no_mean():
    driver = opened(clients=2)
    driver.report(0, examples=0)
    driver.report(1, examples=0)
    assert driver.current.state is RoundState.ABANDONED
    assert "0 examples" in driver.current.failed[0].message


def test_one_update_without_examples_counts_with_others():
    driver = opened(clients=2)
    driver.report(0, examples=0)
    driver.report(1, examples=5)
    assert driver.asked(Commit)[0].attempt.weight == 5


def test_an_initial_model_needs_no_examples():
    driver = opened(0)
    driver.report(0, examples=0)
    assert driver.asked(Commit)


# Refused uploads


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        (Word.NON_FINITE, Reason.NON_FINITE_UPDATE),
        (Word.WRONG_SHAPE, Reason.UPDATE_REFUSED),
        (Word.TOO_LARGE, Reason.UPDATE_REFUSED),
        (Word.BAD_EXAMPLES, Reason.UPDATE_REFUSED),
        (Word.TRUNCATED, None),
        (Word.DIGEST_MISMATCH, None),
        (Word.STALE_TERM, None),
        (Word.STORAGE_FULL, None),
    ],
)
def test_only_updates_that_are_wrong_in_themselves_make_their_client_fail(word, reason):
    driver = opened()
    driver.refuse(0, word)
    assert [refused.word for refused in driver.current.refused] == [word]
    failed = driver.current.failed.get(0)
    assert (failed and failed.reason) == reason
    assert failed is None or failed.message == f"{word}: why"


def test_a_refused_update_of_a_client_that_reported_does_not_undo_its_report():
    driver = opened()
    driver.report(0)
    driver.refuse(0, Word.NON_FINITE)
    assert (list(driver.current.folded), driver.current.failed) == ([0], {})


def test_a_stranger_does_not_fail():
    driver = opened()
    driver.refuse(9, Word.NON_FINITE)
    assert driver.current.failed == {}


def test_the_last_refused_update_can_close_the_round():
    driver = opened(clients=2)
    driver.report(0)
    driver.refuse(1, Word.NON_FINITE)
    assert driver.asked(Commit)


def test_only_the_last_refusals_are_kept():
    driver = opened()
    for _ in range(150):
        driver.refuse(0, Word.TRUNCATED)
    assert len(driver.current.refused) == 100


def test_a_refusal_of_an_older_attempt_does_not_count_in_the_new_one():
    driver = opened()
    driver.open(1, attempt=2)
    driver.refuse(0, Word.NON_FINITE, attempt=1)
    assert (driver.current.refused, driver.current.failed) == ((), {})


# Failures


def test_a_reported_failure_does_not_undo_a_report():
    driver = opened()
    driver.report(0)
    state = driver.state
    driver.fail(0)
    assert driver.state == state


def test_the_first_failure_counts():
    driver = opened()
    driver.fail(0, message="first")
    driver.fail(0, message="second")
    assert driver.current.failed[0].message == "first"


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"job_uid": "other"}, Word.WRONG_JOB),
        ({"boot_id": "old"}, Word.WRONG_BOOT),
        ({"attempt": 2}, Word.ROUND_CONFLICT),
        ({"round_number": 0}, Word.ROUND_CLOSED),
        ({"round_number": 2}, Word.WRONG_ROUND),
    ],
)
def test_a_failure_counts_only_where_it_belongs(changes, word):
    assert word_of(opened().fail, 0, **changes) is word


# Committing


def test_a_commit_that_storage_refuses_is_tried_again_ever_more_rarely():
    driver = opened(clients=1)
    driver.report(0)
    waits = []
    for _ in range(9):
        (commit,) = driver.apply(CommitFailed(round=1, attempt=1, message="disk full"))
        waits.append(commit.after_seconds)
    assert waits[:3] == [0.25, 0.5, 1.0]
    assert waits[-1] == 10.0
    assert driver.current.state is RoundState.COMMITTING
    assert (driver.current.storage.message, driver.current.storage.failures) == ("disk full", 9)
    driver.commit()
    assert driver.state.committed == 1


def test_a_strategy_that_fails_ends_the_attempt_and_its_participants_have_failed_by_it():
    driver = opened(clients=2)
    driver.report(0)
    driver.report(1)
    assert driver.apply(CommitFailed(round=1, attempt=1, message="it raised", is_definitive=True)) == []
    assert driver.current.state is RoundState.ABANDONED
    assert {client: (item.reason, item.message) for client, item in driver.current.failed.items()} == {
        0: ("StrategyFailed", "it raised"),
        1: ("StrategyFailed", "it raised"),
    }
    driver.open(attempt=2, clients=2)
    assert driver.current.state is RoundState.OPEN


def test_a_commit_moves_on_by_one_round():
    driver = opened(clients=1)
    driver.report(0)
    driver.commit()
    assert (driver.state.committed, driver.current) == (1, None)
    assert driver.state.last.record.digest == sha(1)
    assert driver.asked(KeepRecord)
    assert driver.state.last.state is RoundState.COMMITTED
    driver.keep()
    assert driver.state.last.state is RoundState.EVALUATED


def test_lost_sums_abandon_the_attempt_and_say_why():
    driver = opened()
    driver.offer(0)
    driver.apply(SumsLost(round=1, attempt=1, message="disk broken"))
    assert driver.current.state is RoundState.ABANDONED
    assert driver.current.storage.message == "disk broken"
    assert driver.folded(0) == []


# Evaluation


def test_a_record_waits_for_its_evaluation():
    driver = committed(1, expects_evaluation=True)
    assert driver.state.last.state is RoundState.COMMITTED
    (keep,) = driver.evaluate(best=True)
    assert (keep.record.metrics, keep.record.evaluation_examples, keep.record.best) == ({"accuracy": 0.5}, 7, True)
    assert driver.state.last.state is RoundState.COMMITTED
    driver.keep()
    assert driver.state.last.state is RoundState.EVALUATED


def test_the_same_evaluation_again_changes_nothing_and_another_is_a_conflict():
    driver = committed(1, expects_evaluation=True)
    driver.evaluate()
    driver.keep()
    assert driver.evaluate(term=2) == []
    assert word_of(driver.evaluate, metrics={"accuracy": 0.6}) is Word.ROUND_CONFLICT


@pytest.mark.parametrize(
    ("round_number", "changes", "word"),
    [(2, {}, Word.WRONG_ROUND), (0, {}, Word.ROUND_CONFLICT), (1, {"digest": sha(9)}, Word.WRONG_BASE)],
)
def test_only_the_committed_model_is_evaluated(round_number, changes, word):
    assert word_of(committed(1, expects_evaluation=True).evaluate, round_number, **changes) is word


def test_a_round_without_evaluation_is_not_evaluated():
    assert word_of(committed(1).evaluate) is Word.ROUND_CONFLICT


def test_the_next_round_waits_until_the_record_is_closed():
    driver = committed(1, expects_evaluation=True)
    (keep,) = driver.open(2)
    assert "no evaluation came" in keep.record.evaluation_problem
    assert driver.current is None
    driver.keep()
    driver.open(2)
    assert driver.asked(StartAttempt)


def test_a_request_that_would_be_refused_does_not_give_the_evaluation_up():
    driver = committed(1, expects_evaluation=True)
    assert word_of(driver.open, 2, base=Base(round=1, digest=sha(9))) is Word.WRONG_BASE
    assert driver.state.last.state is RoundState.COMMITTED


# Cancelling


def test_an_open_attempt_is_cancelled_once():
    driver = opened()
    assert driver.apply(Cancel(round=1, attempt=1)) == [StopUploads(detail="the attempt was cancelled")]
    assert driver.apply(Cancel(round=1, attempt=1)) == []
    assert driver.current.state is RoundState.CANCELLED
    assert word_of(admit, driver.state, 1, 0, credentials(), xxh(0)) is Word.ROUND_CLOSED


def test_what_is_committed_is_not_cancelled():
    driver = committed(1)
    assert driver.apply(Cancel(round=1, attempt=1)) == []
    assert driver.state.committed == 1


@pytest.mark.parametrize(
    ("round_number", "attempt", "word"),
    [(1, 1, Word.STALE_ATTEMPT), (1, 3, Word.ROUND_CONFLICT), (2, 1, Word.WRONG_ROUND)],
)
def test_only_the_open_attempt_is_cancelled(round_number, attempt, word):
    driver = opened(attempt=2)
    assert word_of(driver.apply, Cancel(round=round_number, attempt=attempt)) is word


def test_a_round_that_is_being_committed_is_not_cancelled():
    driver = opened(clients=1)
    driver.report(0)
    assert word_of(driver.apply, Cancel(round=1, attempt=1)) is Word.ROUND_CONFLICT


def test_the_boot_id_is_the_only_thing_that_a_restart_changes_in_what_is_durable():
    before = committed(1).state
    after = restarted(before)
    assert (after.last, after.term, after.job_uid) == (before.last, before.term, before.job_uid)
    assert word_of(admit, after, 2, 0, credentials(boot_id=BOOT), xxh(0)) is Word.WRONG_BOOT


def test_specs_of_one_attempt_are_compared_as_a_whole():
    assert a_spec(1) == a_spec(1)
    assert a_spec(1) != a_spec(1, expects_evaluation=True)


def test_a_round_without_evaluation_is_not_evaluated_while_its_record_is_being_written():
    assert word_of(committed(1, closed=False).evaluate) is Word.ROUND_CONFLICT


@pytest.mark.parametrize("labels", [(3, 0, 7), None])
def test_the_record_says_what_labels_a_contributor_has_where_it_was_told(labels):
    driver = Driver()
    driver.open(0, spec=a_spec(0, clients=1, participants=(Participant(client=0, name="a", labels=labels),)))
    driver.offer(0)
    driver.folded(0)
    contribution = driver.current.folded[0]
    assert contribution.labels == labels
    assert ("labels" in contribution.model_dump_json()) == (labels is not None)
