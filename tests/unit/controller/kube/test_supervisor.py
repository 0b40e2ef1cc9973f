"""One task per job, whatever is heard and whatever breaks."""

import asyncio
import itertools
import logging
from contextlib import asynccontextmanager

import pytest

from fedjob_operator.api.v1alpha1 import Phase
from fedjob_operator.supervisor import MAX_BACKOFF_SECONDS, Supervisor
from tests.support.virtual_time import run, settle


def document(name="mnist", uid="uid-1", version="1", **more):
    metadata = {"namespace": "lab", "name": name, "uid": uid, "resourceVersion": version}
    return {"metadata": metadata | more.pop("metadata", {}), **more}


class FakeDriver:
    """Runs until it is told how to end."""

    def __init__(self, key, world):
        self.key, self.world = key, world
        self.phase = Phase.RUNNING
        self.heard = []
        self.busy = 0.0

    def wake(self):
        self.heard.append("wake")

    def changed(self, version):
        self.heard.append(version)

    def refresh_soon(self):
        self.heard.append("refresh")

    def busy_seconds(self):
        return self.busy

    async def run(self):
        self.world.running.append(self)
        try:
            error = await self.world.ends(self.key.uid)
            if error is not None:
                raise error
        finally:
            self.world.running.remove(self)


class World:
    def __init__(self):
        self.running, self.made, self.forgotten, self.restarts = [], [], [], 0
        self._ends = {}
        self.supervisor = Supervisor(
            drive=self._drive,
            forget=self.forgotten.append,
            monotonic=lambda: asyncio.get_running_loop().time(),
            on_restart=self._restarted,
        )

    def _drive(self, key):
        driver = FakeDriver(key, self)
        self.made.append((key.uid, asyncio.get_running_loop().time()))
        return driver

    def _restarted(self):
        self.restarts += 1

    async def ends(self, uid):
        return await self._queue(uid).get()

    def _queue(self, uid):
        return self._ends.setdefault(uid, asyncio.Queue())

    def end(self, uid="uid-1", error=None, *, times=1):
        for _ in range(times):
            self._queue(uid).put_nowait(error)

    def hear(self, *documents, is_deleted=False):
        for found in documents:
            self.supervisor.heard(found, is_deleted=is_deleted)

    @property
    def driven(self):
        return sorted(driver.key.uid for driver in self.running)


@asynccontextmanager
async def leading():
    world = World()
    await world.supervisor.lead(True)
    try:
        yield world
    finally:
        await world.supervisor.lead(False)
        assert world.running == []


def in_a_world(scenario):
    async def whole():
        async with leading() as world:
            await scenario(world)

    run(whole())


def test_each_job_has_one_task_however_often_it_is_heard_of():
    async def scenario(world):
        world.hear(document(), document(version="2"), document("other", "uid-2"))
        await settle()
        world.hear(document(version="3"))
        await settle()
        assert world.driven == ["uid-1", "uid-2"]
        assert world.running[0].heard == ["3"]

    in_a_world(scenario)


def test_news_of_pods_wake_their_job_only():
    async def scenario(world):
        world.hear(document(), document("other", "uid-2"))
        await settle()
        world.supervisor.pods_changed("uid-2")
        world.supervisor.pods_changed("unknown")
        assert [driver.heard for driver in world.running] == [[], ["wake"]]
        world.supervisor.listed_again()
        assert [driver.heard for driver in world.running] == [["refresh"], ["wake", "refresh"]]

    in_a_world(scenario)


@pytest.mark.parametrize("is_going", [False, True])
def test_a_job_that_is_gone_or_going_has_no_task_and_is_forgotten(is_going):
    async def scenario(world):
        world.hear(document())
        await settle()
        going = document(metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"})
        world.hear(going if is_going else document(), is_deleted=not is_going)
        await settle()
        assert (world.driven, world.forgotten) == ([], ["uid-1"])
        world.hear(document(version="9"))
        await settle()
        assert (world.driven, list(world.supervisor.phases())) == ([], [])

    in_a_world(scenario)


def test_a_job_made_anew_under_its_name_is_another():
    async def scenario(world):
        world.hear(document())
        await settle()
        world.hear(document(), is_deleted=True)
        world.hear(document(uid="uid-2"))
        await settle()
        assert world.driven == ["uid-2"]

    in_a_world(scenario)


def test_a_driver_that_finds_its_job_gone_ends_it():
    async def scenario(world):
        world.hear(document())
        await settle()
        world.end()
        await settle()
        assert (world.driven, world.forgotten) == ([], ["uid-1"])

    in_a_world(scenario)


def test_what_breaks_one_job_begins_it_anew_later_and_later_and_leaves_the_others_alone(caplog):
    async def scenario(world):
        world.hear(document(), document("other", "uid-2"))
        await settle()
        world.end(error=RuntimeError("boom"), times=12)
        await asyncio.sleep(1000)
        times = [when for uid, when in world.made if uid == "uid-1"]
        pauses = [after - before for before, after in itertools.pairwise(times)]
        assert world.driven == ["uid-1", "uid-2"]
        assert len(pauses) == world.restarts == 12
        assert 0.75 <= pauses[0] <= 1 < pauses[3] < pauses[5] < max(pauses) <= MAX_BACKOFF_SECONDS
        assert [uid for uid, _ in world.made].count("uid-2") == 1

    with caplog.at_level(logging.ERROR):
        in_a_world(scenario)
    lines = [record for record in caplog.records if "driving job lab/mnist failed" in record.message]
    assert len(lines) == 12
    assert [record.exc_info is not None for record in lines] == [True] + [False] * 11


def test_another_error_is_shown_with_where_it_comes_from_again(caplog):
    async def scenario(world):
        world.hear(document())
        await settle()
        world.end(error=RuntimeError("boom"))
        world.end(error=KeyError("other"))
        await asyncio.sleep(10)

    with caplog.at_level(logging.ERROR):
        in_a_world(scenario)
    assert all(record.exc_info for record in caplog.records)


def test_after_a_long_good_time_the_pause_is_short_again():
    async def scenario(world):
        world.hear(document())
        await settle()
        world.end(error=RuntimeError("boom"), times=6)
        await asyncio.sleep(1000)
        world.end(error=RuntimeError("boom"))
        before = asyncio.get_running_loop().time()
        await asyncio.sleep(30)
        assert world.made[-1][1] - before <= 1

    in_a_world(scenario)


def test_a_job_deleted_while_it_waits_to_begin_anew_does_not_begin():
    async def scenario(world):
        world.hear(document())
        await settle()
        world.end(error=RuntimeError("boom"))
        await settle()
        world.hear(document(), is_deleted=True)
        await asyncio.sleep(600)
        assert len(world.made) == 1

    in_a_world(scenario)


def test_who_does_not_lead_drives_nothing_and_knows_everything():
    async def scenario():
        world = World()
        world.hear(document(status={"phase": "Running"}), document("other", "uid-2", status="nonsense"))
        await settle()
        assert world.driven == []
        assert sorted(world.supervisor.phases()) == [Phase.PENDING, Phase.RUNNING]
        await world.supervisor.lead(True)
        await settle()
        assert world.driven == ["uid-1", "uid-2"]
        await world.supervisor.lead(False)
        assert world.driven == []
        await world.supervisor.lead(True)
        await settle()
        assert world.driven == ["uid-1", "uid-2"]
        await world.supervisor.lead(False)

    run(scenario())


def test_standing_down_waits_also_for_jobs_that_are_just_ending():
    async def scenario():
        world = World()
        await world.supervisor.lead(True)
        world.hear(document())
        await settle()
        world.hear(document(), is_deleted=True)
        await world.supervisor.lead(False)
        assert world.running == []

    run(scenario())


def test_a_pass_that_takes_too_long_is_named():
    async def scenario(world):
        world.hear(document(), document("other", "uid-2"))
        await settle()
        world.running[1].busy = 61.0
        assert world.supervisor.hung(60) == ["lab/other"]

    in_a_world(scenario)


def test_an_event_without_a_unique_id_is_not_one():
    async def scenario(world):
        world.hear({}, {"metadata": 7}, document(uid=""))
        await settle()
        assert world.driven == []

    in_a_world(scenario)
