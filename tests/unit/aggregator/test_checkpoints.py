"""The folder: digests and their chain, and that a crash at any operation leaves what was before or what comes after."""

import hashlib
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from fedjob_aggregator import checkpoints
from fedjob_aggregator.checkpoints import CheckpointStore
from fedjob_aggregator.disk import Disk
from fedjob_aggregator.folder_manifest import FolderError
from fedjob_aggregator.roundlog import DamagedLogError, RoundLog
from fedjob_protocol.messages import Contribution, RoundRecord
from fedjob_protocol.reasons import Reason
from fedjob_protocol.weights import Manifest, decode
from tests.unit.aggregator.builders import NOON, xxh

TENSORS = Manifest.of_arrays({"w": np.zeros(1000, np.float32)})


def a_record(info, *, expects_evaluation=False, **changes):
    contribution = Contribution(
        client=0, name="c", examples=3, bytes=10, digest=xxh(1), received_seconds=0.5, transfer_seconds=0.1
    )
    values = {
        "round": info.round,
        "attempt": 1,
        "redraw": 0,
        "term": 1,
        "parent": info.parent,
        "digest": info.digest,
        "model_bytes": info.bytes,
        "participants": [0],
        "contributors": [contribution],
        "examples": 3,
        "started_at": NOON,
        "committed_at": NOON,
        "duration_seconds": 1.0,
        "commit_seconds": 0.1,
        "close_reason": "ClientsPerRound",
        "expects_evaluation": expects_evaluation,
    }
    return RoundRecord(**(values | changes))


def commit(store, round_number, *, evaluated=False, close=True, best=False):
    data = np.full(1000, round_number, np.float32).view(np.uint8).data
    record = store.commit(
        round_number,
        TENSORS,
        iter([data[:1024], data[1024:]]),
        lambda info: a_record(info, expects_evaluation=evaluated),
    )
    if close:
        store.keep(record.model_copy(update={"best": best, "metrics": {"accuracy": 0.5}}) if evaluated else record)
    return record


STORES = []


@pytest.fixture(autouse=True)
def _closed_at_the_end():
    yield
    while STORES:
        STORES.pop().close()


def opened(folder, disk=None, **arguments):
    store = CheckpointStore(Path(folder), disk, **arguments)
    STORES.append(store)
    return store


def files(folder):
    return sorted(path.name for path in (Path(folder) / "checkpoints").iterdir())


def damage(path, position=-1):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(bytes(content))


def failure(folder, **arguments):
    with pytest.raises(FolderError) as caught:
        opened(folder, **arguments)
    return caught.value


# Commits


def test_a_digest_is_what_sha256sum_prints_and_names_the_one_before(tmp_path):
    store = opened(tmp_path)
    store.claim("job", 1)
    records = [commit(store, number) for number in range(3)]
    for record in records[1:]:
        content = (tmp_path / "checkpoints" / f"round-{record.round:06d}.safetensors").read_bytes()
        assert record.digest == "sha256:" + hashlib.sha256(content).hexdigest()
        arrays, metadata = decode(content)
        assert set(arrays["w"].tolist()) == {record.round}
        assert metadata == {"fedjob.round": str(record.round), "fedjob.parent": records[record.round - 1].digest}
        assert record.model_bytes == len(content)
    store.close()


def test_equal_runs_have_equal_digests_whatever_the_job_and_the_term(tmp_path):
    digests = []
    for job, term in (("first", 1), ("second", 7)):
        store = opened(tmp_path / job)
        store.claim(job, term)
        digests.append([commit(store, number).digest for number in range(3)])
        store.close()
    assert digests[0] == digests[1]


def test_the_newest_the_one_before_and_the_best_are_kept(tmp_path):
    store = opened(tmp_path)
    store.claim("job", 1)
    for number in range(6):
        commit(store, number, evaluated=True, best=number == 2)
    assert files(tmp_path) == [f"round-00000{number}.safetensors" for number in (2, 4, 5)]
    assert [store.find(which).round for which in ("latest", "best", "2", "4", "5")] == [5, 2, 2, 4, 5]
    assert store.find("3") is None
    commit(store, 6, evaluated=True, best=True)
    assert files(tmp_path) == ["round-000005.safetensors", "round-000006.safetensors"]
    store.close()


def test_what_is_there_is_found_again(tmp_path):
    store = opened(tmp_path)
    store.claim("job", 4)
    commit(store, 0)
    record = commit(store, 1, evaluated=True, close=False)
    store.close()
    again = opened(tmp_path, job_uid="job")
    assert (again.manifest.job_uid, again.manifest.term, again.record) == ("job", 4, record)
    assert (again.log.last_round, again.tensors) == (0, TENSORS)
    again.keep(record.model_copy(update={"metrics": {"accuracy": 1.0}, "best": True}))
    again.close()
    third = opened(tmp_path)
    assert third.record.metrics == {"accuracy": 1.0}
    assert third.manifest.best.round == 1
    third.close()


def test_only_the_next_round_is_committed(tmp_path):
    store = opened(tmp_path)
    store.claim("job", 1)
    commit(store, 0)
    for number in (0, 2):
        with pytest.raises(AssertionError):
            commit(store, number)
    store.close()


# Crashes


class Photographer(Disk):
    """Copies the folder before and after each operation: what a crash at that moment would leave."""

    def __init__(self, folder, album):
        self.folder, self.album, self.count = folder, album, 0

    def photograph(self):
        shutil.copytree(self.folder, self.album / f"{self.count:03d}", ignore=shutil.ignore_patterns(".lock"))
        self.count += 1

    def around(self, operation, *arguments):
        self.photograph()
        operation(*arguments)
        self.photograph()

    def sync(self, descriptor):
        self.around(super().sync, descriptor)

    def rename(self, temporary, path):
        self.around(super().rename, temporary, path)

    def remove(self, path):
        self.around(super().remove, path)


def test_a_crash_at_any_operation_leaves_the_round_before_or_the_next_one(tmp_path):
    folder, album = tmp_path / "folder", tmp_path / "album"
    album.mkdir()
    store = opened(folder)
    store.claim("job", 1)
    commit(store, 0)
    commit(store, 1, evaluated=True, best=True)
    store._disk = store.log._disk = Photographer(folder, album)
    old = store.manifest.committed
    new = commit(store, 2, evaluated=True, best=True)
    store.close()
    photographs = sorted(album.iterdir())
    assert len(photographs) > 20
    seen = []
    for photograph in photographs:
        survivor = opened(photograph)
        record = survivor.record
        assert record.digest in {old.digest, new.digest}
        assert survivor.log.last_round in {record.round - 1, record.round}
        assert all(name.endswith(".safetensors") for name in files(photograph))
        assert not (photograph / "manifest.json.tmp").exists()
        closed = survivor.log.last_round == record.round
        assert (record.metrics is not None) == closed
        assert not closed or survivor.manifest.best.digest == record.digest
        seen.append((record.round, closed))
        if not closed:
            survivor.keep(record)
        commit(survivor, record.round + 1)
        survivor.close()
    assert seen == sorted(seen)
    assert {(1, True), (2, False), (2, True)} == set(seen)


def test_the_order_of_a_commit(tmp_path):
    order = []

    class Listing(Disk):
        def sync(self, descriptor):
            order.append("sync " + Path(f"/proc/self/fd/{descriptor}").readlink().name)
            super().sync(descriptor)

        def rename(self, temporary, path):
            order.append(f"rename {path.name}")
            super().rename(temporary, path)

        def remove(self, path):
            if path.exists():
                order.append(f"remove {path.name}")
            super().remove(path)

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to see what is synced")
    store = opened(tmp_path, Listing())
    store.claim("job", 1)
    commit(store, 0)
    commit(store, 1)
    order.clear()
    commit(store, 2, close=False)
    store.close()
    assert order == [
        "sync round-000002.safetensors.tmp",
        "rename round-000002.safetensors",
        "sync checkpoints",
        "sync manifest.json.tmp",
        "rename manifest.json",
        f"sync {tmp_path.name}",
        "remove round-000000.safetensors",
    ]


class Failing(Disk):
    """Fails at the n-th operation, and then works again."""

    def __init__(self):
        self.left = -1

    def tick(self):
        self.left -= 1
        if self.left == 0:
            raise OSError(28, "No space left on device")

    def write_new(self, path, blocks):
        def limited():
            for block in blocks:
                self.tick()
                yield block

        super().write_new(path, limited())

    def sync(self, descriptor):
        self.tick()
        super().sync(descriptor)

    def rename(self, temporary, path):
        self.tick()
        super().rename(temporary, path)


@pytest.mark.parametrize("operation", range(1, 12))
def test_a_commit_that_storage_refuses_changes_nothing_and_works_when_there_is_room(tmp_path, operation):
    disk = Failing()
    store = opened(tmp_path, disk)
    store.claim("job", 1)
    commit(store, 0)
    before = store.manifest
    disk.left = operation
    with pytest.raises(OSError, match="No space left"):
        commit(store, 1)
    if operation < 11:  # afterwards the round is committed, and only its line is missing in the log
        assert store.manifest == before
        assert not list(tmp_path.glob("**/*.tmp"))
        commit(store, 1)
    else:
        assert store.manifest.committed.round == 1
    commit(store, 2)
    store.close()
    assert [json.loads(line)["round"] for line in (tmp_path / "rounds.jsonl").read_text().splitlines()] == [0, 1, 2]


def test_leftovers_of_a_crash_are_removed(tmp_path):
    store = opened(tmp_path)
    store.claim("job", 1)
    commit(store, 0)
    store.close()
    for name in ("round-000001.safetensors", "round-000001.safetensors.tmp"):
        (tmp_path / "checkpoints" / name).write_bytes(b"torn")
    (tmp_path / "manifest.json.tmp").write_bytes(b"torn")
    opened(tmp_path).close()
    assert files(tmp_path) == ["round-000000.safetensors"]
    assert not (tmp_path / "manifest.json.tmp").exists()


# Damage


@pytest.fixture
def folder(tmp_path):
    store = opened(tmp_path)
    store.claim("job", 1)
    for number in range(3):
        commit(store, number, evaluated=True, best=number == 0)
    store.close()
    return tmp_path


@pytest.mark.parametrize("change", ["flip", "tear", "remove"])
def test_a_damaged_newest_checkpoint_is_never_served(folder, change):
    path = folder / "checkpoints" / "round-000002.safetensors"
    before = files(folder)
    if change == "flip":
        damage(path)
    elif change == "tear":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        path.unlink()
        before.remove(path.name)
    assert failure(folder).reason is Reason.CHECKPOINT_LOST
    assert files(folder) == before


@pytest.mark.parametrize(("name", "which"), [("round-000001", "previous"), ("round-000000", "best")])
def test_other_damaged_checkpoints_are_forgotten(folder, name, which):
    damage(folder / "checkpoints" / f"{name}.safetensors")
    store = opened(folder)
    assert getattr(store.manifest, which) is None
    assert store.find("latest").round == 2
    commit(store, 3)
    store.close()


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"null", b"\xff", b'{"format": 1, "checksum": "x"}'])
def test_a_manifest_that_cannot_be_read_is_not_replaced(folder, content):
    (folder / "manifest.json").write_bytes(content)
    assert failure(folder).reason is Reason.CHECKPOINT_LOST
    assert (folder / "manifest.json").read_bytes() == content


def test_a_manifest_that_was_edited_is_refused(folder):
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"term": 1', '"term": 2', 1))
    assert "changed or is damaged" in str(failure(folder))


def test_checkpoints_without_a_manifest_are_not_overwritten(folder):
    (folder / "manifest.json").unlink()
    assert failure(folder).reason is Reason.CHECKPOINT_LOST
    assert len(files(folder)) == 3


def test_a_foreign_folder_is_refused(folder):
    assert failure(folder, job_uid="other").reason is Reason.FOREIGN_VOLUME


def test_a_folder_that_is_in_use_is_refused_after_a_while(folder, monkeypatch):
    monkeypatch.setattr(checkpoints, "LOCK_SECONDS", 0.01)
    store = opened(folder)
    refusal = failure(folder)
    assert refusal.reason is Reason.FOLDER_IN_USE
    assert "used by another aggregator" in str(refusal)
    store.close()
    opened(folder).close()


def test_a_folder_is_waited_for_while_its_owner_dies(folder):
    store = opened(folder)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(opened, folder)
        assert not waiting.done()
        store.close()
        waiting.result(timeout=10).close()


def test_a_path_that_is_no_folder_is_refused(tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    assert failure(path).reason is Reason.CHECKPOINT_FAILED


# The round log


def test_a_torn_last_line_is_cut_off(folder):
    path = folder / "rounds.jsonl"
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for length in (1, 20, len(lines[2]) - 1):
        path.write_bytes(b"".join(lines[:2]) + lines[2][:length])
        store = opened(folder)
        assert store.log.last_round == 1
        assert path.read_bytes() == b"".join(lines[:2])
        store.keep(RoundRecord.model_validate_json(lines[2]))
        store.close()
        assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines[1:],
        lambda lines: [lines[0], lines[2]],
        lambda lines: [lines[0], b"garbage\n", lines[2]],
        lambda lines: lines[:1],
        lambda _lines: [],
        lambda lines: [*lines, lines[2]],
    ],
)
def test_a_log_that_lacks_rounds_is_refused(folder, change):
    path = folder / "rounds.jsonl"
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
    assert failure(folder).reason is Reason.CHECKPOINT_LOST


def test_a_line_that_cannot_be_written_leaves_the_log_as_it_was(folder, tmp_path):
    lines = (folder / "rounds.jsonl").read_bytes()
    disk = Failing()
    log = RoundLog(folder / "rounds.jsonl", disk)
    record = log.record(2).model_copy(update={"round": 3})
    disk.left = 1
    with pytest.raises(OSError, match="No space left"):
        log.append(record)
    assert (folder / "rounds.jsonl").read_bytes() == lines
    log.append(record)
    log.append(record)
    assert log.last_round == 3
    log.close()


def test_the_log_is_read_in_pages(folder):
    log = RoundLog(folder / "rounds.jsonl", Disk())
    pages = [([json.loads(line)["round"] for line in lines], more) for lines, more in (log.page(0, 2), log.page(2, 2))]
    assert pages == [([0, 1], True), ([2], False)]
    assert log.page(3, 10) == ([], False)
    assert log.record(5) is None
    log.close()


def test_a_line_that_is_appended_meanwhile_is_not_half_in_a_page(folder, monkeypatch):
    log = RoundLog(folder / "rounds.jsonl", Disk())
    added = log.record(2).model_copy(update={"round": 3})
    read = log._line
    monkeypatch.setattr(log, "_line", lambda number: (log.append(added), read(number))[1])
    lines, more = log.page(0, 10)
    assert (len(lines), more, log.last_round) == (3, False, 3)
    log.close()


def test_a_page_is_bounded_but_never_empty(folder, monkeypatch):
    monkeypatch.setattr("fedjob_aggregator.roundlog.MAX_PAGE_BYTES", 10)
    log = RoundLog(folder / "rounds.jsonl", Disk())
    lines, more = log.page(0, 10)
    assert (len(lines), more) == (1, True)
    log.close()


def test_a_strange_line_is_named(tmp_path):
    path = tmp_path / "rounds.jsonl"
    path.write_bytes(b'{"round":1}\n')
    with pytest.raises(DamagedLogError, match="line 1"):
        RoundLog(path, Disk())
