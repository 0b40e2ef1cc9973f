"""CIFAR-10 in both published versions; what is damaged, or would run code, is refused by name."""

import os
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjob_client.data import cifar10 as module
from fedjob_client.data.batch_pickle import BatchError, read_batch
from fedjob_client.data.registry import load_dataset
from fedjob_client.errors import DataError
from fedjob_protocol.config import DataConfig
from tests.support.cifar import PIXELS, binary, pickled, some_records, write_archive, write_folder

RECORDS = 20


@pytest.fixture(autouse=True)
def _small_files(monkeypatch):
    monkeypatch.setattr(module, "RECORDS", RECORDS)
    monkeypatch.setattr(module, "BATCH_BYTES", RECORDS * (1 + PIXELS))


def load(path, **values):
    return load_dataset(DataConfig(name="cifar10", path=str(path), **values))


def places(tmp_path, version):
    """Everywhere where the files of a version may lie."""
    short = {"binary": "bin", "python": "py"}[version]
    folder = write_folder(tmp_path / f"cifar-10-batches-{short}", RECORDS, version=version)
    (tmp_path / "a").mkdir()
    archive = write_archive(tmp_path / "a" / f"cifar-10-{version}.tar.gz", folder, folder.name)
    return [folder, tmp_path, archive, tmp_path / "a"]


@pytest.mark.parametrize("version", ["binary", "python"])
def test_both_versions_are_read_wherever_they_lie_and_are_the_same(tmp_path, version):
    pixels, labels = some_records(RECORDS, 0)
    for place in places(tmp_path, version):
        dataset = load(place)
        assert (len(dataset.train), len(dataset.test), dataset.num_classes) == (5 * RECORDS, RECORDS, 10)
        assert dataset.image == (32, 32, 3)
        assert np.array_equal(dataset.train.y[:RECORDS], labels)
        assert dataset.train.x.dtype == np.float32
        images = dataset.train.x.reshape(-1, 32, 32, 3)
        # Stored: 1,024 bytes of red, then of green, then of blue, row by row.
        assert images[3, 5, 7, 1] == np.float32(pixels[3, 1024 + 5 * 32 + 7] / np.float32(255))
        assert images[0, 0, 0].tolist() == pytest.approx([pixels[0, plane * 1024] / 255 for plane in range(3)])
        assert np.array_equal(dataset.test.y, some_records(RECORDS, 5)[1])


def test_the_files_made_here_are_pickles_that_hold_the_same():
    batch = pickle.loads(pickled(RECORDS, 3), encoding="bytes")  # our own bytes
    pixels, labels = some_records(RECORDS, 3)
    assert np.array_equal(batch[b"data"], pixels)
    assert batch[b"labels"] == labels.tolist()
    found = read_batch(pickled(RECORDS, 3), records=RECORDS, pixels=PIXELS)
    assert np.array_equal(found[0], pixels)
    assert np.array_equal(found[1], labels)


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(tmp_path, protocol):
    target = tmp_path / "made-by-a-pickle"
    with pytest.raises(BatchError, match=r"names are not looked up|which no batch has"):
        read_batch(pickle.dumps(Evil(target), protocol=protocol), records=RECORDS, pixels=PIXELS)
    hidden = (
        b"Ux" + b"x" * 0x78 + b"cposix\nmkdir\n" + b"U" + bytes([len(str(target))]) + str(target).encode() + b"\x85R"
    )
    with pytest.raises(BatchError, match="'posix mkdir', and names are not looked up"):
        read_batch(pickled(RECORDS, 0, head=hidden), records=RECORDS, pixels=PIXELS)
    assert not target.exists()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "it is no batch"),
        (b"not a pickle", "it is no batch|which no batch has"),
        (pickled(RECORDS, 0)[:-400], "it is no batch"),
        (pickled(RECORDS, 0, data=bytes(5)), r"shape \(20, 3072\) in 5 bytes"),
        (pickled(RECORDS, 0, kind=b"O8"), "no array of bytes"),
        (pickled(RECORDS - 1, 0), r"shape \(19, 3072\)"),
        (pickle.dumps({"data": 1}, protocol=0), "which no batch has|it is no batch"),
        (b"\x80\x02}q\x01U\x01aU\x01bs.", "it is no batch: 'data'"),
        (b"\x80\x02\x86.", "items of nothing|it is no batch"),
        (b"S'\\d'\n.", "it has the instruction STRING, which no batch has"),
        (b"\x80\x02e.", "it is no batch"),
        (b"\x80\x02K\x01K\x02R.", "tuple expected, int seen"),
    ],
)
def test_what_is_no_batch_is_refused(content, complaint):
    with pytest.raises(BatchError, match=complaint):
        read_batch(content, records=RECORDS, pixels=PIXELS)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_no_bytes_do_anything_but_be_refused(data):
    """Any damage gives arrays of the right shape or a `BatchError`, nothing else."""
    content = bytearray(pickled(2, 1, data=bytes(2 * PIXELS)))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, 350))] = data.draw(st.integers(0, 255))
    try:
        pixels, labels = read_batch(bytes(content), records=2, pixels=PIXELS)
    except BatchError:
        return
    assert (pixels.shape, labels.shape) == ((2, PIXELS), (2,))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (binary(RECORDS, 1)[:-1], r"has 61459 bytes, a batch of CIFAR-10 has 61460 .*: it is cut off; fetch it again"),
        (binary(RECORDS - 1, 1), "it is cut off"),
        (binary(RECORDS, 1) + b"x", "it is something else"),
        (b"\x0a" + binary(RECORDS, 1)[1:], "has labels from 0 to 10, 0 to 9 are expected"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, content, complaint):
    write_folder(tmp_path, RECORDS)
    (tmp_path / "data_batch_2.bin").write_bytes(content)
    with pytest.raises(DataError, match=complaint) as raised:
        load(tmp_path)
    assert "data_batch_2.bin" in str(raised.value)


def test_a_damaged_batch_of_the_python_version_points_to_the_binary_one(tmp_path):
    write_folder(tmp_path, RECORDS, version="python")
    (tmp_path / "data_batch_4").write_bytes(pickle.dumps(Evil(tmp_path / "x"), protocol=2))
    with pytest.raises(DataError, match=r"data_batch_4: cannot be read without running code: .*cifar-10-binary.tar.gz"):
        load(tmp_path)
    assert not (tmp_path / "x").exists()


def test_missing_files_and_archives_that_are_cut_off_are_named(tmp_path):
    with pytest.raises(DataError, match=r"there is none of cifar-10-batches-bin, .*fedjob data fetch cifar10"):
        load(tmp_path)
    with pytest.raises(DataError, match=r"data.path: the data set cifar10 needs the folder"):
        load_dataset(DataConfig(name="cifar10"))
    folder = write_folder(tmp_path / "cifar-10-batches-bin", RECORDS)
    archive = write_archive(tmp_path / "cifar-10-binary.tar.gz", folder, folder.name)
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cifar-10-binary.tar.gz: is cut off or no archive: .*; fetch it again"):
        load(archive)
    archive.write_bytes(b"<html>not found</html>" * 100)
    with pytest.raises(DataError, match="is cut off or no archive"):
        load(archive)
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(DataError, match=r"data_batch_3.bin: cannot be read: No such file"):
        load(folder)
    write_archive(archive, folder, folder.name)
    with pytest.raises(DataError, match=r"has no cifar-10-batches-bin/data_batch_3.bin"):
        load(archive)


def test_names_in_an_archive_lead_nowhere(tmp_path):
    folder = write_folder(tmp_path / "f", RECORDS)
    archive = write_archive(tmp_path / "cifar-10-binary.tar.gz", folder, "../cifar-10-batches-bin")
    with pytest.raises(DataError, match=r"has no cifar-10-batches-bin/data_batch_1.bin"):
        load(archive)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cifar-10-binary.tar.gz", "f"]
