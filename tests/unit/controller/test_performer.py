"""Actions in the background: once at a time, held back after failures, cancelled at the end."""

import asyncio
import logging

from fedjob_operator.core.actions import CreatePod, DeletePod, ReadState
from fedjob_operator.core.observed import PodRole
from fedjob_operator.observations import Observations
from fedjob_operator.performer import FIRST_DELAY_SECONDS, MAX_DELAY_SECONDS, SEEN_SECONDS, Performer
from fedjob_operator.ports import CallError
from tests.support.builders import a_job, pod, seen
from tests.support.ports import FakePods, FakePrograms, FakeStore
from tests.support.virtual_time import now, run, settle

JOB = a_job().build()
READ = ReadState(url="http://a", incarnation="aggregator-0-0")
STATE = seen().aggregator().observed.state
PODS = (pod(PodRole.AGGREGATOR),)


class Stage:
    """A performer among fakes."""

    def __init__(self):
        self.pods, self.programs, self.observations = FakePods(), FakePrograms(), Observations()
        self.observations.look(PODS)
        self.wakes, self.woken = 0, asyncio.Event()
        self.performer = Performer(
            store=FakeStore(JOB),
            pods=self.pods,
            programs=self.programs,
            observations=self.observations,
            wake=self.wake,
            clock=now,
        )

    def wake(self):
        self.wakes += 1
        self.woken.set()

    async def start(self, action=READ):
        self.performer.start(JOB, action)
        await settle()


def test_an_answer_is_learned_and_wakes_the_loop():
    async def scenario():
        stage = Stage()
        await stage.start()
        assert stage.wakes == 0
        stage.programs.answer(READ.key, STATE)
        await settle()
        assert stage.observations.look(PODS).state == STATE
        assert stage.wakes == 1

    run(scenario())


def test_what_is_under_way_is_not_started_again():
    async def scenario():
        stage = Stage()
        await stage.start()
        await stage.start()
        assert stage.programs.called() == [READ.key]
        stage.programs.answer(READ.key, STATE)
        await settle()
        await stage.start()
        assert stage.programs.called() == [READ.key, READ.key]
        await stage.performer.close()

    run(scenario())


def test_other_actions_do_not_wait_for_one_that_hangs():
    async def scenario():
        stage = Stage()
        await stage.start()
        await stage.start(CreatePod(role=PodRole.CLIENT, index=0, ordinal=0))
        assert len(stage.pods.created) == 1
        await stage.performer.close()

    run(scenario())


def test_a_failure_is_shown_and_held_back_and_then_tried_again():
    async def scenario():
        stage = Stage()
        await stage.start()
        stage.programs.fail(READ.key, CallError("refused", word="wrong-job"))
        await settle()
        failure = stage.observations.look(PODS).failures[READ.key]
        assert (failure.word, failure.message, failure.since) == ("wrong-job", "refused", now())
        assert stage.wakes == 1
        await stage.start()
        assert len(stage.programs.calls) == 1
        await asyncio.sleep(FIRST_DELAY_SECONDS)
        assert stage.wakes == 2
        await stage.start()
        assert len(stage.programs.calls) == 2
        await stage.performer.close()

    run(scenario())


def test_failures_are_held_back_longer_and_longer_but_not_for_ever():
    async def scenario():
        stage, loop = Stage(), asyncio.get_running_loop()
        waits = []
        for _ in range(12):
            await stage.start()
            failed = loop.time()
            stage.programs.fail(READ.key)
            await settle()
            stage.woken.clear()
            await stage.woken.wait()
            waits.append(loop.time() - failed)
        for count, waited in enumerate(waits):
            most = min(FIRST_DELAY_SECONDS * 2**count, MAX_DELAY_SECONDS)
            assert most / 2 - 1e-6 <= waited <= most + 1e-6

    run(scenario())


def test_a_success_ends_the_row_of_failures():
    async def scenario():
        stage = Stage()
        for answers in (False, False, True, False):
            await stage.start()
            if answers:
                stage.programs.answer(READ.key, STATE)
            else:
                stage.programs.fail(READ.key)
            await asyncio.sleep(MAX_DELAY_SECONDS)
        wakes = stage.wakes
        await stage.start()
        stage.programs.fail(READ.key)
        await settle()
        await asyncio.sleep(2 * FIRST_DELAY_SECONDS)
        assert stage.wakes == wakes + 2

    run(scenario())


def test_a_bug_is_shown_and_tried_again_and_ends_nothing(caplog):
    async def scenario():
        stage = Stage()
        stage.pods.problem = ZeroDivisionError("division by zero")
        create = CreatePod(role=PodRole.CLIENT, index=0, ordinal=0)
        await stage.start(create)
        failure = stage.observations.look(PODS).failures[create.key]
        assert (failure.word, failure.message) == (None, "ZeroDivisionError: division by zero")
        await asyncio.sleep(FIRST_DELAY_SECONDS)
        await stage.start(create)
        assert stage.pods.created == [create]

    with caplog.at_level(logging.ERROR):
        run(scenario())
    assert "performing create/client/0/0 failed" in caplog.text


def test_pods_are_created_and_deleted_once_until_that_can_be_seen():
    """The watch that shows a new pod may lag behind, and the decision asks for it again meanwhile."""

    async def scenario():
        stage = Stage()
        create = CreatePod(role=PodRole.CLIENT, index=0, ordinal=0)
        delete = DeletePod(role=PodRole.CLIENT, index=0, ordinal=0, incarnation="client-0-0")
        for _ in range(3):
            await stage.start(create)
            await stage.start(delete)
        assert (stage.pods.created, stage.pods.deleted) == ([create], [delete])
        await asyncio.sleep(SEEN_SECONDS)
        await stage.start(create)
        assert stage.pods.created == [create, create]

    run(scenario())


def test_closing_cancels_what_is_under_way_and_what_is_held_back():
    async def scenario():
        stage = Stage()
        other = ReadState(url="http://a", incarnation="another")
        await stage.start(other)
        stage.programs.fail(other.key)
        await stage.start()
        wakes = stage.wakes
        await stage.performer.close()
        assert stage.programs.cancelled == [READ.key]
        assert stage.wakes == wakes + 1
        await asyncio.sleep(60)
        assert stage.wakes == wakes + 1

    run(scenario())


def test_pods_that_cannot_be_made_are_tried_less_and_less_often():
    """The API server has others to answer, and a quota is not mended in seconds."""

    async def scenario():
        stage, action = Stage(), CreatePod(role=PodRole.CLIENT, index=0, ordinal=0)
        tries = 0
        for _ in range(600):
            stage.pods.problem = CallError("exceeded quota", word="QuotaExceeded")
            await stage.start(action)
            tries += stage.pods.problem is None
            await asyncio.sleep(1)
        assert 20 <= tries <= 60
        failure = stage.observations.look(PODS).failures[action.key]
        assert (failure.word, failure.message) == ("QuotaExceeded", "exceeded quota")
        await stage.performer.close()

    run(scenario())
