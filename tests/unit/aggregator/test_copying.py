"""A standby's folder: equal to the leader's in the end, wherever it begins and at whatever operation it crashes."""

import asyncio
import shutil
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from fedjob_aggregator.disk import Disk
from fedjob_aggregator.follower import Follower
from fedjob_aggregator.peer import PeerError
from fedjob_aggregator.replica_store import ReplicaStore, open_replica
from fedjob_protocol.errors import Word
from fedjob_protocol.messages import RoundLog
from fedjob_protocol.replication import Holdings
from tests.unit.aggregator.test_checkpoints import TENSORS, a_record

ROUNDS = 6
BLOCK = 512


class CrashError(OSError):
    """The program ends here."""


class CrashingDisk(Disk):
    """Does so many operations, and none any more after that."""

    def __init__(self, operations):
        self.left = operations

    def _count(self):
        if self.left <= 0:
            raise CrashError("the program is dead")
        self.left -= 1

    def sync(self, descriptor):
        self._count()
        super().sync(descriptor)

    def rename(self, temporary, path):
        self._count()
        super().rename(temporary, path)

    def remove(self, path):
        self._count()
        super().remove(path)


class Turns:
    """A writer that does everything at once."""

    def perform(self, action):
        future = asyncio.get_running_loop().create_future()
        try:
            future.set_result(action())
        except OSError as error:
            future.set_exception(error)
        return future


class LocalPeer:
    """A leader whose folder is read without a network."""

    def __init__(self, store):
        self._store = store

    def records(self, since):
        found = [self._store.log.record(number) for number in range(since, self._store.log.last_round + 1)]
        return RoundLog(rounds=found[:2], more=len(found) > 2)

    def checkpoint(self, round_number, *, total_bytes, digest):
        info = self._store.find(str(round_number))
        if info is None:
            raise PeerError("it is gone", word=Word.NOT_FOUND)
        assert (info.bytes, info.digest) == (total_bytes, digest)
        with self._store.open(info) as file:
            content = file.read()
        for begin in range(0, len(content), BLOCK):
            yield memoryview(content)[begin : begin + BLOCK]

    def holdings(self):
        store = self._store
        return Holdings(
            term=2,
            boot_id="leader",
            newest=store.newest,
            bytes=store.manifest.committed.bytes if store.manifest.committed else 0,
            record=store.record,
            closed=store.log.last_round,
            best=store.manifest.best,
        )


def commit(store, number, value, *, best=False, close=True):
    data = np.full(1000, value, np.float32).view(np.uint8).data
    record = store.commit(number, TENSORS, iter([data]), lambda info: a_record(info, expects_evaluation=True))
    if close:
        store.keep(record.model_copy(update={"best": best, "metrics": {"accuracy": 0.5}}))


def a_folder(path, *values, term=1, best=(2,), close=True):
    """A folder with a round for each value; the last one's record may be open."""
    store = ReplicaStore(path)
    store.claim("job", term)
    for number, value in enumerate(values):
        commit(store, number, value, best=number in best, close=close or number < len(values) - 1)
    store.close()
    return path


BEGINNINGS = {
    "empty": a_folder,
    "a round behind": lambda path: a_folder(path, *range(ROUNDS - 1)),
    "a round behind, its record open": lambda path: a_folder(path, *range(ROUNDS - 1), close=False),
    "three rounds behind": lambda path: a_folder(path, *range(ROUNDS - 3)),
    "another last round": lambda path: a_folder(path, *range(ROUNDS - 1), 99),
    "another last round, its record open": lambda path: a_folder(path, *range(ROUNDS - 1), 99, close=False),
    "a round too many": lambda path: a_folder(path, *range(ROUNDS), 99, best=(2, ROUNDS)),
    "another chain": lambda path: a_folder(path, *range(50, 50 + ROUNDS + 2)),
    "its record open": lambda path: a_folder(path, *range(ROUNDS), close=False),
    "equal": lambda path: a_folder(path, *range(ROUNDS)),
}


@pytest.fixture(scope="module")
def leader(tmp_path_factory):
    store = ReplicaStore(a_folder(tmp_path_factory.mktemp("leader"), *range(ROUNDS), term=2))
    yield store
    store.close()


@asynccontextmanager
async def following(folder, disk=None):
    store = open_replica(folder, disk, job_uid="job")
    follower = Follower(store, Turns(), name="standby", token=None, copied=lambda: None)
    try:
        yield store, follower
    finally:
        follower.stop()
        store.close()


async def copy(folder, leader, disk=None):
    """Copy once; return what is held then."""
    async with following(folder, disk) as (store, follower):
        peer = LocalPeer(leader)
        await follower._copy(peer, peer.holdings())
        return content(store)


def content(store):
    log = [store.log.record(number) for number in range(store.log.last_round + 1)]
    manifest = store.manifest
    files = {path.name: path.read_bytes() for path in Path(store.staging_folder).glob("*.safetensors")}
    return store.newest, log, manifest.best, files.get(f"round-{ROUNDS - 1:06d}.safetensors")


@pytest.mark.parametrize("beginning", BEGINNINGS)
async def test_a_copy_is_equal_wherever_it_begins(beginning, leader, tmp_path):
    assert await copy(BEGINNINGS[beginning](tmp_path / "standby"), leader) == content(leader)


@pytest.mark.parametrize("beginning", BEGINNINGS)
async def test_after_a_crash_at_any_operation_the_folder_opens_and_is_copied_again(beginning, leader, tmp_path):
    template = BEGINNINGS[beginning](tmp_path / "template")
    for operations in range(200):
        folder = tmp_path / f"after-{operations}"
        shutil.copytree(template, folder)
        disk = CrashingDisk(10_000)
        async with following(folder, disk) as (_, follower):
            disk.left = operations
            peer = LocalPeer(leader)
            try:
                await follower._copy(peer, peer.holdings())
            except CrashError:
                crashed = True
            else:
                crashed = False
        assert await copy(folder, leader) == content(leader), f"after {operations} operations"
        assert not (folder / "damaged").exists(), f"after {operations} operations the folder was damaged"
        shutil.rmtree(folder)
        if not crashed:
            return
    raise AssertionError("a copy takes more than 200 operations")


async def test_nothing_is_left_of_a_copy_that_does_not_arrive_as_it_has_to(leader, tmp_path):
    class Liar(LocalPeer):
        def checkpoint(self, round_number, **_):
            yield from super().checkpoint(round_number, **_)
            raise PeerError("another digest arrived")

    folder = a_folder(tmp_path / "standby", *range(ROUNDS - 1))
    async with following(folder) as (store, follower):
        before = store.newest
        with pytest.raises(PeerError):
            await follower._copy(Liar(leader), LocalPeer(leader).holdings())
        assert store.newest == before
        assert [path.name for path in store.staging_folder.glob(f"*{ROUNDS - 1:06d}*")] == []
