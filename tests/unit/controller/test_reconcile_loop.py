"""The loop: claim, look, decide, act, write once, look again."""

import asyncio
import logging

import pytest

from fedjob_operator.api.v1alpha1 import ConditionType, FederatedJobStatus, Phase
from fedjob_operator.core.actions import Action, FetchInfo, ReadState
from fedjob_operator.core.conditions import finish
from fedjob_operator.core.observed import PodRole
from fedjob_operator.ports import StatusConflictError, StoreUnavailableError
from fedjob_operator.reconcile import (
    MAX_STAND_DOWN_SECONDS,
    QUIET_SECONDS,
    RESYNC_SECONDS,
    STAND_DOWN_SECONDS,
    Reconciler,
    Takeovers,
)
from fedjob_protocol.reasons import Reason
from tests.support.builders import EPOCH, a_job, at, info, seen
from tests.support.ports import FakePods, FakePrograms, FakeStore
from tests.support.virtual_time import now, run, settle

APPLIED = a_job().saying(term=0).build()
DONE = a_job().committed(2)
FINISHED = DONE.saying(
    **dict(finish(DONE.status, failed=False, reason=Reason.ROUNDS_COMPLETED, message="done", now=EPOCH))
).build()
READY = seen().aggregator().ready(0, 1, 2).observed.pods


def introduce(action: Action):
    """Everybody says what it is; nobody answers anything else."""
    match action:
        case ReadState():
            return seen().aggregator().observed.state
        case FetchInfo():
            return info(action.index)
        case _:
            return None


class Stage:
    """A loop among fakes."""

    def __init__(self, job=APPLIED, *, pods=(), answer=introduce):
        self.store, self.pods, self.programs = FakeStore(job), FakePods(pods), FakePrograms(answer)
        self.changes = []
        self.reconcilers = []
        self.reconciler = self.another()

    def another(self):
        """One more operator's loop over the same job."""
        reconciler = Reconciler(
            store=self.store,
            pods=self.pods,
            programs=self.programs,
            clock=now,
            on_change=lambda job, before: self.changes.append((job.status, before)),
        )
        self.reconcilers.append(reconciler)
        return reconciler

    async def started(self):
        self.running = asyncio.create_task(self.reconciler.run())
        await settle()
        return self

    async def stop(self):
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)

    @property
    def status(self) -> FederatedJobStatus:
        return self.store.job.status


def play(scenario, **fields):
    async def act():
        stage = await Stage(**fields).started()
        await scenario(stage)
        if not stage.running.done():
            await stage.stop()

    run(act())


def test_a_job_is_claimed_then_accepted_then_its_pods_are_made():
    async def scenario(stage):
        assert [status.term for status in stage.store.written[:2]] == [1, 1]
        assert stage.store.written[0].layout == ()
        assert stage.store.written[1].layout
        assert len(stage.pods.created) == 4
        assert stage.status.phase is Phase.STARTING

    play(scenario)


def test_nothing_is_done_before_the_claim_is_written():
    async def act():
        stage = Stage(pods=READY)
        stage.store.problems = [StoreUnavailableError("no")] * 100
        await stage.started()
        await asyncio.sleep(60)
        assert (stage.store.written, stage.pods.created, stage.programs.calls) == ([], [], [])
        await stage.stop()

    run(act())


def test_a_claim_that_loses_a_race_is_made_again():
    async def act():
        stage = Stage()
        stage.store.problems = [StatusConflictError("somebody was faster")] * 2
        await stage.started()
        await asyncio.sleep(1)
        assert stage.status.term == 1
        assert stage.store.reads == 3
        await stage.stop()

    run(act())


def test_every_operator_reigns_in_a_term_of_its_own():
    async def scenario(stage):
        await stage.stop()
        stage.reconciler = stage.another()
        await stage.started()
        assert stage.status.term == 2

    play(scenario)


def test_on_change_is_told_after_each_write_with_the_status_before():
    async def scenario(stage):
        assert [status for status, _ in stage.changes] == stage.store.written[1:]
        befores = [before for _, before in stage.changes]
        assert befores == stage.store.written[: len(befores)]

    play(scenario, pods=READY)


def test_on_change_is_not_told_of_a_write_that_failed():
    async def scenario(stage):
        told = len(stage.changes)
        stage.store.problems = [StoreUnavailableError("disk full")] * 100
        stage.pods.views = READY
        stage.reconciler.wake()
        await asyncio.sleep(10)
        assert len(stage.changes) == told

    play(scenario)


def test_the_loop_goes_on_when_there_is_room_again(caplog):
    async def scenario(stage):
        stage.store.problems = [StoreUnavailableError("No space left on device")] * 5
        stage.pods.views = READY
        stage.reconciler.wake()
        await asyncio.sleep(60)
        assert stage.store.problems == []
        assert stage.status.current_round.number == 0

    with caplog.at_level(logging.WARNING):
        play(scenario)
    assert "No space left on device; trying again" in caplog.text


def test_a_wake_up_makes_it_look_again_at_once():
    async def scenario(stage):
        stage.pods.views = READY
        await settle()
        assert stage.programs.calls == []
        stage.reconciler.wake()
        await settle()
        assert {action.key for action in stage.programs.calls} >= {"state/aggregator-0-0", "info/client/0/client-0-0"}

    play(scenario)


def test_a_missed_wake_up_costs_no_more_than_the_resync():
    async def scenario(stage):
        stage.pods.views = READY
        await asyncio.sleep(RESYNC_SECONDS)
        assert "state/aggregator-0-0" in stage.programs.called()

    play(scenario)


def test_the_loop_wakes_when_the_decision_says_so():
    """A pod that ended twice is replaced after a second, long before the resync."""

    async def scenario(stage):
        ended = seen().exited(index=1, ordinal=1, since=now()).observed.pods
        stage.pods.views = ended
        stage.reconciler.wake()
        await settle()
        assert not any(action.ordinal for action in stage.pods.created)
        await asyncio.sleep(1.1)
        assert [action.index for action in stage.pods.created if action.ordinal == 2] == [1]

    play(scenario)


def test_a_call_that_hangs_holds_nobody_up():
    def introduce_all_but_one(action):
        return None if isinstance(action, FetchInfo) and action.index == 1 else introduce(action)

    async def scenario(stage):
        assert (stage.status.clients.ready, stage.status.clients.desired) == (2, 3)
        assert stage.status.current_round is None
        stage.programs.answer("info/client/1/client-1-0", info(1))
        await settle()
        assert stage.status.current_round.number == 0

    play(scenario, pods=READY, answer=introduce_all_but_one)


def test_a_call_that_fails_is_made_again():
    async def scenario(stage):
        stage.programs.fail("open/aggregator-0-0/0/1/1")
        await asyncio.sleep(0.2)
        assert stage.programs.called().count("open/aggregator-0-0/0/1/1") == 2

    play(scenario, pods=READY)


def test_after_a_conflict_it_decides_again_on_what_is_there_now():
    """Somebody labelled the job, or changed its spec: the same term, so everything seen still counts."""

    async def scenario(stage):
        stage.store.change(stage.status)
        stage.pods.views = READY
        stage.reconciler.wake()
        await settle()
        assert stage.status.term == 1
        assert stage.status.current_round.number == 0
        assert stage.programs.called().count("state/aggregator-0-0") == 1

    play(scenario)


def test_who_meets_a_higher_term_stands_down_then_begins_anew():
    """What was seen before may be older than what the other one wrote; calls under way are cancelled."""

    async def scenario(stage):
        assert "open/aggregator-0-0/0/1/1" in stage.programs.called()
        stage.store.change(stage.status.model_copy(update={"term": 5}))
        stage.pods.views = READY[:-1]
        stage.reconciler.wake()
        await settle()
        assert "open/aggregator-0-0/0/1/1" in stage.programs.cancelled
        assert stage.status.term == 5
        calls = len(stage.programs.calls)
        await asyncio.sleep(STAND_DOWN_SECONDS - 0.1)
        assert len(stage.programs.calls) == calls
        await asyncio.sleep(0.2)
        assert stage.status.term == 6
        assert stage.programs.called().count("state/aggregator-0-0") == 2

    play(scenario, pods=READY)


STALE_SECONDS = 60
FEW_TRIES = 30
"""In `STALE_SECONDS`, and no more than one a second for long."""


def test_a_claim_that_is_answered_with_what_was_true_before_is_made_again_later_and_later():
    async def act():
        stage = Stage()
        stage.store.stale = stage.store.job
        stage.store.edit(rounds=7)
        await stage.started()
        await asyncio.sleep(STALE_SECONDS)
        assert stage.store.tries <= FEW_TRIES
        stage.store.stale = None
        await asyncio.sleep(10)
        assert stage.status.term == 1
        await stage.stop()

    run(act())


def test_who_is_answered_with_what_was_true_before_tries_later_and_later():
    """An API server that is behind: a write is held against the newest version, a read answers an older one."""

    async def scenario(stage):
        stage.store.stale = stage.store.job
        stage.store.edit(rounds=7)
        stage.pods.views = READY
        stage.reconciler.wake()
        tries = stage.store.tries
        await asyncio.sleep(STALE_SECONDS)
        assert stage.store.tries - tries <= FEW_TRIES
        stage.store.stale = None
        await asyncio.sleep(10)
        assert stage.status.rounds.total == 7
        assert stage.status.current_round.number == 0

    play(scenario)


def test_nothing_is_done_for_a_state_that_was_left_behind():
    """An API server that is behind answers a status from before the round that is open."""

    async def scenario(stage):
        before = stage.store.job
        stage.pods.views = READY
        stage.reconciler.wake()
        await settle()
        assert stage.status.current_round.number == 0
        calls, created = len(stage.programs.calls), len(stage.pods.created)
        stage.store.stale = before
        stage.reconciler.changed("of a watch that is not behind")
        await asyncio.sleep(STALE_SECONDS)
        assert [action.key for action in stage.programs.calls[calls:]] == []
        assert len(stage.pods.created) == created

    play(scenario)


HOUR_SECONDS = 3600


def test_two_that_take_the_job_from_each_other_settle_to_few_takeovers():
    """Two operators that share no Lease: each finds the other's term, and leaves it alone longer and longer."""

    async def scenario(stage):
        begun = stage.status.term
        other = asyncio.create_task(stage.another().run())
        takeovers = []
        for _ in range(3):
            await follow(stage, HOUR_SECONDS)
            takeovers.append(stage.status.term - begun - sum(takeovers))
        other.cancel()
        await asyncio.gather(other, return_exceptions=True)
        assert takeovers[0] <= 12
        assert takeovers[1] <= HOUR_SECONDS / MAX_STAND_DOWN_SECONDS + 1

    play(scenario, pods=READY)


async def follow(stage, seconds):
    """Let time pass while both operators are told of each change, as watches do."""
    end = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < end:
        await asyncio.sleep(1)
        for reconciler in stage.reconcilers:
            reconciler.changed(stage.store.job.metadata.resource_version)


def test_after_a_quiet_time_a_takeover_is_the_first_again():
    takeovers = Takeovers()
    assert [takeovers.stand_down_seconds(at(minute * 60)) for minute in (0, 1, 2, 3, 4)] == [15, 60, 240, 600, 600]
    assert takeovers.stand_down_seconds(at(240 + QUIET_SECONDS + 1)) == STAND_DOWN_SECONDS


def test_a_job_that_is_gone_ends_the_loop():
    async def act():
        assert await Stage(None).reconciler.run() is None

    run(act())


def test_a_job_that_goes_meanwhile_ends_the_loop():
    async def scenario(stage):
        stage.store.job = None
        stage.store.problems = [StatusConflictError("not found")]
        stage.pods.views = READY
        stage.reconciler.wake()
        await settle()
        assert await stage.running is None

    play(scenario)


def test_a_job_that_fails_is_returned_when_its_clients_are_gone():
    async def scenario(stage):
        stage.pods.views = (
            seen()
            .exited(PodRole.AGGREGATOR, reason=Reason.FOREIGN_VOLUME, message="the folder is another's")
            .ready(0, 1)
            .evaluator()
            .observed.pods
        )
        stage.reconciler.wake()
        job = await stage.running
        assert job.status.phase is Phase.FAILED
        assert job.status.holds(ConditionType.FAILED)
        assert [view.role for view in stage.pods.views] == [PodRole.AGGREGATOR]

    play(scenario)


def test_a_finished_job_is_returned_as_it_is_once_nothing_is_left_to_release():
    async def act():
        stage = Stage(FINISHED, pods=seen().aggregator().ready(0).observed.pods)
        assert await stage.reconciler.run() == FINISHED
        assert stage.store.written == []
        assert [action.index for action in stage.pods.deleted] == [0]

    run(act())


def test_cancelling_the_loop_cancels_what_is_under_way():
    async def scenario(stage):
        assert "open/aggregator-0-0/0/1/1" in stage.programs.called()
        stage.running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stage.running
        assert stage.programs.cancelled == ["open/aggregator-0-0/0/1/1"]

    play(scenario, pods=READY)
