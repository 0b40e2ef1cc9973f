"""Orders for training sessions: one at a time, taken by whoever drives them, or refused with the reason."""

import asyncio

import pytest

from fedjob_aggregator.registrations import Registrations
from fedjob_aggregator.registry import Applicant, Limits
from fedjob_aggregator.settings import open_registration
from fedjob_aggregator.training_desk import TrainingDesk
from fedjob_protocol.errors import Refusal, Word
from fedjob_protocol.sessions import SessionReport, SessionState, TrainingRequest
from tests.support.builders import at

IDLE = SessionReport(state=SessionState.IDLE, session=4)
BUSY = SessionReport(state=SessionState.CLIENTS_TRAINING, session=5, message="round 7 of 9")


@pytest.fixture
async def desk(tmp_path):
    registrations = Registrations(tmp_path, open_registration(Limits()), token=None, wall_clock=lambda: at(0))
    await registrations.register(Applicant(url="http://a", boot_id="a", peer="me"))
    return TrainingDesk(registrations)


async def refused(desk):
    with pytest.raises(Refusal) as caught:
        await desk.ask(TrainingRequest())
    return caught.value


async def test_an_order_is_handed_to_the_driver_and_the_asker_hears_once_it_is_taken(desk):
    await desk.exchange(IDLE, 0)
    waiting = asyncio.create_task(desk.exchange(IDLE, 20))
    asking = asyncio.create_task(desk.ask(TrainingRequest(rounds=2)))
    order = await waiting
    assert (order.session, order.request.rounds, order.clients) == (5, 2, 1)
    assert not asking.done()
    assert desk.state is SessionState.CLIENTS_TRAINING
    assert (await refused(desk)).word is Word.TRAINING_IN_PROGRESS
    assert (await desk.exchange(BUSY, 0)).session is None
    assert (await asking).session == 5


async def test_while_one_runs_a_second_is_refused_with_what_it_does(desk):
    await desk.exchange(BUSY, 0)
    refusal = await refused(desk)
    assert refusal.word is Word.TRAINING_IN_PROGRESS
    assert refusal.detail == "CLIENTS_TRAINING: a session is under way: round 7 of 9"


async def test_without_a_driver_nothing_is_promised(desk, monkeypatch):
    monkeypatch.setattr("fedjob_aggregator.training_desk.FIRST_SECONDS", 0.01)
    monkeypatch.setattr("fedjob_aggregator.training_desk.TAKE_SECONDS", 0.01)
    assert "nobody drives" in (await refused(desk)).detail
    await desk.exchange(IDLE, 0)
    assert "not taken in time" in (await refused(desk)).detail
    assert desk.state is SessionState.IDLE


async def test_nobody_to_train_with_is_said(tmp_path):
    registrations = Registrations(tmp_path, open_registration(Limits()), token=None, wall_clock=lambda: at(0))
    desk = TrainingDesk(registrations)
    await desk.exchange(IDLE, 0)
    assert "0 clients are registered" in (await refused(desk)).detail


async def test_a_session_that_cannot_begin_is_refused_at_once_with_the_reason_and_can_be_asked_for_again(desk):
    await desk.exchange(IDLE, 0)
    asking = asyncio.create_task(desk.ask(TrainingRequest()))
    assert (await desk.exchange(IDLE, 20)).session == 5
    waiting = asyncio.create_task(desk.exchange(IDLE.model_copy(update={"refused": "the disk is full"}), 20))
    with pytest.raises(Refusal, match="the session cannot begin: the disk is full") as caught:
        await asking
    assert caught.value.word is Word.UNAVAILABLE
    assert desk.state is SessionState.IDLE
    assert not waiting.done()
    again = asyncio.create_task(desk.ask(TrainingRequest(rounds=3)))
    order = await waiting
    assert (order.session, order.request.rounds) == (5, 3)
    await desk.exchange(BUSY, 0)
    assert (await again).session == 5
