"""One job driven on a cluster: what is known before it begins, and how its view of the cluster stays true."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from fedjob_operator import driver as drivers
from fedjob_operator.adapters.kube.api import JOBS, PODS
from fedjob_operator.adapters.kube.cache import PodCache
from fedjob_operator.adapters.kube.pods import PodSource
from fedjob_operator.adapters.kube.store import JobKey
from fedjob_operator.adapters.metrics import OperatorMetrics
from fedjob_operator.api.v1alpha1 import Images, Phase
from fedjob_operator.build.settings import PodSettings
from fedjob_operator.core.platform import Platform
from fedjob_operator.driver import JobDriver, Surroundings
from fedjob_operator.ports import CallError
from tests.support.builders import JobBuilder
from tests.support.virtual_time import now, run, settle
from tests.unit.controller.kube.fake_api import FakeApi, unavailable

KEY = JobKey(namespace="lab", name="mnist", uid="uid-of-job")


class Silence:
    """Programs that do not answer."""

    async def perform(self, action):
        raise CallError(f"{action.key}: nobody there")


class World:
    def __init__(self):
        self.api = FakeApi()
        self.told = []
        self.cache = PodCache(self.woken)
        self.metrics = OperatorMetrics(pods=self.cache.all_pods, phases=list, is_leading=lambda: True)
        around = Surroundings(
            source=PodSource(
                api=self.api, cache=self.cache, settings=PodSettings(client_image="c:1", aggregator_image="a:1")
            ),
            programs=lambda _token: Silence(),
            token=lambda uid: f"token of {uid}",
            platform=Platform(
                images=Images(client="c:1", aggregator="a:1"), checks_pods=True, looks_after_finished=True
            ),
            clock=now,
            monotonic=lambda: asyncio.get_running_loop().time(),
            on_change=lambda job, before: self.told.append((before.phase, job.status.phase)),
            metrics=self.metrics,
        )
        self.driver = JobDriver(KEY, around)
        self.task = None

    def woken(self, _uid):
        self.driver.wake()

    def apply(self, **parts):
        spec = json.loads(json.dumps(JobBuilder().spec))
        metadata = {"name": KEY.name, "namespace": KEY.namespace, "uid": KEY.uid, "generation": 1}
        document = {"apiVersion": "fedjob.dev/v1alpha1", "kind": "FederatedJob", "metadata": metadata, "spec": spec}
        self.api.put(JOBS, document | parts)

    def held(self):
        return self.api.find(JOBS, KEY.name)

    def pods(self):
        return sorted(name for plural, _, name in self.api.objects if plural == "pods")

    def figure(self, name, **labels):
        return self.metrics.registry.get_sample_value(name, labels)


@asynccontextmanager
async def driving(*, prepared=lambda _: None):
    world = World()
    world.apply()
    prepared(world)
    world.task = asyncio.get_running_loop().create_task(world.driver.run())
    await settle()
    try:
        yield world
    finally:
        world.task.cancel()
        await asyncio.wait({world.task})


def test_a_job_gets_its_pods_and_says_so():
    async def scenario():
        async with driving() as world:
            await asyncio.sleep(5)
            assert world.pods() == ["mnist-aggregator-0-0"] + [f"mnist-client-{index}-0" for index in range(3)]
            assert world.driver.phase is Phase.STARTING
            assert (Phase.PENDING, Phase.STARTING) in world.told
            written = world.figure("fedjob_status_writes_total", result="written")
            assert written == world.api.counts["patch", "federatedjobs"]
            assert world.figure("fedjob_passes_total") >= world.figure("fedjob_pass_seconds_count") > 0

    run(scenario())


def test_nothing_is_done_before_the_jobs_pods_are_known():
    async def scenario():
        def unlisted(world):
            world.api.fail("list", unavailable(), times=3)

        async with driving(prepared=unlisted) as world:
            await asyncio.sleep(3 * drivers.RETRY_SECONDS - 0.1)
            assert {verb for verb, *_ in world.api.calls} == {"list"}
            await asyncio.sleep(5)
            assert world.pods() != []

    run(scenario())


def test_a_pod_whose_deletion_the_watch_lost_is_made_again_in_time():
    async def scenario():
        async with driving() as world:
            await asyncio.sleep(5)
            world.api.remove(PODS, "mnist-client-1-0")
            await asyncio.sleep(drivers.REFRESH_SECONDS + drivers.RETRY_SECONDS + 5)
            assert "mnist-client-1-0" in world.pods()

    run(scenario())


def test_it_is_made_again_soon_where_a_gap_was_heard_of():
    async def scenario():
        async with driving() as world:
            await asyncio.sleep(5)
            world.api.remove(PODS, "mnist-client-1-0")
            world.driver.refresh_soon()
            await asyncio.sleep(2)
            assert "mnist-client-1-0" in world.pods()

    run(scenario())


def test_a_job_that_hears_of_gap_after_gap_does_not_list_all_the_time():
    async def scenario():
        async with driving() as world:
            before = world.api.counts["list", "pods"]
            for _ in range(100):
                world.driver.refresh_soon()
                await asyncio.sleep(0.1)
            assert world.api.counts["list", "pods"] - before <= 10 / drivers.RETRY_SECONDS + 1

    run(scenario())


def test_a_job_whose_deletion_the_watch_lost_ends_in_time():
    async def scenario():
        async with driving() as world:
            await asyncio.sleep(5)
            world.api.remove(JOBS, KEY.name)
            await asyncio.sleep(drivers.REFRESH_SECONDS + drivers.RETRY_SECONDS + 5)
            assert world.task.done()
            assert world.task.exception() is None

    run(scenario())


def test_a_job_at_rest_costs_next_to_nothing():
    async def scenario():
        async with driving() as world:
            await asyncio.sleep(200)
            before = world.api.counts.copy()
            await asyncio.sleep(600)
            spent = world.api.counts - before
            assert sum(spent.values()) <= 2 * (600 / (drivers.REFRESH_SECONDS * 0.8) + 1) + 20

    run(scenario())


@pytest.mark.parametrize("seconds", [0.0, 30.0])
def test_a_job_that_cannot_be_read_waits_and_goes_on_when_it_is_mended(seconds):
    async def scenario():
        async with driving(prepared=lambda world: world.apply(spec={"rounds": "many"})) as world:
            await asyncio.sleep(seconds)
            [accepted] = world.held()["status"]["conditions"]
            assert (accepted["type"], accepted["status"], accepted["reason"]) == ("Accepted", "False", "InvalidSpec")
            assert world.pods() == []
            status = world.held()["status"]
            world.apply(status=status)
            world.driver.changed(world.held()["metadata"]["resourceVersion"])
            await asyncio.sleep(5)
            conditions = {item["type"]: item["status"] for item in world.held()["status"]["conditions"]}
            assert conditions["Accepted"] == "True"
            assert len(world.pods()) == 4

    run(scenario())


def test_between_its_passes_it_is_not_busy():
    async def scenario():
        async with driving() as world:
            for _ in range(50):
                assert world.driver.busy_seconds() == 0.0
                await asyncio.sleep(1)

    run(scenario())


def test_an_api_server_that_does_not_answer_is_waited_for():
    async def scenario():
        async with driving() as world:
            await asyncio.sleep(5)
            for verb in ("get", "list", "patch", "create", "delete"):
                world.api.fail(verb, unavailable(), times=40)
            world.driver.changed("")
            await asyncio.sleep(120)
            assert world.driver.busy_seconds() == 0.0
            world.api.failures.clear()
            await asyncio.sleep(60)
            assert not world.task.done()

    run(scenario())
