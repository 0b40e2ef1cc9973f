"""Which of several aggregators leads."""

from dataclasses import replace
from datetime import timedelta

import pytest

from fedjob_operator.api.v1alpha1 import AggregatorStatus, ConditionType, CurrentRound, Phase, RoundState
from fedjob_operator.core.actions import Appoint, CreatePod, OpenRound, ReadState, WatchRound
from fedjob_operator.core.conditions import finish
from fedjob_operator.core.decide import decide
from fedjob_operator.core.observed import PodPhase, PodRole, ReplicaSeen
from fedjob_protocol.messages import AggregatorState, CheckpointInfo, RoundView
from fedjob_protocol.reasons import Reason
from fedjob_protocol.replicas import Commit, ReplicaRole, ReplicationView, ReplicaView, StandbyView
from fedjob_protocol.round import RoundState as AggregatorRound
from tests.support.builders import (
    CLUSTER,
    EPOCH,
    UID,
    a_job,
    at,
    chain_digest,
    decided,
    of_type,
    only,
    pod,
    seen,
    settled,
)

TERM = 3


def a_standby_job(replicas=3, ack="Majority"):
    return a_job().rounds(9).clients(2).having(aggregator={"replicas": replicas, "replication": {"ack": ack}})


def running(committed=1, *, leader=0, boot="boot-0"):
    """A job in the middle of its rounds, led by one of its aggregators."""
    known = AggregatorStatus(
        leader=f"job-aggregator-{leader}-0", uid=f"aggregator-{leader}-0", boot_id=boot, replicas=3
    )
    return a_standby_job().committed(committed).saying(term=TERM, aggregator=known)


def electing(committed=1, job=None):
    """A job whose leader was deposed in a term that was claimed for it."""
    return (
        (job or a_standby_job())
        .committed(committed)
        .saying(term=TERM, aggregator=AggregatorStatus(replicas=3), start_time=EPOCH)
    )


def commit(number, *, term=1, digest=None, parent=None):
    if number < 0:
        return None
    before = chain_digest(number - 1) if number else None
    return Commit(round=number, digest=digest or chain_digest(number), parent=parent or before, term=term)


def holding(
    newest, *, index=0, boot=None, term=TERM, told=TERM, leader=None, role=ReplicaRole.STANDBY, view=None, closed=-1
):
    """What an aggregator says: what it holds, which term it has seen, and who leads as far as it knows."""
    replica = ReplicaView(name=f"aggregator-{index}", role=role, leader=leader, term=told, newest=newest, closed=closed)
    info = None
    if newest is not None:
        info = CheckpointInfo(round=newest.round, digest=newest.digest, parent=newest.parent, bytes=1000)
    state = AggregatorState(
        protocol=1,
        version="0",
        job_uid=UID,
        term=term,
        boot_id=boot or f"boot-{index}",
        committed=info,
        replica=replica,
    )
    return ReplicaSeen(state=state, round=view)


def world(*said, clients=(0, 1)):
    """Aggregators in the order of their index, each with what it said; `None` for one that has not said anything."""
    what = seen().ready(*clients)
    replicas = {}
    for index, item in enumerate(said):
        what = what.pod(pod(PodRole.AGGREGATOR, index))
        if item is not None:
            replicas[f"aggregator-{index}-0"] = item
    return replace(what, observed=replace(what.observed, replicas=replicas))


def followers(number=1, leader="aggregator-0"):
    """A leader and two standbys that know it."""
    leading = holding(commit(number), leader=leader, role=ReplicaRole.LEADER)
    return leading, *(holding(commit(number), index=index, leader=leader) for index in (1, 2))


def test_every_aggregator_gets_a_pod_and_is_asked_what_it_holds():
    decision = decided(a_standby_job().accepted(), seen())
    made = [action for action in of_type(decision, CreatePod) if action.role is PodRole.AGGREGATOR]
    assert [(action.index, action.ordinal) for action in made] == [(0, 0), (1, 0), (2, 0)]
    asked = of_type(decided(a_standby_job().accepted(), world(None, None, None)), ReadState)
    assert [action.incarnation for action in asked] == [f"aggregator-{index}-0" for index in range(3)]


def test_a_job_with_one_aggregator_appoints_nobody():
    assert of_type(decided(a_job().clients(2), seen().aggregator().ready(0, 1)), Appoint) == []


def test_a_term_is_claimed_before_anybody_is_asked():
    status = decided(
        a_standby_job().accepted(term=TERM), world(*(holding(None, index=i, told=0) for i in range(3)))
    ).status
    assert (status.term, status.aggregator.boot_id) == (TERM + 1, None)


def test_an_election_binds_everybody_who_is_ready_to_its_term():
    decision = decided(electing(), world(*(holding(commit(1), index=index, told=0) for index in range(3))))
    assert decision.status.aggregator.boot_id is None
    said = [action.leadership for action in of_type(decision, Appoint)]
    assert [(item.term, item.leader) for item in said] == [(TERM, None)] * 3


@pytest.mark.parametrize(("replicas", "needed"), [(2, 2), (3, 2), (4, 3), (5, 3)])
def test_a_leader_is_chosen_once_a_majority_is_bound(replicas, needed):
    job = electing(job=a_standby_job(replicas))
    for bound in range(replicas):
        said = [holding(commit(1), index=i, told=TERM if i < bound else 0) for i in range(replicas)]
        chosen = decided(job, world(*said)).status.aggregator.boot_id
        assert (chosen is not None) == (bound >= needed), f"{bound} of {replicas}"


def test_the_most_advanced_of_those_that_are_bound_is_chosen_and_then_told_to_lead():
    said = (holding(commit(1), index=0), holding(commit(2, term=2), index=1), holding(commit(2, term=1), index=2))
    job, decision = settled(running_round(electing()), world(*said))
    known = job.status.aggregator
    assert (known.leader, known.uid, known.boot_id) == ("job-aggregator-1-0", "aggregator-1-0", "boot-1")
    told = [action.leadership for action in of_type(decision, Appoint)]
    assert {(item.leader, item.leader_boot_id, item.leader_url) for item in told} == {
        ("aggregator-1", "boot-1", "http://aggregator-1-0")
    }
    assert [item.committed.round for item in told] == [1, 1, 1]
    assert of_type(decision, OpenRound) == [], "before the leader knows that it leads"


@pytest.mark.parametrize("stamp", [1, 2], ids=["the same stamp", "an earlier stamp of the same model"])
def test_of_those_that_hold_the_same_model_one_with_its_complete_record_is_chosen(stamp):
    """Else the round's metrics, which the status has already, would be missing from the round log."""
    said = (
        holding(commit(1, term=2), index=0, closed=0),
        holding(commit(1, term=stamp), index=1, closed=1),
        holding(commit(1, term=2, digest=chain_digest(9)), index=2, closed=1),
    )
    job, _ = settled(electing(), world(*said))
    assert job.status.aggregator.leader == "job-aggregator-1-0"


def test_a_complete_record_of_a_model_that_another_replaced_counts_for_nothing():
    said = (
        holding(commit(2, term=1, digest=chain_digest(9)), index=0, closed=2),
        holding(commit(2, term=2), index=1, closed=1),
    )
    job, _ = settled(running_round(electing()), world(*said))
    assert job.status.aggregator.leader == "job-aggregator-1-0"


def running_round(job, number=2):
    current = CurrentRound(
        number=number, selected=(0, 1), boot_id="boot-0", state=RoundState.OPEN, started_at=EPOCH, deadline=at(3600)
    )
    return job.saying(current_round=current)


@pytest.mark.parametrize(
    "behind",
    [
        commit(0),
        None,
        commit(1, digest=chain_digest(9)),
        commit(2, parent=chain_digest(9)),
        commit(3),
    ],
    ids=["a round behind", "empty", "another model", "on top of another model", "too far ahead"],
)
def test_who_does_not_hold_what_is_committed_is_never_promoted(behind):
    job = running_round(electing())
    said = [holding(behind, index=0), holding(behind, index=1), None]
    waiting = decided(job, world(*said))
    assert waiting.status.aggregator.boot_id is None
    assert waiting.status.phase is not Phase.FAILED
    all_of_them = decided(job, world(*said[:2], holding(behind, index=2)))
    assert (all_of_them.status.phase, all_of_them.status.reason) == (Phase.FAILED, Reason.CHECKPOINT_LOST)


def test_the_status_says_why_nobody_is_promoted():
    what = world(holding(commit(0), index=0), holding(commit(0), index=1))
    what = what.pod(pod(PodRole.AGGREGATOR, 2, phase=PodPhase.STARTING))
    condition = decided(electing(), what).status.condition(ConditionType.AGGREGATOR_READY)
    assert condition.reason == Reason.WAITING_FOR_STANDBYS
    assert "none of 2 aggregators that answer holds round 1" in condition.message


def test_too_few_aggregators_are_a_reason_to_wait():
    what = world(holding(commit(1), index=0))
    status = decided(electing(), what).status
    assert status.condition(ConditionType.AGGREGATOR_READY).reason == Reason.WAITING_FOR_STANDBYS
    assert "1 of 3 aggregators are ready, 2 are needed" in status.message


def test_without_acknowledgement_one_that_holds_what_is_committed_is_enough():
    job = electing(job=a_standby_job(ack="None"))
    assert decided(job, world(holding(commit(1), index=0), None, None)).status.aggregator.boot_id == "boot-0"
    assert decided(job, world(holding(commit(0), index=0), None, None)).status.aggregator.boot_id is None


def test_rounds_go_on_under_a_leader_that_knows_that_it_leads():
    assert only(decided(running_round(running()), world(*followers())), OpenRound).spec.term == TERM


@pytest.mark.parametrize(
    "what",
    [
        world(*followers()).exited(PodRole.AGGREGATOR, 0),
        world(*followers()).stopping(0, role=PodRole.AGGREGATOR),
        world(*followers()).pod(pod(PodRole.AGGREGATOR, 0, ordinal=1)),
        world(holding(commit(1), boot="another"), *followers()[1:]),
    ],
    ids=["killed", "deleted", "replaced", "restarted in place"],
)
def test_a_leader_that_is_gone_is_deposed_in_a_term_of_its_own(what):
    status = decided(running(), what).status
    assert (status.term, status.aggregator.boot_id, status.aggregator.leader) == (TERM + 1, None, None)
    assert status.condition(ConditionType.AGGREGATOR_READY).reason == Reason.LEADER_LOST


def test_a_leader_that_does_not_answer_for_a_while_is_deposed():
    job = running_round(running())
    what = world(*followers())
    asked = only(decided(job, what), OpenRound)
    silent = what.failing(asked)
    assert decided(job, silent, now=EPOCH + timedelta(seconds=4)).status.term == TERM
    assert decided(job, silent, now=EPOCH + timedelta(seconds=5)).status.term == TERM + 1


def test_a_leader_that_refuses_to_lead_is_deposed():
    what = world(*(holding(commit(1), index=index, told=0) for index in range(3)))
    told = only(decided(running(), what), Appoint, lambda action: action.incarnation == "aggregator-0-0")
    assert decided(running(), what.failing(told, "wrong-base")).status.term == TERM + 1


def test_a_leader_whose_disk_is_full_is_a_reason_of_its_own():
    what = world(*(holding(commit(1), index=index, told=0) for index in range(3)))
    told = only(decided(running(), what), Appoint, lambda action: action.incarnation == "aggregator-0-0")
    status = decided(running(), what.failing(told, "storage-full", "no space left")).status
    assert (status.term, status.reason) == (TERM, Reason.CHECKPOINT_FAILED)
    assert "no space left" in status.message


def test_a_new_operator_appoints_the_same_leader_in_its_term_and_the_round_stays_open():
    said = [replace(item, state=item.state.model_copy(update={"term": TERM - 1})) for item in followers()]
    decision = decided(running_round(running()), world(*said))
    assert decision.status.aggregator.boot_id == "boot-0"
    assert decision.status.current_round.attempt == 1


def test_a_higher_term_of_any_aggregator_is_claimed_over():
    said = (*followers()[:2], holding(commit(1), index=2, term=9, told=9))
    assert decided(running(), world(*said)).status.term == 10


def test_a_new_leader_tries_the_round_again_with_the_same_participants():
    job = running_round(running(leader=1, boot="boot-1"))
    leading = holding(commit(1), index=1, leader="aggregator-1", role=ReplicaRole.LEADER)
    others = [holding(commit(1), index=index, leader="aggregator-1") for index in (0, 2)]
    current = decided(job, world(others[0], leading, others[1])).status.current_round
    assert (current.attempt, current.selected, current.boot_id) == (2, (0, 1), "boot-1")


def test_a_round_that_waits_for_standbys_is_watched_and_the_status_says_so():
    view = RoundView(
        round=2,
        state=AggregatorRound.COMMITTING,
        term=TERM,
        attempt=1,
        boot_id="boot-0",
        replication=ReplicationView(holders=1, needed=2, seconds=6.0),
        standbys=[StandbyView(name="aggregator-1", committed=1, silent_seconds=30.0)],
    )
    leading, *others = followers()
    decision = decided(running_round(running()), world(replace(leading, round=view), *others))
    assert only(decision, WatchRound).round == 2
    assert (decision.status.condition(ConditionType.PROGRESSING).reason) == Reason.REPLICATION_PENDING
    assert "on 1 of 2 needed aggregators" in decision.status.condition(ConditionType.PROGRESSING).message
    (standby,) = decision.status.aggregator.standbys
    assert (standby.committed, standby.silent_since) == (1, EPOCH - timedelta(seconds=30))
    told = only(decision, Appoint)
    assert told.incarnation == "aggregator-1-0", "a silent standby is told again whom it follows"


def test_the_folder_of_another_job_fails_the_job_whoever_has_it():
    foreign = holding(commit(1), index=2)
    foreign = replace(foreign, state=foreign.state.model_copy(update={"job_uid": "another"}))
    status = decided(running(), world(*followers()[:2], foreign)).status
    assert (status.phase, status.reason) == (Phase.FAILED, Reason.FOREIGN_VOLUME)


def test_a_finished_job_keeps_the_aggregator_that_led():
    job = running(leader=1, boot="boot-1").build()
    over = finish(job.status, failed=False, reason=Reason.ROUNDS_COMPLETED, message="", now=EPOCH)
    decision = decide(job.model_copy(update={"status": over}), world(*followers()).observed, EPOCH, platform=CLUSTER)
    kept = {(action.role, action.index) for action in decision.actions if hasattr(action, "ordinal")}
    assert (PodRole.AGGREGATOR, 0) in kept
    assert (PodRole.AGGREGATOR, 2) in kept
    assert (PodRole.AGGREGATOR, 1) not in kept
