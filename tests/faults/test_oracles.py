"""Each oracle accepts a run that nothing disturbed, and refuses each thing that it is there to refuse."""

from collections import Counter
from dataclasses import replace

import pytest

from fedjob_operator.api.v1alpha1 import CommittedModel, Condition, FederatedJobStatus, Phase, RecentRound, Rounds
from fedjob_operator.api.v1alpha1 import ConditionStatus as Is
from tests.faults.allowances import Allowance
from tests.faults.evidence import Evidence, StatusSeen
from tests.faults.oracles import (
    converges,
    few_writes,
    lost_rounds,
    never_back,
    nothing_left,
    nothing_told,
    repeated_work,
    rounds_once,
    violations,
)
from tests.support.builders import record
from tests.support.jobs import EPOCH, chain_digest, digest_of

CLIENTS = (0, 1, 2)
STRICT = Allowance()
OTHERS_MAY_REPORT = Allowance(same_reporters=False)


def recent(number, *contributors, digest=None):
    return RecentRound(number=number, digest=digest or chain_digest(number), contributors=contributors)


def complete(status=Is.TRUE):
    return Condition(type="Complete", status=status, reason="AllRoundsDone", last_transition_time=EPOCH)


CALM = Evidence(
    status=FederatedJobStatus(
        phase=Phase.COMPLETE,
        reason="AllRoundsDone",
        term=1,
        rounds=Rounds(committed=2, total=2),
        model=CommittedModel(round=2, digest=chain_digest(2)),
        conditions=(complete(),),
        recent_rounds=(recent(0, 0), recent(1, *CLIENTS), recent(2, *CLIENTS)),
    ),
    history=(StatusSeen(1, -1, 100), StatusSeen(1, 0, 200), StatusSeen(1, 1, 300), StatusSeen(1, 2, 400)),
    rounds=(record(0, 0), record(1, *CLIENTS), record(2, *CLIENTS)),
    trainings=Counter((client, number) for client in CLIENTS for number in (1, 2)),
    writes=20,
    texts={"aggregator.log": "round 1 is committed"},
    secrets={"the token": "s3cret"},
)


def having(**status):
    return replace(CALM, status=CALM.status.model_copy(update=status))


def logged(*rounds, **fields):
    return replace(CALM, rounds=rounds, **fields)


def the_only_problem(problems):
    assert len(problems) == 1, problems
    return problems[0]


def test_a_run_that_was_not_disturbed_passes_all():
    assert violations(CALM, CALM, STRICT) == []
    assert (lost_rounds(CALM), repeated_work(CALM)) == (0, 0)


def test_every_violation_begins_with_the_name_of_its_oracle():
    told = violations(CALM, replace(CALM, leftovers=("pod j-client-0-0",)), STRICT)
    assert told == ["O3 nothing left: pod j-client-0-0 is still there after the job was deleted"]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"phase": Phase.FAILED}, "phase"),
        ({"reason": "StopReached"}, "reason"),
        ({"rounds": Rounds(committed=1, total=2)}, "committed rounds"),
        ({"conditions": (complete(Is.FALSE),)}, "conditions"),
        ({"model": CommittedModel(round=2, digest=digest_of("other"))}, "model"),
    ],
)
def test_another_end_is_refused(change, what):
    assert what in the_only_problem(converges(CALM, having(**change), STRICT))


def test_who_is_there_at_the_end_may_differ():
    absent = Condition(type="ClientsReady", status=Is.FALSE, reason="WaitingForClients", last_transition_time=EPOCH)
    assert converges(CALM, having(conditions=(complete(), absent)), STRICT) == []


def test_another_model_is_accepted_where_others_may_report():
    other = having(model=CommittedModel(round=2, digest=digest_of("other")))
    assert converges(CALM, other, OTHERS_MAY_REPORT) == []


def test_a_fault_that_has_to_end_the_job_has_to_end_it_with_its_reason():
    allowance = Allowance(end=("Failed", "CheckpointLost"))
    assert converges(CALM, having(phase=Phase.FAILED, reason="CheckpointLost"), allowance) == []
    assert converges(CALM, CALM, allowance)
    assert converges(CALM, having(phase=Phase.FAILED, reason="QuorumLost"), allowance)


@pytest.mark.parametrize(
    "numbers",
    [(0, 1), (0, 2, 1), (0, 1, 1, 2), (1, 2), ()],
    ids=["lost", "reordered", "repeated", "begun late", "none"],
)
def test_rounds_that_are_not_one_after_the_other_are_refused(numbers):
    rounds = [record(number, *(CLIENTS if number else (0,))) for number in numbers]
    assert any("were committed" in told for told in rounds_once(CALM, logged(*rounds), OTHERS_MAY_REPORT))


def test_a_failed_job_may_end_early_and_not_out_of_order():
    allowance = Allowance(end=("Failed", "CheckpointLost"))
    status = CALM.status.model_copy(update={"recent_rounds": CALM.status.recent_rounds[:2]})
    assert rounds_once(CALM, logged(*CALM.rounds[:2], status=status), allowance) == []
    assert rounds_once(CALM, logged(CALM.rounds[0], CALM.rounds[2]), allowance)


def test_a_round_on_top_of_another_model_is_refused():
    broken = logged(*CALM.rounds[:2], record(2, *CLIENTS, parent=digest_of("elsewhere")))
    assert "was committed on" in the_only_problem(rounds_once(CALM, broken, STRICT))


def test_another_model_of_the_same_clients_is_refused_even_where_others_may_report():
    digest = digest_of("other")
    status = CALM.status.model_copy(
        update={"recent_rounds": (*CALM.status.recent_rounds[:2], recent(2, *CLIENTS, digest=digest))}
    )
    other = logged(*CALM.rounds[:2], record(2, *CLIENTS, digest=digest), status=status)
    assert "by the same clients" in the_only_problem(rounds_once(CALM, other, OTHERS_MAY_REPORT))


def test_a_round_without_the_metrics_of_the_same_model_is_refused():
    evaluated = logged(*CALM.rounds[:2], record(2, *CLIENTS, metrics={"loss": 0.5}))
    assert "has metrics None" in the_only_problem(rounds_once(evaluated, CALM, STRICT))


def test_other_reporters_are_refused_unless_the_fault_may_keep_some_from_reporting():
    status = CALM.status.model_copy(update={"recent_rounds": (*CALM.status.recent_rounds[:2], recent(2, 0, 1))})
    fewer = logged(*CALM.rounds[:2], record(2, 0, 1), status=status)
    assert "reported in round 2" in the_only_problem(rounds_once(CALM, fewer, STRICT))
    assert rounds_once(CALM, fewer, OTHERS_MAY_REPORT) == []


def test_a_status_that_tells_another_story_than_the_round_log_is_refused():
    rows = CALM.status.recent_rounds
    assert rounds_once(CALM, having(recent_rounds=(*rows[:2], recent(2, 0, 1))), STRICT)
    assert rounds_once(CALM, having(recent_rounds=(*rows, recent(3, *CLIENTS))), STRICT)


def test_a_second_training_is_refused_unless_its_client_died():
    again = replace(CALM, trainings=CALM.trainings + Counter({(1, 2): 1}))
    assert "client 1 trained 2 times" in the_only_problem(rounds_once(CALM, again, STRICT))
    assert repeated_work(again) == 1
    died = replace(again, died=Counter({(1, 2): 1}))
    assert rounds_once(CALM, died, STRICT) == []
    assert repeated_work(died) == 0


def test_a_contributor_that_never_trained_is_refused():
    idle = replace(CALM, trainings=CALM.trainings - Counter({(2, 1): 1}))
    assert "did not train" in the_only_problem(rounds_once(CALM, idle, STRICT))


def test_what_is_left_behind_is_named():
    assert nothing_left(CALM, CALM, STRICT) == []
    assert "run/lock" in the_only_problem(nothing_left(CALM, replace(CALM, leftovers=("run/lock",)), STRICT))


@pytest.mark.parametrize(
    "last", [StatusSeen(0, 2, 400), StatusSeen(1, 1, 400), StatusSeen(1, 2, STRICT.status_bytes + 1)]
)
def test_a_status_that_goes_back_or_grows_large_is_refused(last):
    the_only_problem(never_back(CALM, replace(CALM, history=(*CALM.history, last)), STRICT))


def test_a_history_that_nobody_watched_proves_nothing():
    the_only_problem(never_back(CALM, replace(CALM, history=()), STRICT))


@pytest.mark.parametrize(("writes", "passes"), [(16, True), (24, True), (15, False), (25, False), (0, False)])
def test_writes_stay_within_a_fifth(writes, passes):
    assert (few_writes(CALM, replace(CALM, writes=writes), STRICT) == []) is passes


def test_writes_stay_within_a_fifth_and_the_allowance_of_the_fault():
    allowance = Allowance(writes=10)
    assert few_writes(CALM, replace(CALM, writes=34), allowance) == []
    the_only_problem(few_writes(CALM, replace(CALM, writes=35), allowance))


def test_a_secret_is_found_and_not_repeated():
    told = the_only_problem(nothing_told(CALM, replace(CALM, texts={"client-0.log": "with s3cret in it"}), STRICT))
    assert told == "the token is in client-0.log"


@pytest.mark.parametrize("nothing", [{"texts": {}}, {"secrets": {}}])
def test_a_search_of_nothing_or_for_nothing_proves_nothing(nothing):
    the_only_problem(nothing_told(CALM, replace(CALM, **nothing), STRICT))


def test_rounds_that_the_status_promised_and_the_log_lacks_are_counted_as_lost():
    assert lost_rounds(logged(*CALM.rounds[:1])) == 2


def test_rounds_that_are_in_the_log_twice_are_counted_as_repeated():
    assert repeated_work(logged(*CALM.rounds, CALM.rounds[-1])) == 1
