"""Clients that somebody had replaced: the next pod takes the index, once, and with a fresh count."""

from dataclasses import replace

import pytest

from fedjob_operator.core.actions import CreatePod, DeletePod, ListReplaced
from fedjob_operator.core.observed import PodRole
from fedjob_operator.observations import Observations
from fedjob_protocol.clients import ReplacedClient, ReplacedClients
from fedjob_protocol.round import RoundState as AggregatorRound
from tests.support.builders import a_job, at, decided, of_type, only, pod, seen, settled

CLAIMS = [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]
JOB = a_job().clients(3).committed(0)
TWO = seen().aggregator(committed=0).ready(0, 1)
LOST = TWO.lost(2)


def asked(what, **replaced):
    wishes = {int(key.removeprefix("client_")): count for key, count in replaced.items()}
    return replace(what, observed=replace(what.observed, replaced=wishes))


def noted(job):
    return [(entry.index, entry.generation, entry.first_ordinal) for entry in job.status.clients.replaced]


def test_a_lost_client_is_replaced_by_the_next_pod_with_a_fresh_count():
    job, decision = settled(JOB, asked(LOST, client_2=1))
    assert noted(job) == [(2, 1, 4)]
    assert only(decision, CreatePod).key == "create/client/2/4"
    assert only(decision, DeletePod).key == "delete/client/2/3"
    assert job.status.clients.lost_indices == ()
    again = asked(TWO.exited(index=2, ordinal=4 + 2), client_2=1)
    assert only(settled(job, again, now=at(100))[1], CreatePod).ordinal == 7
    lost_again, _ = settled(job, asked(TWO.exited(index=2, ordinal=4 + 3), client_2=1), now=at(100))
    assert lost_again.status.clients.lost_indices == (2,)


def test_the_intent_is_written_before_anything_is_done():
    first = decided(JOB, asked(LOST, client_2=1))
    assert first.status.clients.replaced != ()
    assert first.actions == ()


def test_a_client_that_is_ready_is_replaced_too():
    job, decision = settled(JOB, asked(TWO.ready(2), client_2=1))
    assert noted(job) == [(2, 1, 1)]
    assert only(decision, CreatePod).key == "create/client/2/1"
    assert only(decision, DeletePod).key == "delete/client/2/0"
    assert job.status.clients.ready == 2


def test_the_replacement_is_not_replaced_however_often_the_wish_is_heard():
    job, _ = settled(JOB, asked(LOST, client_2=1))
    there = asked(TWO.ready(2, ordinal=4), client_2=1)
    after, decision = settled(job, there)
    assert noted(after) == noted(job)
    assert of_type(decision, DeletePod) == []
    assert of_type(decision, CreatePod) == []


def test_a_further_generation_replaces_the_replacement():
    job, _ = settled(JOB, asked(LOST, client_2=1))
    after, decision = settled(job, asked(TWO.ready(2, ordinal=4), client_2=2))
    assert noted(after) == [(2, 2, 5)]
    assert only(decision, CreatePod).ordinal == 5


def test_a_replacement_that_somebody_deletes_comes_back_under_its_own_ordinal():
    job, _ = settled(JOB, asked(LOST, client_2=1))
    assert only(settled(job, asked(TWO, client_2=1))[1], CreatePod).ordinal == 4


def test_an_aggregator_that_forgot_the_wish_changes_nothing():
    job, _ = settled(JOB, asked(LOST, client_2=1))
    after, decision = settled(job, TWO.ready(2, ordinal=4))
    assert noted(after) == noted(job)
    assert of_type(decision, CreatePod) == []


def test_a_client_with_a_volume_of_its_own_is_replaced_once_the_old_pod_is_gone():
    job = a_job().clients(3, volumeClaimTemplates=CLAIMS).committed(0)
    job, decision = settled(job, asked(TWO.ready(2), client_2=1))
    assert of_type(decision, CreatePod) == []
    assert only(decision, DeletePod).key == "delete/client/2/0"
    assert of_type(settled(job, asked(TWO.stopping(2), client_2=1))[1], CreatePod) == []
    assert only(settled(job, asked(TWO, client_2=1))[1], CreatePod).ordinal == 1


@pytest.mark.parametrize("wish", [{"client_7": 1}, {"client_2": 0}], ids=["no such client", "never"])
def test_what_means_nobody_changes_nothing(wish):
    assert noted(settled(JOB, asked(LOST, **wish))[0]) == []


def test_who_replaces_is_asked_while_clients_are_missing_and_told_by_an_open_round():
    waiting = settled(JOB, LOST)[1]
    assert only(waiting, ListReplaced).incarnation == "aggregator-0-0"
    everybody = settled(JOB, TWO.ready(2))[1]
    assert of_type(everybody, ListReplaced) == []
    open_round = JOB.in_round(1, 0, 1)
    assert of_type(settled(open_round, LOST.round(1, AggregatorRound.OPEN))[1], ListReplaced) == []


def test_both_answers_are_learnt_and_stay_known_when_the_aggregator_is_another():
    wish = [ReplacedClient(client=2, generation=1)]
    observations = Observations()
    observations.look((pod(PodRole.AGGREGATOR),))
    ask = ListReplaced(url="http://a", incarnation="aggregator-0-0")
    observations.learn(ask, ReplacedClients(clients=wish))
    assert observations.look((pod(PodRole.AGGREGATOR, ordinal=1),)).replaced == {2: 1}
