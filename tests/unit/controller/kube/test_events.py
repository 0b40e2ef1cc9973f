"""What is told of a job, and that telling holds nothing up."""

import asyncio

import pytest

from fedjob_operator.adapters.kube.api import EVENTS
from fedjob_operator.adapters.kube.events import BURST, MAX_WAITING, WINDOW_SECONDS, EventWriter, event, happenings
from fedjob_operator.api.v1alpha1 import Clients, CurrentRound, FederatedJobStatus, Phase
from fedjob_protocol.reasons import Reason
from tests.support.builders import JobBuilder, at
from tests.unit.controller.kube.fake_api import FakeApi, refused, unavailable


def status(phase=Phase.RUNNING, reason=Reason.ROUND_IN_PROGRESS, message="", **more):
    return FederatedJobStatus(phase=phase, reason=reason, message=message, **more)


def told(after, before):
    return [(item.reason, item.message, item.is_warning) for item in happenings(after, before)]


def test_a_phase_is_told():
    after = status(message="round 1 is open")
    assert told(after, status(Phase.STARTING)) == [("RoundInProgress", "Starting -> Running: round 1 is open", False)]


@pytest.mark.parametrize("phase", [Phase.FAILED, Phase.WAITING_FOR_CLIENTS])
def test_a_phase_that_needs_somebody_is_a_warning(phase):
    [(reason, _, is_warning)] = told(status(phase, Reason.QUORUM_LOST, "too few"), status())
    assert (reason, is_warning) == ("QuorumLost", True)


def test_complete_is_told():
    [(reason, message, is_warning)] = told(status(Phase.COMPLETE, Reason.ROUNDS_COMPLETED, "all 10"), status())
    assert (reason, message, is_warning) == ("RoundsCompleted", "Running -> Complete: all 10", False)


def test_a_reason_that_needs_somebody_is_told_without_a_change_of_phase():
    after = status(Phase.STARTING, Reason.UNSCHEDULABLE, "0/1 nodes are available")
    before = status(Phase.STARTING, Reason.WAITING_FOR_CLIENTS)
    assert told(after, before) == [("Unschedulable", "0/1 nodes are available", True)]


def test_rounds_that_go_their_way_are_not_told():
    evaluating = status(reason=Reason.EVALUATING, current_round=CurrentRound(number=3))
    opened = status(reason=Reason.ROUND_IN_PROGRESS, current_round=CurrentRound(number=4))
    assert told(evaluating, opened) == told(opened, evaluating) == []


def test_lost_clients_are_named():
    after = status(clients=Clients(desired=30, lost=2, lost_indices=(3, 17)))
    before = status(clients=Clients(desired=30, lost=1, lost_indices=(3,)))
    assert told(after, before) == [("ClientLost", "1 clients count as lost: 17", True)]


def test_very_many_lost_clients_are_not_all_named():
    [(_, message, _)] = told(status(clients=Clients(lost_indices=tuple(range(9000)))), status())
    assert len(message) < 200


@pytest.mark.parametrize("change", [{"attempt": 2}, {"redraw": 1, "attempt": 2}])
def test_a_round_that_is_tried_again_is_told(change):
    [(reason, message, _)] = told(
        status(current_round=CurrentRound(number=3, **change)), status(current_round=CurrentRound(number=3))
    )
    assert (reason, "round 3 is tried again: attempt 2" in message) == ("RoundRetried", True)


def test_what_happened_once_has_one_name():
    job = JobBuilder().build()
    [happening] = happenings(status(Phase.FAILED, Reason.QUORUM_LOST, "x" * 5000), status())
    one, again = event(job, happening, "op-1", at(0)), event(job, happening, "op-2", at(7))
    assert one["metadata"]["name"] == again["metadata"]["name"]
    assert one["involvedObject"]["uid"] == job.metadata.uid
    assert (one["type"], one["reason"], len(one["message"])) == ("Warning", "QuorumLost", 1000)


class Telling:
    def __init__(self):
        self.api = FakeApi()
        self.results = []
        self.seconds = 0.0
        self.writer = EventWriter(
            self.api,
            instance="op",
            clock=lambda: at(self.seconds),
            on_event=self.results.append,
        )

    def tell(self, message):
        job = JobBuilder().build()
        self.writer.tell(job.model_copy(update={"status": status(Phase.FAILED, Reason.QUORUM_LOST, message)}), status())

    async def written(self):
        task = asyncio.get_running_loop().create_task(self.writer.run())
        await self.writer.flush(5)
        task.cancel()
        await asyncio.wait({task})


async def test_events_are_written_in_the_background():
    telling = Telling()
    telling.tell("a")
    assert telling.api.calls == []
    await telling.written()
    assert (telling.api.counts["create", EVENTS.plural], telling.results) == (1, [True])


@pytest.mark.parametrize("error", [unavailable(), refused("not in a namespace that is being terminated")])
async def test_one_that_cannot_be_written_is_dropped_and_the_next_one_written(error):
    telling = Telling()
    telling.api.fail("create", error)
    telling.tell("a")
    telling.tell("b")
    await telling.written()
    assert telling.results == [False, True]


async def test_a_job_that_keeps_changing_does_not_flood_the_cluster():
    telling = Telling()
    for number in range(100):
        telling.tell(f"n{number}")
    await telling.written()
    assert telling.results.count(True) == BURST
    telling.seconds = WINDOW_SECONDS + 1
    telling.tell("later")
    await telling.written()
    assert telling.results.count(True) == BURST + 1


async def test_what_nobody_writes_does_not_pile_up():
    telling = Telling()
    for number in range(2 * MAX_WAITING):
        telling.seconds += WINDOW_SECONDS
        telling.tell(f"n{number}")
    assert telling.results.count(False) == MAX_WAITING
