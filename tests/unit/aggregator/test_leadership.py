"""Who leads and what counts, of several aggregators."""

import pytest

from fedjob_aggregator.leadership import (
    Standing,
    appointed,
    check_leads,
    heard_from,
    is_acknowledged,
    standbys,
)
from fedjob_protocol.errors import Refusal, Word
from fedjob_protocol.replicas import Acknowledgement, Commit, ReplicaRole
from fedjob_protocol.replication import Leadership, Progress
from tests.unit.aggregator.builders import BOOT, JOB, sha

NAMES = ("aggregator-0", "aggregator-1", "aggregator-2", "aggregator-3", "aggregator-4")
COMMIT = Commit(round=3, digest=sha(3), parent=sha(2), term=1)


def leadership(leader=NAMES[0], *, term=1, count=3, boot=BOOT, **changes):
    values = {"job_uid": JOB, "term": term, "replicas": NAMES[:count]}
    if leader is not None:
        values |= {"leader": leader, "leader_boot_id": boot, "leader_url": "http://leader"}
    return Leadership(**(values | changes))


def standing(name=NAMES[0]):
    return Standing(name=name, boot_id=BOOT)


def leader(**changes):
    said = leadership(**changes)
    return appointed(standing(), said, said.term, 0.0)


def progress(newest=COMMIT, *, term=1, **changes):
    return Progress(**({"job_uid": JOB, "term": term, "boot_id": BOOT, "newest": newest} | changes))


def refusal(call, *arguments):
    with pytest.raises(Refusal) as caught:
        call(*arguments)
    return caught.value.word


def test_nobody_leads_before_it_was_told_so():
    assert refusal(check_leads, standing(), 0) is Word.NOT_LEADER


def test_the_leader_leads_in_its_term_and_the_others_follow():
    follower = appointed(standing(NAMES[1]), leadership(), 1, 0.0)
    assert leader().leads(1)
    assert not follower.leads(1)
    assert follower.role(1) is ReplicaRole.STANDBY
    assert follower.follows(1).leader == NAMES[0]
    assert refusal(check_leads, follower, 1) is Word.NOT_LEADER


def test_whoever_has_seen_a_higher_term_leads_no_more():
    assert not leader().leads(2)
    assert refusal(check_leads, leader(), 2) is Word.UNAVAILABLE


def test_a_standby_of_a_lower_term_than_it_has_seen_follows_nobody():
    assert appointed(standing(NAMES[1]), leadership(), 1, 0.0).follows(2) is None


def test_a_lower_term_is_refused():
    assert refusal(appointed, standing(), leadership(term=1), 2, 0.0) is Word.STALE_TERM


def test_a_term_has_one_leader():
    assert refusal(appointed, leader(), leadership(NAMES[1]), 1, 0.0) is Word.ROUND_CONFLICT


def test_another_run_than_the_chosen_one_does_not_lead():
    assert refusal(appointed, standing(), leadership(boot="another"), 1, 0.0) is Word.WRONG_BOOT


def test_aggregators_of_another_job_are_refused():
    assert refusal(appointed, standing("stranger"), leadership(), 1, 0.0) is Word.FORBIDDEN


def test_a_late_copy_of_an_election_does_not_depose_the_leader():
    assert appointed(leader(), leadership(None), 1, 0.0) == leader()


def test_who_is_told_again_goes_on_as_before():
    again = leadership(committed={"round": 0, "digest": sha(0)})
    assert appointed(leader(), again, 1, 9.0) == leader()


def test_an_election_in_a_higher_term_ends_every_reign():
    said = leadership(None, term=2)
    assert refusal(check_leads, appointed(leader(), said, 2, 0.0), 2) is Word.UNAVAILABLE


@pytest.mark.parametrize(("count", "others"), [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2)])
def test_a_majority_counts_the_leader_itself(count, others):
    who = leader(count=count)
    for number in range(others):
        assert not is_acknowledged(who, COMMIT, 1), f"{number} others are enough of {count}"
        who = heard_from(who, NAMES[number + 1], progress(), 0.0, 1)
    assert is_acknowledged(who, COMMIT, 1)


def test_without_acknowledgement_a_commit_counts_at_once():
    assert is_acknowledged(leader(acknowledgement=Acknowledgement.NONE), COMMIT, 1)


def test_nothing_counts_where_a_higher_term_was_seen():
    assert not is_acknowledged(leader(acknowledgement=Acknowledgement.NONE), COMMIT, 2)


@pytest.mark.parametrize(
    "held",
    [
        None,
        COMMIT.model_copy(update={"round": 2}),
        COMMIT.model_copy(update={"digest": sha(9)}),
        COMMIT.model_copy(update={"term": 2}),
    ],
)
def test_a_standby_that_holds_something_else_acknowledges_nothing(held):
    assert not is_acknowledged(heard_from(leader(), NAMES[1], progress(held), 0.0, 1), COMMIT, 1)


def test_what_an_earlier_leader_stood_for_counts_only_under_a_stamp_of_the_own_term():
    who = heard_from(leader(term=2), NAMES[1], progress(term=2), 0.0, 2)
    assert not is_acknowledged(who, COMMIT, 2)
    stamped = COMMIT.model_copy(update={"term": 2})
    assert is_acknowledged(heard_from(who, NAMES[1], progress(stamped, term=2), 0.0, 2), stamped, 2)


def test_a_complete_record_counts_once_it_is_in_enough_logs():
    who = heard_from(leader(), NAMES[1], progress(closed=2), 0.0, 1)
    assert is_acknowledged(who, COMMIT, 1)
    assert not is_acknowledged(who, COMMIT, 1, closed=True)
    assert is_acknowledged(heard_from(who, NAMES[1], progress(closed=3), 0.0, 1), COMMIT, 1, closed=True)


@pytest.mark.parametrize(
    ("name", "said", "word"),
    [
        ("stranger", progress(), Word.FORBIDDEN),
        (NAMES[0], progress(), Word.FORBIDDEN),
        (NAMES[1], progress(boot_id="another"), Word.WRONG_BOOT),
        (NAMES[1], progress(term=2), Word.NOT_LEADER),
    ],
)
def test_the_leader_hears_its_own_standbys_only(name, said, word):
    assert refusal(heard_from, leader(), name, said, 0.0, 1) is word


def test_a_standby_of_an_earlier_term_is_told_so():
    assert refusal(heard_from, leader(term=2), NAMES[1], progress(), 0.0, 2) is Word.STALE_TERM


def test_what_was_heard_is_forgotten_when_another_one_leads():
    who = heard_from(leader(), NAMES[1], progress(), 0.0, 1)
    assert appointed(who, leadership(NAMES[1], term=2), 2, 0.0).heard == {}
    assert appointed(who, leadership(term=2), 2, 0.0).heard == who.heard


def test_the_leader_says_how_far_each_standby_is_and_since_when_it_is_silent():
    seen = standbys(heard_from(leader(), NAMES[1], progress(), 10.0, 1), 12.5)
    assert [(view.name, view.committed, view.silent_seconds) for view in seen] == [
        (NAMES[1], 3, 2.5),
        (NAMES[2], -1, 12.5),
    ]
