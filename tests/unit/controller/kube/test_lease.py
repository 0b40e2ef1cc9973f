"""The Lease: one holder at a time, and what happens when it goes silent."""

import asyncio
from contextlib import asynccontextmanager

from fedjob_operator.adapters.kube.api import LEASES
from fedjob_operator.adapters.kube.lease import DURATION_SECONDS, GIVE_UP_SECONDS, LeaseKeeper, LeaseName, Standing
from tests.support.virtual_time import now, run, settle
from tests.unit.controller.kube.fake_api import FakeApi, conflict, unavailable

LONG = 1000


class Operator:
    """One that wants the Lease, and whether it drives jobs."""

    def __init__(self, api, identity):
        self.changes = []
        self.keeper = LeaseKeeper(
            api,
            LeaseName(namespace="ops", name="lease", identity=identity),
            on_change=self.change,
            clock=now,
            monotonic=lambda: asyncio.get_running_loop().time(),
        )
        self.task = None

    async def change(self, holds):
        self.changes.append((holds, asyncio.get_running_loop().time()))

    @property
    def leads(self):
        return bool(self.changes) and self.changes[-1][0]

    def start(self):
        self.task = asyncio.get_running_loop().create_task(self.keeper.run())

    async def die(self):
        self.task.cancel()
        await asyncio.wait({self.task})


@asynccontextmanager
async def operators(*identities, api=None):
    api = api or FakeApi()
    found = [Operator(api, identity) for identity in identities]
    for operator in found:
        operator.start()
        await settle()
    try:
        yield (api, *found)
    finally:
        for operator in found:
            await operator.die()


def test_the_first_holds_it_and_the_second_waits():
    async def scenario():
        async with operators("a", "b") as (api, first, second):
            await asyncio.sleep(600)
            assert (first.keeper.standing, second.keeper.standing) == (Standing.HOLDING, Standing.WAITING)
            assert (first.changes, second.changes) == ([(True, 0.0)], [])
            spec = api.find(LEASES, "lease")["spec"]
            assert (spec["holderIdentity"], spec["leaseDurationSeconds"]) == ("a", DURATION_SECONDS)
            assert spec["acquireTime"] == "2026-01-01T00:00:00.000000Z"

    run(scenario())


def test_when_the_holder_dies_the_other_takes_it_after_its_duration():
    async def scenario():
        async with operators("a", "b") as (api, first, second):
            await asyncio.sleep(60)
            await first.die()
            died = asyncio.get_running_loop().time()
            await asyncio.sleep(DURATION_SECONDS - 5.1)
            assert not second.leads
            await asyncio.sleep(15.2)
            assert second.leads
            assert second.changes[0][1] > died + DURATION_SECONDS - 5
            assert api.find(LEASES, "lease")["spec"]["leaseTransitions"] == 1

    run(scenario())


def test_who_gives_it_back_is_followed_at_once():
    async def scenario():
        async with operators("a", "b") as (_, first, second):
            await first.die()
            await first.keeper.release()
            await asyncio.sleep(5)
            assert second.leads

    run(scenario())


def test_nobody_gives_back_what_another_holds():
    async def scenario():
        async with operators("a", "b") as (api, first, second):
            await second.keeper.release()
            assert api.find(LEASES, "lease")["spec"]["holderIdentity"] == "a"
            assert first.leads

    run(scenario())


def test_the_process_that_follows_in_the_same_pod_goes_on_at_once():
    async def scenario():
        async with operators("pod-1") as (api, first):
            await first.die()
            async with operators("pod-1", api=api) as (_, again):
                assert again.changes == [(True, 0.0)]
                assert api.find(LEASES, "lease")["spec"]["leaseTransitions"] == 0

    run(scenario())


def test_a_holder_that_cannot_renew_stands_down_before_anybody_else_may_begin():
    async def scenario():
        async with operators("a") as (api, first):
            await asyncio.sleep(30)
            renewed = asyncio.get_running_loop().time()
            api.fail("get", unavailable(), times=LONG)
            await asyncio.sleep(60)
            [(_, _), (leads, when)] = first.changes
            assert not leads
            assert GIVE_UP_SECONDS - 5 <= when - renewed < DURATION_SECONDS
            assert first.keeper.standing is Standing.WAITING
            api.failures.clear()
            await asyncio.sleep(5)
            assert first.leads

    run(scenario())


def test_a_short_silence_of_the_api_server_changes_nothing():
    async def scenario():
        async with operators("a") as (api, first):
            await asyncio.sleep(30)
            api.fail("get", unavailable(), times=2)
            api.fail("update", unavailable(), times=2)
            await asyncio.sleep(60)
            assert first.changes == [(True, 0.0)]

    run(scenario())


def test_an_api_server_that_hangs_is_one_that_does_not_answer():
    async def scenario():
        async with operators("a") as (api, first):

            async def hang(*_):
                await asyncio.Event().wait()

            api.get = hang
            await asyncio.sleep(DURATION_SECONDS)
            assert not first.leads

    run(scenario())


def test_who_is_overtaken_while_renewing_stands_down():
    async def scenario():
        async with operators("a") as (api, first):
            api.fail("update", conflict())
            await asyncio.sleep(5)
            assert first.changes[1][0] is False
            await asyncio.sleep(5)
            assert first.leads

    run(scenario())


def test_of_two_that_find_none_only_one_makes_it():
    async def scenario():
        async with operators() as (api,):
            one, other = Operator(api, "a"), Operator(api, "b")
            one.start()
            other.start()
            await asyncio.sleep(1)
            assert [one.leads, other.leads].count(True) == 1
            await one.die()
            await other.die()

    run(scenario())


def test_until_the_first_answer_nobody_knows():
    async def scenario():
        api = FakeApi()
        api.fail("get", unavailable(), times=LONG)
        async with operators("a", api=api) as (_, first):
            await asyncio.sleep(60)
            assert (first.keeper.standing, first.changes) == (None, [])

    run(scenario())
