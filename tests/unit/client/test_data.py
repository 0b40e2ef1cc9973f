import gzip
import io
import struct
import sys
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedjob_client.data import digits as digits_module
from fedjob_client.data.mnist import read_images, read_labels
from fedjob_client.data.registry import load_dataset
from fedjob_client.errors import DataError
from fedjob_protocol.config import DataConfig, PartitionConfig, PartitionScheme, Role


def load(name, *, seed=0, index=0, role=Role.TRAINER, **values):
    return load_dataset(DataConfig(name=name, **values), seed=seed, index=index, role=role)


def thirds(index):
    return PartitionConfig(scheme=PartitionScheme.IID, index=index, count=3)


def test_an_unknown_data_set_is_named_with_the_known_ones():
    with pytest.raises(DataError, match=r"'cifar' is not known; known: cifar10, csv, digits, mnist, npz"):
        load("cifar")


def test_an_unknown_parameter_is_named_with_the_known_ones():
    with pytest.raises(
        DataError, match=r"data.parameters: samples is not known; known: b, features, noise, numSamples"
    ):
        load("synthetic-linear", parameters={"samples": 3})


# Synthetic


def test_linear_data_follow_their_truth():
    train = load("synthetic-linear", parameters={"numSamples": 4000}).train
    w, b = np.polyfit(train.x[:, 0], train.y, 1)
    assert w == pytest.approx(3.5, abs=0.02)
    assert b == pytest.approx(2.0, abs=0.05)
    assert np.std(train.y - 3.5 * train.x[:, 0] - 2) == pytest.approx(0.5, abs=0.02)
    assert np.abs(train.x).max() < 5


def test_logistic_data_are_two_classes_on_both_sides_of_the_boundary():
    dataset = load("synthetic-logistic", parameters={"numSamples": 4000})
    x, y = dataset.train.x[:, 0], dataset.train.y
    assert dataset.num_classes == 2
    assert x.dtype == np.float32
    assert y[x > 3].mean() > 0.95
    assert y[x < -2].mean() < 0.05


def test_without_a_partition_each_client_has_its_own_examples_and_all_the_same_held_out_ones():
    first, second = load("synthetic-linear", index=0), load("synthetic-linear", index=1)
    assert not np.array_equal(first.train.x, second.train.x)
    assert np.array_equal(first.test.x, second.test.x)
    assert np.array_equal(first.train.x, load("synthetic-linear", index=0).train.x)


def test_with_a_partition_one_data_set_is_divided():
    parts = [load("synthetic-linear", index=index, partition=thirds(index)).train.x for index in range(3)]
    assert sum(map(len, parts)) == 1000
    assert len(np.unique(np.concatenate(parts))) == 1000


def test_another_job_has_other_synthetic_data():
    assert not np.array_equal(load("synthetic-linear", seed=1).train.x, load("synthetic-linear", seed=2).train.x)


# Digits


def test_digits_come_without_importing_scikit_learn():
    sys.modules.pop("sklearn", None)
    dataset = load("digits")
    assert "sklearn" not in sys.modules
    assert dataset.num_classes == 10
    assert (len(dataset.train), len(dataset.test)) == (1437, 360)
    assert dataset.train.x.dtype == np.float32
    assert dataset.train.x.min() == 0
    assert dataset.train.x.max() == 1
    assert set(dataset.test.y) == set(range(10))


def test_the_held_out_digits_are_the_same_in_every_job_and_not_trained_on():
    one, other = load("digits", seed=1), load("digits", seed=2, index=3)
    assert np.array_equal(one.test.x, other.test.x)
    assert not {row.tobytes() for row in one.test.x} & {row.tobytes() for row in one.train.x}


def test_limits_apply_before_the_division_and_are_the_same_choice_each_time():
    whole = load("digits", max_train_samples=300, max_test_samples=50)
    assert (len(whole.train), len(whole.test)) == (300, 50)
    assert len(set(whole.train.y)) == 10
    parts = [load("digits", max_train_samples=300, partition=thirds(index)).train for index in range(3)]
    assert sum(map(len, parts)) == 300
    assert {row.tobytes() for part in parts for row in part.x} == {row.tobytes() for row in whole.train.x}


def test_without_scikit_learn_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr(digits_module, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install scikit-learn"):
        load("digits")


@pytest.mark.parametrize("table", [np.zeros((500, 64)), np.zeros((10, 65)), np.full((500, 65), 17.0), np.zeros(5)])
def test_a_table_that_is_not_the_digits_is_refused(table):
    with pytest.raises(DataError, match="expected"):
        digits_module.checked(table, "digits.csv.gz")


# MNIST


def idx_images(count=6, rows=2, columns=3, *, magic=0x803, pixels=None):
    data = bytes(range(256))[: count * rows * columns] if pixels is None else pixels
    return struct.pack(">IIII", magic, count, rows, columns) + data


def idx_labels(labels=(0, 1, 2, 0, 1, 2), *, magic=0x801, count=None):
    return struct.pack(">II", magic, len(labels) if count is None else count) + bytes(labels)


def gzipped(content):
    # The time of packing is left out: it would make the same case another one in each process.
    return gzip.compress(content, mtime=0)


@pytest.fixture
def mnist_folder(tmp_path: Path) -> Path:
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzipped(idx_images()))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_labels())
    (tmp_path / "t10k-images.idx3-ubyte").write_bytes(idx_images(4))
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzipped(idx_labels((3, 2, 1, 0))))
    return tmp_path


def test_mnist_is_read_from_plain_and_gzipped_files(mnist_folder):
    dataset = load("mnist", path=str(mnist_folder))
    assert dataset.num_classes == 4
    assert dataset.train.x.shape == (6, 6)
    assert dataset.train.x[1, 0] == np.float32(6 / 255)
    assert dataset.test.y.tolist() == [3, 2, 1, 0]


def test_a_client_reads_only_its_part_and_the_held_out_images_when_asked(mnist_folder):
    dataset = load("mnist", path=str(mnist_folder), partition=thirds(1))
    assert len(dataset.train) == 2
    assert dataset.loaded_test is None
    assert len(dataset.test) == 1
    assert dataset.loaded_test is not None


def test_held_out_examples_of_a_divided_data_set_are_divided_too_and_for_an_evaluator_whole(mnist_folder):
    parts = [load("mnist", path=str(mnist_folder), partition=thirds(index)).test for index in range(3)]
    assert sorted(label for part in parts for label in part.y.tolist()) == [0, 1, 2, 3]
    assert all(len(part) for part in parts)
    assert len(load("mnist", path=str(mnist_folder), role=Role.EVALUATOR).test) == 4


def test_missing_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"there is none of train-images-idx3-ubyte, train-images-idx3-ubyte.gz"):
        load("mnist", path=str(tmp_path))
    with pytest.raises(DataError, match=r"data.path: the data set mnist needs the folder"):
        load("mnist")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "its header has 0 bytes, 16 are expected"),
        (idx_images()[:10], "its header has 10 bytes, 16 are expected"),
        (idx_images(magic=0x801), "starts with 0x00000801, an IDX file of images starts with 0x00000803"),
        (idx_images()[:-1], "announces 36 bytes of data after 16 of header, it has 35 bytes"),
        (idx_images() + b"x", "announces 36 bytes of data after 16 of header, it has more"),
        (idx_images(7, pixels=bytes(42)), "7 images, but the labels' file has 6 labels"),
        (idx_images(6, 0, 3, pixels=b""), "images of 0 x 3 pixels"),
        (idx_images(6, 2**31, 2**31, pixels=b""), "at most 2147483648 are read"),
        (b"\x80\x04\x95pickle" + bytes(20), "starts with 0x80049570"),
    ],
)
def test_damaged_images_are_refused_with_what_was_seen(tmp_path, content, complaint):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(DataError, match=complaint) as raised:
        read_images(path, expected=6)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        pytest.param(gzipped(idx_labels())[:-9], "cut off: what is compressed", id="cut off"),
        pytest.param(b"this is not gzip", "cannot be read", id="not gzip"),
        pytest.param(gzipped(idx_labels())[:14] + b"\xff" * 20, "cannot be read|cut off|starts with", id="damaged"),
        pytest.param(gzipped(idx_labels(count=4_000_000_000)), "at most 2147483648 are read", id="announces too many"),
        pytest.param(gzipped(idx_labels(count=2_000_000_000)), "it has 6 bytes of data", id="announces more"),
        pytest.param(gzipped(idx_labels((0, 1)) + bytes(50_000_000)), "it has more", id="unpacks to far more"),
    ],
)
def test_damaged_gzip_is_refused_without_taking_the_memory_it_claims(tmp_path, content, complaint):
    path = tmp_path / "train-labels-idx1-ubyte.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=complaint):
        read_labels(path)


# npz


@pytest.fixture
def arrays():
    return {
        "x_train": np.arange(12, dtype=np.float64).reshape(6, 2),
        "y_train": np.array([0, 1, 2, 0, 1, 2]),
        "x_test": np.ones((3, 2), dtype=np.uint8),
        "y_test": np.array([0, 3, 0], dtype=np.uint8),
    }


def write(path, arrays, *, compressed=True):
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return str(path)


@pytest.mark.parametrize("compressed", [True, False])
def test_your_own_arrays_with_labels_are_a_classification(tmp_path, arrays, compressed):
    dataset = load("npz", path=write(tmp_path / "a.npz", arrays, compressed=compressed))
    assert dataset.num_classes == 4
    assert dataset.train.x.dtype == dataset.test.x.dtype == np.float32
    assert dataset.train.x.tolist() == arrays["x_train"].tolist()
    assert dataset.test.y.dtype == np.int64


def test_your_own_arrays_with_values_are_a_regression(tmp_path, arrays):
    arrays["y_train"] = arrays["y_train"][:, None] / 2
    arrays["y_test"] = arrays["y_test"] / 2
    dataset = load("npz", path=write(tmp_path / "a.npz", arrays))
    assert dataset.num_classes is None
    assert dataset.train.x.dtype == np.float64
    assert dataset.train.y.tolist() == [0, 0.5, 1, 0, 0.5, 1]


def test_images_keep_their_shape_and_fortran_order_is_understood(tmp_path, arrays):
    arrays["x_train"] = np.asfortranarray(np.arange(24.0).reshape(6, 2, 2))
    dataset = load("npz", path=write(tmp_path / "a.npz", arrays))
    assert dataset.train.x[1].tolist() == [[4, 5], [6, 7]]


@pytest.mark.parametrize(
    ("name", "array", "complaint"),
    [
        ("x_train", None, "has no array x_train"),
        ("x_train", np.array([{}] * 6), "objects are never unpickled"),
        ("x_train", np.full((6, 2), np.nan), "not finite"),
        ("x_train", np.zeros((5, 2)), "one y for each row"),
        ("x_train", np.float64(3), "single number"),
        ("y_train", np.array([0, 1, 2, 0, 1, -1]), "labels from -1 to 2"),
        ("y_train", np.zeros((6, 2)), "one number for each example"),
        ("y_train", np.full(6, np.inf), "not finite"),
    ],
)
def test_unusable_arrays_are_refused_by_name(tmp_path, arrays, name, array, complaint):
    changed = {**arrays, name: array}
    path = write(tmp_path / "a.npz", {key: value for key, value in changed.items() if value is not None})
    with pytest.raises(DataError, match=complaint):
        load("npz", path=path)


def test_the_number_of_classes_can_be_given_and_is_kept_to(tmp_path, arrays):
    path = write(tmp_path / "a.npz", arrays)
    assert load("npz", path=path, parameters={"classes": 10}).num_classes == 10
    with pytest.raises(DataError, match="labels from 0 to 2; 0 to 1 are accepted"):
        load("npz", path=path, parameters={"classes": 2})


def lying_npz(path: Path, shape: tuple[int, ...], data: bytes) -> str:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x_train.npy", header.getvalue() + data)
        archive.writestr("y_train.npy", b"nonsense")
    return str(path)


def test_a_lying_header_takes_no_memory(tmp_path):
    arrays = {"y_train": np.zeros(2, dtype=np.int64)}
    path = tmp_path / "a.npz"
    write(path, arrays)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (2, 10**12)})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x_train.npy", header.getvalue() + bytes(32))
    with pytest.raises(DataError, match="needs 16000000000000 bytes, it has 32"):
        load("npz", path=str(path))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"\x93NUMPY" + bytes(100), bytes(5000)])
def test_a_file_that_is_no_npz_is_refused(tmp_path, content):
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        load("npz", path=str(path))


def test_nonsense_in_the_archive_is_refused(tmp_path):
    path = lying_npz(tmp_path / "a.npz", (2,), bytes(16))
    with pytest.raises(DataError, match="array y_train cannot be read"):
        load("npz", path=path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="there is no such file"):
        load("npz", path=str(tmp_path / "none.npz"))


# Any damage


def damaged(content: bytes, damage: list[tuple[float, int]], cut: float) -> bytes:
    changed = bytearray(content)
    for place, value in damage:
        changed[int(place * len(changed))] = value
    return bytes(changed[: int(cut * len(changed))] if cut < 0.9 else changed)


damages = given(
    damage=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=4),
    cut=st.floats(0, 1),
    data=st.data(),
)
many = settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@many
@damages
def test_a_damaged_npz_is_read_or_refused_and_nothing_else(tmp_path, damage, cut, data):
    arrays = {name: np.arange(6.0) for name in ("x_train", "y_train", "x_test", "y_test")}
    path = tmp_path / "a.npz"
    write(path, arrays, compressed=data.draw(st.booleans()))
    path.write_bytes(damaged(path.read_bytes(), damage, cut))
    with suppress(DataError):
        dataset = load("npz", path=str(path))
        assert len(dataset.train) == len(dataset.train.y)


@many
@damages
def test_damaged_idx_files_are_read_or_refused_and_nothing_else(tmp_path, damage, cut, data):
    content = idx_images()
    is_compressed = data.draw(st.booleans())
    path = tmp_path / ("images.gz" if is_compressed else "images")
    path.write_bytes(damaged(gzipped(content) if is_compressed else content, damage, cut))
    with suppress(DataError):
        assert read_images(path, expected=6).shape[0] == 6
