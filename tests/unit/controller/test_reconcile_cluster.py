"""The loop on a cluster: edits are seen, its own writes are known, and the job's end is not the loop's."""

import asyncio
from dataclasses import replace

from fedjob_operator.api.v1alpha1 import Phase
from fedjob_operator.core.conditions import finish
from fedjob_operator.core.observed import PodRole
from fedjob_operator.performer import RECHECK_SECONDS
from fedjob_operator.ports import StoreUnavailableError, UnreadableJobError
from fedjob_operator.reconcile import REREAD_SECONDS, Pulse, Reconciler
from fedjob_protocol.reasons import Reason
from fedjob_protocol.round import RoundState as AggregatorRound
from tests.support.builders import CLUSTER, EPOCH, a_job, at, seen
from tests.support.ports import FakePods, FakePrograms, FakeStore
from tests.support.virtual_time import now, run, settle
from tests.unit.controller.test_reconcile_loop import READY, introduce

APPLIED = a_job().saying(term=0).build()


class Stage:
    """A loop on a cluster, among fakes."""

    def __init__(self, job=APPLIED, *, pods=(), platform=CLUSTER, **fields):
        self.store, self.pods, self.programs = FakeStore(job), FakePods(pods), FakePrograms(introduce)
        self.reconciler = Reconciler(
            store=self.store,
            pods=self.pods,
            programs=self.programs,
            clock=now,
            on_change=lambda *_: None,
            platform=platform,
            **fields,
        )

    @property
    def status(self):
        return self.store.job.status

    def version(self):
        return self.store.job.metadata.resource_version


def play(scenario, **fields):
    async def act():
        stage = Stage(**fields)
        stage.running = asyncio.create_task(stage.reconciler.run())
        await settle()
        await scenario(stage)
        stage.running.cancel()
        await asyncio.gather(stage.running, return_exceptions=True)

    run(act())


def test_what_a_watch_says_of_our_own_writes_costs_no_read():
    async def scenario(stage):
        stage.pods.views = READY
        stage.reconciler.wake()
        await settle()
        for version in range(int(stage.version()) + 1):
            stage.reconciler.changed(str(version or 1))
            await settle()
        assert stage.store.reads == 1

    play(scenario)


def test_an_edit_of_the_spec_is_read_and_followed():
    async def scenario(stage):
        stage.store.edit(suspend=True)
        stage.reconciler.changed(stage.version())
        await settle()
        assert stage.store.reads == 2
        assert stage.status.phase in (Phase.SUSPENDING, Phase.SUSPENDED)
        assert len(stage.pods.deleted) == 4

    play(scenario, pods=READY)


def test_several_edits_at_once_cost_one_read():
    async def scenario(stage):
        for rounds in (3, 4, 5):
            stage.store.edit(rounds=rounds)
            stage.reconciler.changed(stage.version())
        await settle()
        assert stage.store.reads == 2
        assert stage.status.rounds.total == 5

    play(scenario)


def test_wake_ups_cost_no_read_and_no_write():
    async def scenario(stage):
        await asyncio.sleep(2 * CLUSTER.progress_seconds)
        written = len(stage.store.written)
        for _ in range(50):
            stage.reconciler.wake()
            await settle()
        await asyncio.sleep(300)
        assert (stage.store.reads, len(stage.store.written)) == (1, written)

    play(scenario)


def test_a_job_that_is_deleted_ends_the_loop():
    async def scenario(stage):
        stage.store.job = None
        stage.reconciler.changed()
        await settle()
        assert await stage.running is None

    play(scenario)


def test_an_edit_that_could_not_be_read_is_read_later():
    async def scenario(stage):
        stage.store.edit(rounds=7)
        stage.store.read_problems = [StoreUnavailableError("no route")] * 3
        stage.reconciler.changed(stage.version())
        await asyncio.sleep(10)
        assert stage.status.rounds.total == 7

    play(scenario)


# Jobs that cannot be read


def test_a_job_that_cannot_be_understood_is_left_alone_until_it_is_mended():
    async def scenario(stage):
        stage.pods.views = READY
        stage.store.edit(rounds=7)
        stage.store.read_problems = [UnreadableJobError("spec.rounds: is no number")] * 2
        stage.reconciler.changed(stage.version())
        await settle()
        reads, calls = stage.store.reads, len(stage.programs.calls)
        stage.reconciler.wake()
        await asyncio.sleep(30)
        assert (stage.store.reads, len(stage.programs.calls)) == (reads, calls)
        stage.reconciler.changed("a version with which it is still wrong")
        await settle()
        assert stage.store.reads == reads + 1
        stage.reconciler.changed(stage.version())
        await settle()
        assert stage.status.rounds.total == 7

    play(scenario)


def test_a_missed_mending_is_noticed():
    async def scenario(stage):
        assert stage.store.written == []
        await asyncio.sleep(REREAD_SECONDS + 1)
        assert stage.status.term == 1

    async def act():
        stage = Stage()
        stage.store.read_problems = [UnreadableJobError("spec.rounds: is no number")]
        stage.running = asyncio.create_task(stage.reconciler.run())
        await settle()
        await scenario(stage)
        stage.running.cancel()
        await asyncio.gather(stage.running, return_exceptions=True)

    run(act())


# Pods are checked


def test_pods_are_checked_as_they_will_be_once_the_job_is_accepted():
    async def scenario(stage):
        (checked,) = stage.pods.checked
        assert [entry.group for entry in checked.status.layout] == ["clients"]
        assert checked.status.images == CLUSTER.images

    play(scenario)


def test_pods_that_were_refused_are_checked_again_now_and_then():
    async def act():
        stage = Stage()
        stage.pods.pod_problem = "no service account"
        stage.running = asyncio.create_task(stage.reconciler.run())
        await asyncio.sleep(RECHECK_SECONDS * 10 + 1)
        assert 9 <= len(stage.pods.checked) <= 12
        assert stage.status.reason == Reason.INVALID_POD_TEMPLATE
        stage.pods.pod_problem = None
        await asyncio.sleep(RECHECK_SECONDS + 1)
        assert stage.status.phase is Phase.STARTING
        stage.running.cancel()
        await asyncio.gather(stage.running, return_exceptions=True)

    run(act())


# Finished jobs


def over(**spec):
    job = a_job().having(**spec).committed(2)
    ended = finish(job.status, failed=False, reason=Reason.ROUNDS_COMPLETED, message="done", now=EPOCH)
    return replace(job, status=ended).build()


def test_the_loop_outlives_its_job():
    async def scenario(stage):
        await asyncio.sleep(3600)
        assert not stage.running.done()
        stage.pods.views = ()
        stage.reconciler.wake()
        await settle()
        assert [action.role for action in stage.pods.created] == [PodRole.AGGREGATOR]

    play(scenario, job=over(), pods=seen().aggregator(committed=2).observed.pods)


def test_a_job_is_deleted_in_time_and_that_ends_the_loop():
    async def scenario(stage):
        await asyncio.sleep(59)
        assert stage.store.job is not None
        await asyncio.sleep(2)
        assert stage.store.job is None
        assert await stage.running is None

    play(scenario, job=over(ttlSecondsAfterFinished=60), pods=seen().aggregator(committed=2).observed.pods)


def test_a_finished_job_costs_nothing():
    async def scenario(stage):
        await asyncio.sleep(60)
        written, reads = len(stage.store.written), stage.store.reads
        await asyncio.sleep(3600)
        assert (len(stage.store.written), stage.store.reads) == (written, reads)

    play(scenario, job=over(), pods=seen().aggregator(committed=2).observed.pods)


# Writes that can wait


def test_what_only_counts_on_is_written_after_a_while_and_what_matters_at_once():
    view = seen().round(0, reported=[]).observed.round

    async def scenario(stage):
        stage.programs.answer("open/aggregator-0-0/0/1/1", view)
        await settle()
        written = len(stage.store.written)
        done = view.model_copy(update={"reported": [0]})
        stage.programs.answer("watch/aggregator-0-0/0/1", done)
        await settle()
        assert (stage.status.current_round.reported, len(stage.store.written)) == (0, written)
        await asyncio.sleep(CLUSTER.progress_seconds)
        assert (stage.status.current_round.reported, len(stage.store.written)) == (1, written + 1)
        over = seen().aggregator().round(0, AggregatorRound.EVALUATED, reported=[0]).observed.round
        stage.programs.answer("watch/aggregator-0-0/0/1", over)
        await settle()
        assert stage.status.current_round.number == 1

    play(scenario, pods=READY)


# Who reigns, and whether the loop is alive


def test_who_finds_another_operator_waits_until_it_may_claim():
    async def act():
        may = asyncio.Event()
        stage = Stage(until_ours=lambda _: may.wait(), pods=READY)
        stage.running = asyncio.create_task(stage.reconciler.run())
        await settle()
        stage.store.change(stage.status.model_copy(update={"term": 5}))
        stage.reconciler.changed(stage.version())
        await asyncio.sleep(1000)
        assert stage.status.term == 5
        may.set()
        await settle()
        assert stage.status.term == 6
        stage.running.cancel()
        await asyncio.gather(stage.running, return_exceptions=True)

    run(act())


def test_a_loop_that_waits_is_not_busy():
    async def scenario(stage):
        pulse = stage.reconciler.pulse
        await asyncio.sleep(100)
        assert pulse.busy_for(now()).total_seconds() == 0
        assert pulse.last_started is not None
        assert pulse.last_finished >= pulse.last_started

    play(scenario)


def test_an_api_server_that_does_not_answer_is_not_held_against_the_loop():
    async def scenario(stage):
        stage.store.problems = [StoreUnavailableError("no route")] * 1000
        stage.pods.views = READY
        stage.reconciler.wake()
        await asyncio.sleep(120)
        assert stage.reconciler.pulse.busy_for(now()).total_seconds() == 0

    play(scenario)


def test_a_pass_under_way_counts_from_its_beginning():
    pulse = Pulse()
    pulse.begin(at(10))
    assert pulse.busy_for(at(75)).total_seconds() == 65
    pulse.rest(at(76))
    assert pulse.busy_for(at(500)).total_seconds() == 0
