"""``clientPods: PerRound``: who has a pod when, in which order waves run, and what is made ahead."""

from fedjob_operator.api.v1alpha1 import ConditionStatus, ConditionType, Gpus, Phase, RoundState
from fedjob_operator.core.actions import CreatePod, DeletePod, OpenRound, StartTask, WatchRound
from fedjob_operator.core.observed import PodPhase, PodRole
from fedjob_operator.core.selection import select
from fedjob_protocol.reasons import Reason
from fedjob_protocol.round import RoundState as AggregatorRound
from tests.support.builders import CLUSTER, a_job, at, decided, failure, of_type, only, pod, seen, settled

SCHEDULER = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
JOB = a_job().rounds(5).clients(8, gpus=1).policy(clientsPerRound=4).having(clientPods="PerRound")


def drawn(number, redraw=0):
    return select(seed=7, round_number=number, redraw=redraw, candidates=range(8), count=4)


ONE, TWO = drawn(1), drawn(2)
A, B, C, D = ONE
IN_ROUND = JOB.in_round(1, *ONE)
FOLLOWING = [index for index in TWO if index not in ONE]


def made(decision, role=PodRole.CLIENT):
    return {action.index for action in of_type(decision, CreatePod) if action.role is role}


def released(decision, role=PodRole.CLIENT):
    return {action.index for action in of_type(decision, DeletePod) if action.role is role}


def queued(what, *indices):
    for index in indices:
        what = what.waiting(index, Reason.GPU_UNAVAILABLE, SCHEDULER)
    return what


# The start


def test_before_the_first_round_only_the_client_that_makes_the_model_has_a_pod():
    job, decision = settled(JOB.accepted(), seen().aggregator())
    assert made(decision) == {0}
    assert job.status.phase is Phase.STARTING


def test_the_job_starts_when_that_client_is_ready_and_waits_for_nobody_else():
    job, decision = settled(JOB.accepted(), seen().aggregator().ready(0))
    assert (job.status.start_time, job.status.current_round.selected) == (at(0), (0,))
    assert only(decision, OpenRound).round == 0


def test_the_next_client_makes_it_where_the_first_is_lost():
    _, decision = settled(JOB.accepted(), seen().aggregator().lost(0))
    assert made(decision) == {1}


def test_a_job_that_finds_no_gpu_at_all_gives_up_for_a_while_as_ever():
    what = queued(seen().aggregator(), 0)
    job, _ = settled(JOB.accepted(), what, platform=CLUSTER)
    condition = job.status.condition(ConditionType.CLIENTS_READY)
    assert (condition.status, condition.reason) == (ConditionStatus.FALSE, Reason.GPU_UNAVAILABLE)
    assert condition.message == (
        f"0 of 1 whose turn it is are ready; 1 GPU is missing; client 0: GpuUnavailable: {SCHEDULER}"
    )
    late, _ = settled(job, what, now=at(901), platform=CLUSTER)
    assert late.status.startup.retry_at is not None


# Waves


def test_the_pods_of_those_that_are_selected_are_made_and_no_others():
    assert made(settled(IN_ROUND, seen().aggregator(committed=0))[1]) == set(ONE)


def test_a_round_opens_once_the_others_have_no_room():
    """Two are ready, two wait for a GPU that the two hold: waiting for them would be waiting for ever."""
    what = queued(seen().aggregator(committed=0).ready(A, B), C, D)
    job, decision = settled(JOB.in_round(1, *ONE, state="Provisioning", deadline=None), what, now=at(20))
    assert (job.status.current_round.state, job.status.current_round.deadline) == (RoundState.OPEN, at(3620))
    assert len(only(decision, OpenRound).spec.participants) == 4


def test_a_round_does_not_open_while_one_is_still_starting():
    what = queued(seen().aggregator(committed=0).ready(A, B).starting(C), D)
    job, decision = settled(JOB.in_round(1, *ONE, state="Provisioning", deadline=None), what)
    assert job.status.current_round.state is RoundState.PROVISIONING
    assert decision.wake_at == at(900)


def test_while_there_is_room_for_nobody_no_attempt_is_used_up():
    what = queued(seen().aggregator(committed=0), *ONE)
    job, decision = settled(JOB.in_round(1, *ONE, state="Provisioning", deadline=None), what, now=at(100_000))
    assert (job.status.current_round.attempt, job.status.failed_attempts) == (1, 0)
    assert job.status.reason == Reason.GPU_UNAVAILABLE
    assert not decision.finished


def test_too_few_that_could_ever_be_ready_end_the_attempt():
    what = queued(seen().aggregator(committed=0).ready(A).starting(B, C), D)
    job = JOB.policy(clientsPerRound=4, minReports=3).in_round(1, *ONE, state="Provisioning", deadline=None)
    late = decided(job, what, now=at(900))
    assert late.status.current_round.attempt == 2


def test_whoever_has_reported_gives_its_pod_back_at_once():
    what = queued(seen().aggregator(committed=0).ready(A, B), C, D).round(1, reported=[A], failed=[failure(B)])
    _, decision = settled(IN_ROUND, what)
    assert released(decision) == {A, B}
    assert made(decision) == set()


def test_a_client_that_has_come_to_its_turn_is_given_the_task():
    what = queued(seen().aggregator(committed=0).ready(C), D).round(1, reported=[A, B])
    _, decision = settled(IN_ROUND, what)
    assert only(decision, StartTask).client == C


def test_the_operator_watches_for_every_report():
    what = seen().aggregator(committed=0).ready(C, D).round(1, reported=[A], failed=[failure(B)])
    assert only(settled(IN_ROUND, what)[1], WatchRound).settled == 2
    assert only(settled(a_job().in_round(1, 0), seen().aggregator(committed=0).round(1))[1], WatchRound).settled is None


def test_a_successor_hands_over_its_term_although_half_of_the_round_is_home():
    what = queued(seen().aggregator(committed=0).ready(C), D).round(1, reported=[A, B], term=1)
    _, decision = settled(IN_ROUND.saying(term=2), what)
    assert only(decision, OpenRound).spec.term == 2
    assert made(decision) == set()


def test_an_attempt_that_is_opened_again_says_the_same_whoever_is_there():
    def spec(what):
        return only(settled(IN_ROUND, what)[1], OpenRound).spec

    there = seen().aggregator(committed=0).ready(*ONE)
    assert spec(there) == spec(queued(seen().aggregator(committed=0).ready(A), B, C, D))


def test_nothing_is_made_or_released_before_the_aggregator_was_heard():
    what = seen().pod(pod(PodRole.AGGREGATOR)).ready(A, FOLLOWING[0])
    decision = settled(IN_ROUND, what)[1]
    assert (made(decision), released(decision)) == (set(), set())


def test_after_a_restart_of_the_aggregator_everybody_is_needed_again():
    what = seen().aggregator(committed=0, boot="boot-b").ready(C, D)
    _, decision = settled(IN_ROUND, what)
    assert made(decision) == {A, B}


# Ahead


def test_nobody_is_made_ahead_before_the_round_has_given_something_back():
    what = seen().aggregator(committed=0).ready(*ONE).round(1)
    assert made(settled(IN_ROUND, what)[1]) == set()


def test_for_each_that_reported_one_of_the_next_round_is_made():
    what = seen().aggregator(committed=0).ready(*ONE[1:]).round(1, reported=[A])
    assert made(settled(IN_ROUND, what)[1]) == set(FOLLOWING[:1])
    both = seen().aggregator(committed=0).ready(C, D).round(1, reported=[A, B])
    assert len(made(settled(IN_ROUND, both)[1])) == 2


def test_one_that_is_selected_again_keeps_its_pod():
    again = next(number for number in range(1, 40) if set(drawn(number)) & set(drawn(number + 1)))
    this, following = drawn(again), drawn(again + 1)
    stays = next(index for index in this if index in following)
    others = [index for index in this if index != stays]
    what = seen().aggregator(committed=again - 1).ready(*this).round(again, reported=[stays])
    decision = settled(JOB.rounds(50).in_round(again, *this), what)[1]
    assert stays not in released(decision)
    hungry = seen().aggregator(committed=again - 1).ready(stays, *others[1:])
    hungry = queued(hungry, others[0]).round(again, reported=[stays])
    assert released(settled(JOB.rounds(50).in_round(again, *this), hungry)[1]) == {stays}


def test_who_was_made_ahead_makes_way_for_one_of_the_round_that_waits():
    what = queued(seen().aggregator(committed=0).ready(B, C, *FOLLOWING[:1]), D).round(1, reported=[A])
    assert released(settled(IN_ROUND, what)[1]) == {FOLLOWING[0]}


def test_a_replacement_that_is_starting_takes_nothing_away_from_who_was_made_ahead():
    what = seen().aggregator(committed=0).ready(B, C, *FOLLOWING[:1]).starting(D).round(1, reported=[A])
    decision = settled(IN_ROUND, what)[1]
    assert (made(decision), released(decision)) == (set(), set())


def test_after_the_last_round_nobody_is_made():
    last = drawn(5)
    what = seen().aggregator(committed=4).ready(*last[1:]).round(5, reported=[last[0]])
    assert made(settled(JOB.in_round(5, *last), what)[1]) == set()


# The evaluator

EVALUATED = JOB.evaluated(gpus=1)


def test_the_evaluator_has_a_pod_while_its_round_is_evaluated():
    early = seen().aggregator(committed=0).ready(*ONE).round(1)
    assert made(settled(EVALUATED.in_round(1, *ONE), early)[1], PodRole.EVALUATOR) == set()
    what = seen().aggregator(committed=0).round(1, AggregatorRound.COMMITTED, reported=ONE)
    assert made(settled(EVALUATED.in_round(1, *ONE), what)[1], PodRole.EVALUATOR) == {0}


def test_the_evaluator_is_the_first_to_get_what_the_round_has_given_back():
    what = seen().aggregator(committed=0).ready(*ONE[1:]).round(1, reported=[A])
    decision = settled(EVALUATED.in_round(1, *ONE), what)[1]
    assert made(decision, PodRole.EVALUATOR) == {0}
    assert made(decision) == set()


def test_an_evaluator_that_waits_for_room_is_given_what_was_made_ahead():
    what = seen().aggregator(committed=0).ready(*TWO).round(1, AggregatorRound.COMMITTED, reported=ONE)
    what = what.waiting(0, Reason.GPU_UNAVAILABLE, SCHEDULER, PodRole.EVALUATOR)
    assert released(settled(EVALUATED.in_round(1, *ONE), what)[1]) == set(TWO)


def test_between_evaluations_it_has_none():
    job = JOB.evaluated(gpus=1, periodRounds=2).in_round(1, *ONE)
    what = seen().aggregator(committed=0).ready(*ONE[1:]).evaluator().round(1, reported=[A])
    assert released(settled(job, what)[1], PodRole.EVALUATOR) == {0}


# Lost clients


def test_a_lost_client_stays_lost_between_its_turns():
    out = next(index for index in range(8) if index not in ONE)
    what = seen().aggregator(committed=0).ready(*ONE).lost(out).round(1)
    job, decision = settled(IN_ROUND, what)
    assert released(decision) == set()
    assert job.status.clients.lost_indices == (out,)


def test_a_pod_that_ended_and_is_not_needed_any_more_is_removed():
    what = seen().aggregator(committed=0).ready(*ONE[1:]).exited(index=A).round(1, reported=[A])
    assert A in released(settled(IN_ROUND, what)[1])


def test_a_client_that_no_node_has_a_gpu_for_is_replaced_for_ever():
    ended = seen().aggregator(committed=0).exited(index=A, ordinal=3, reason=Reason.GPU_UNAVAILABLE, message="none")
    decision = settled(IN_ROUND, ended, now=at(60))[1]
    assert CreatePod(role=PodRole.CLIENT, index=A, ordinal=4) in decision.actions


def test_a_round_goes_on_while_fewer_than_enough_are_lost():
    job = JOB.having(minClients=6).committed(0)
    assert settled(job, seen().aggregator(committed=0).lost(0, 1))[0].status.current_round is not None
    waits = settled(job, seen().aggregator(committed=0).lost(0, 1, 2))[0].status
    assert waits.phase is Phase.WAITING_FOR_CLIENTS
    assert "5 of 6 needed clients are left" in waits.message


def test_after_an_attempt_without_quorum_the_next_choice_is_tried():
    job = JOB.policy(clientsPerRound=4, maxAttempts=1).in_round(1, *ONE)
    what = seen().aggregator(committed=0).round(1, AggregatorRound.ABANDONED, failed=[failure(index) for index in ONE])
    assert made(decided(job, what)) == set()
    again = JOB.in_round(1, *ONE)
    assert decided(again, what).status.current_round.selected == drawn(1, redraw=1)


# What people are told


def test_gpus_are_those_of_whose_turn_it_is():
    what = queued(seen().aggregator(committed=0).ready(C), D).round(1, reported=[A, B])
    what = what.pod(pod(index=C, gpus_held=1))
    job, _ = settled(IN_ROUND, what, platform=CLUSTER)
    assert job.status.gpus == Gpus(requested=2, held=1, waiting=1)
    assert job.status.summary.gpus == "1/2"


def test_who_waits_for_its_turn_is_told_of_while_others_train():
    what = queued(seen().aggregator(committed=0).ready(A, B), C, D).round(1)
    job, _ = settled(IN_ROUND, what, platform=CLUSTER)
    condition = job.status.condition(ConditionType.CLIENTS_READY)
    assert (condition.status, condition.reason) == (ConditionStatus.TRUE, Reason.GPU_UNAVAILABLE)
    assert condition.message.startswith("2 of 4 whose turn it is are ready; 2 GPUs are missing; client ")
    assert (job.status.phase, job.status.reason) == (Phase.RUNNING, Reason.ROUND_IN_PROGRESS)


def test_a_quota_that_is_used_up_is_waiting_for_room_too():
    what = seen().aggregator(committed=0).ready(A)
    for index in (B, C, D):
        action = CreatePod(role=PodRole.CLIENT, index=index, ordinal=0)
        what = what.failing(action, Reason.QUOTA_EXCEEDED, "exceeded quota")
    job, _ = settled(JOB.in_round(1, *ONE, state="Provisioning", deadline=None), what)
    assert job.status.current_round.state is RoundState.OPEN


def test_a_client_whose_old_pod_is_going_away_waits_until_it_is_gone():
    what = seen().aggregator(committed=0).ready(*ONE[1:]).pod(pod(index=A, phase=PodPhase.STOPPING))
    assert made(settled(IN_ROUND, what)[1]) == set()
