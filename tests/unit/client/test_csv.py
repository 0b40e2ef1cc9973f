"""Tables of one's own."""

import numpy as np
import pytest

from fedjob_client.data.registry import load_dataset
from fedjob_client.errors import DataError
from fedjob_protocol.config import DataConfig

IRIS = "a,b,kind\n1,2,red\n3,4,blue\n5,6,red\n7,8,blue\n9,10,red\n"


def load(tmp_path, content, *, test=None, **parameters):
    path = tmp_path / "table.csv"
    path.write_text(content, encoding="utf-8")
    if test is not None:
        (tmp_path / "test.csv").write_text(test, encoding="utf-8")
        parameters["testPath"] = str(tmp_path / "test.csv")
    return load_dataset(DataConfig(name="csv", path=str(path), parameters=parameters))


def test_numbers_in_the_last_column_are_classes_and_a_fifth_is_held_out(tmp_path):
    dataset = load(tmp_path, "".join(f"{number},{-number},{number % 3}\n" for number in range(10)))
    assert (len(dataset.train), len(dataset.test), dataset.num_classes) == (8, 2, 3)
    assert dataset.train.x.dtype == np.float32
    assert dataset.train.y.dtype == np.int64
    everything = np.concatenate([dataset.train.x[:, 0], dataset.test.x[:, 0]])
    assert sorted(everything) == list(range(10))
    assert np.array_equal(dataset.train.y, dataset.train.x[:, 0] % 3)
    again = load(tmp_path, "".join(f"{number},{-number},{number % 3}\n" for number in range(10)))
    assert np.array_equal(dataset.test.x, again.test.x)


def test_names_are_classes_in_the_order_that_is_given(tmp_path):
    dataset = load(tmp_path, IRIS, classes=["red", "blue"], test="a,b,kind\n11,12,blue\n")
    assert dataset.train.y.tolist() == [0, 1, 0, 1, 0]
    assert dataset.train.x.tolist() == [[1, 2], [3, 4], [5, 6], [7, 8], [9, 10]]
    assert dataset.test.y.tolist() == [1]
    assert dataset.num_classes == 2


@pytest.mark.parametrize("label", ["kind", 0])
def test_the_label_may_be_any_column_by_name_or_number(tmp_path, label):
    dataset = load(tmp_path, "kind,x\n1,0.5\n0,1.5\n", label=label, test="kind,x\n1,2.5\n")
    assert dataset.train.y.tolist() == [1, 0]
    assert dataset.train.x[:, 0].tolist() == [0.5, 1.5]


def test_numbers_with_a_point_are_values(tmp_path):
    dataset = load(tmp_path, "10;1.5\n20;2\n", delimiter=";", scale=10, test="30;3.5\n")
    assert dataset.num_classes is None
    assert dataset.train.x.dtype == dataset.train.y.dtype == np.float64
    assert dataset.train.x.tolist() == [[1.0], [2.0]]
    assert dataset.train.y.tolist() == [1.5, 2.0]


def test_lines_may_be_images(tmp_path):
    line = ",".join(str(pixel) for pixel in range(16))
    dataset = load(tmp_path, f"{line},1\n{line},0\n", image=[4, 4, 1], scale=15, test=f"{line},1\n")
    assert dataset.image == (4, 4, 1)
    assert dataset.train.x.max() == 1.0


def test_a_file_saved_by_a_spreadsheet_is_read(tmp_path):
    dataset = load(
        tmp_path, '\ufeff"a","b","kind"\r\n"1","2","red"\r\n3,4,"blue"\r\n', classes=["blue", "red"], test=IRIS
    )
    assert dataset.train.y.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("content", "parameters", "complaint"),
    [
        ("", {}, "its first line has 0 columns"),
        ("1\n2\n", {}, "its first line has 1 columns, features and a label are needed; the delimiter is ','"),
        ("a,b\n", {}, "has no example"),
        ("1,2,0\n1,x,1\n", {}, "could not convert string 'x' to float64 at row 1, column 2"),
        ("1,2,0\n1,2\n", {}, "cannot be read: .*row 2|cannot be read: .*row 1"),
        ("1,2,0\n1,nan,1\n", {}, "line 2 has a value that is not finite"),
        (IRIS, {}, "the label 'red' in column kind is no number; list the names in data.parameters.classes"),
        (IRIS, {"classes": ["red", "green"]}, "has labels blue, which are not in classes"),
        (IRIS, {"label": "sort"}, "has no column 'sort'; it has a, b, kind"),
        ("1,2,3\n", {"label": 3}, "label is column 3, there are 3, counted from 0"),
        ("1,2,3\n1,2,0\n", {"classes": 3}, "has labels from 0 to 3; whole ones from 0 to 2 are accepted"),
        ("1,2,-1\n", {}, "has labels from -1 to -1"),
        ("1,2,0.5\n", {"classes": 3}, "has labels from 0.5 to 0.5; whole ones"),
        ("1,2,3\n4,5,6\n", {"image": [4, 4, 1]}, r"a line has 2 features, an image of \(4, 4, 1\) has 16"),
        ("1,2,3\n", {"delimiter": ";;"}, "delimiter: String should have at most 1 character"),
    ],
)
def test_what_is_no_table_is_refused_with_what_was_seen(tmp_path, content, parameters, complaint):
    with pytest.raises(DataError, match=complaint):
        load(tmp_path, content, **parameters)


def test_bytes_that_are_no_text_and_missing_files_are_refused(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes(b"\x80\x04\x95pickle\xff,\xfe\n")
    for config, complaint in (
        (DataConfig(name="csv", path=str(path)), "cannot be read"),
        (DataConfig(name="csv", path=str(tmp_path / "nosuch")), "there is no such file"),
        (DataConfig(name="csv"), "data.path: the data set csv needs the path"),
        (DataConfig(name="csv", path=str(path), parameters={"testPath": "nosuch"}), "nosuch: there is no such file"),
    ):
        with pytest.raises(DataError, match=complaint):
            load_dataset(config)
