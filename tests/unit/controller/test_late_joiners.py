"""Clients that become ready only after the start, where a job refuses them."""

from fedjob_operator.core.actions import CreatePod, DeletePod
from fedjob_operator.core.selection import select
from tests.support.builders import a_job, at, decided, of_type, only, seen, settled

JOB = a_job().clients(4).having(minClients=2, joinWaitSeconds=10).policy(clientsPerRound=2, minReports=1)
REFUSING = JOB.having(lateJoiners="Refuse")
TWO = seen().aggregator().ready(1, 3).starting(0, 2)


def begun(job=REFUSING):
    return settled(job, TWO, now=at(10))[0]


def test_who_is_not_ready_at_the_start_is_written_down():
    assert begun().status.clients.late_indices == (0, 2)
    assert begun(JOB).status.clients.late_indices == ()


def test_their_pods_are_given_back_and_not_made_again():
    decision = decided(begun(), TWO, now=at(10))
    assert {action.index for action in of_type(decision, DeletePod)} == {0, 2}
    without = decided(begun(), seen().aggregator().ready(1, 3), now=at(10))
    assert of_type(without, CreatePod) == []


def test_they_are_never_selected():
    job = begun()
    for number in range(1, 6):
        status = job.status.model_copy(
            update={
                "current_round": None,
                "rounds": job.status.rounds.model_copy(update={"committed": number - 1}),
                "model": a_job().committed(number - 1).status.model,
            }
        )
        spec = job.spec.model_copy(update={"rounds": 9})
        next_round = job.model_copy(update={"status": status, "spec": spec})
        there = seen().aggregator(committed=number - 1).ready(0, 1, 2, 3)
        current = settled(next_round, there, now=at(10))[0].status.current_round
        assert current.selected == (1, 3)


def test_others_are_chosen_as_without_them():
    wanted = select(seed=7, round_number=1, redraw=0, candidates=[0, 1, 3], count=2)
    three = settled(REFUSING, seen().aggregator().ready(0, 1, 3).starting(2), now=at(10))[0]
    assert three.status.clients.late_indices == (2,)
    committed = seen().aggregator(committed=0).ready(0, 1, 3).round(0, "Evaluated", reported=[0])
    assert settled(three, committed, now=at(11))[0].status.current_round.selected == wanted


def test_a_client_of_the_start_whose_pod_is_replaced_stays_one():
    what = seen().aggregator().ready(3).exited(index=1)
    assert only(decided(begun(), what, now=at(20)), CreatePod).index == 1


def test_the_refused_are_counted_as_declared():
    assert (begun().status.clients.desired, begun().status.clients.ready) == (4, 2)


# Accepted, and never there

WAITING = JOB.in_round(1, 0, 1, state="Provisioning", deadline=None)


def state_at(seconds: float, what=None):
    job = settled(WAITING, what or seen().aggregator(committed=0).ready(1, 3).starting(0, 2), now=at(seconds))[0]
    return job.status.current_round.state


def test_a_round_waits_for_a_client_that_never_came_as_long_as_the_start_did():
    assert [state_at(seconds) for seconds in (0, 9.9, 10)] == ["Provisioning", "Provisioning", "Open"]


def test_the_wait_ends_when_the_decision_says_so():
    assert decided(WAITING, seen().aggregator(committed=0).ready(1, 3).starting(0, 2), now=at(2)).wake_at == at(10)


def test_with_fewer_than_min_clients_ready_a_round_waits_for_their_pods():
    assert state_at(899, seen().aggregator(committed=0).ready(1).starting(0, 2, 3)) == "Provisioning"
