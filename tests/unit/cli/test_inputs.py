"""Inputs of predictions from files: JSON, npz, csv, images; and what is wrong with those that cannot be read."""

import json

import numpy as np
import pytest
from PIL import Image

from fedjob.failure import Failure
from fedjob.inputs import image_size, read_images, read_inputs


def test_json_npz_and_csv_give_the_same_rows(tmp_path):
    rows = [[1.0, 2.5], [3.0, -4.0]]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    np.savez(tmp_path / "a.npz", x=np.array(rows, np.float32), y=np.array([0, 1]))
    np.savez(tmp_path / "only.npz", other=np.array(rows))
    (tmp_path / "a.csv").write_text("1,2.5\n3,-4\n")
    (tmp_path / "named.csv").write_text("\ufefffirst,second\n1,2.5\n\n3,-4\n", encoding="utf-8")
    for name in ("a.json", "a.npz", "only.npz", "a.csv", "named.csv"):
        assert read_inputs(tmp_path / name) == rows, name


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.json", b"[1,", "no JSON"),
        ("a.json", b'{"x": 1}', "dict in JSON; a list of inputs is needed"),
        ("a.csv", b"1,2\n3,x\n", "line 2: ['3', 'x'] are not all numbers"),
        ("a.json", b"[[1, NaN]]", "holds a value that is not finite"),
        ("a.csv", b"1,2\n3,inf\n", "holds a value that is not finite"),
        ("a.csv", b"\xff\xfe1", "no csv"),
        ("a.npz", b"PK\x03\x04 cut", "no npz of numbers"),
        ("a.npz", b"pickle", "no npz of numbers"),
        ("absent.json", None, "No such file"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, name, content, complaint):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(Failure) as caught:
        read_inputs(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert complaint in str(caught.value)


def test_an_npz_without_an_array_x_says_which_there_are(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros(2), labels=np.zeros(2))
    with pytest.raises(Failure, match="has the arrays images, labels; one called x is needed"):
        read_inputs(tmp_path / "a.npz")


def test_an_npz_with_a_value_that_is_not_finite_is_named(tmp_path):
    np.savez(tmp_path / "nan.npz", x=np.array([[1.0, np.nan]]))
    with pytest.raises(Failure, match=r"nan\.npz: holds a value that is not finite"):
        read_inputs(tmp_path / "nan.npz")


def test_objects_in_an_npz_are_not_loaded(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(Failure, match="no npz of numbers"):
        read_inputs(tmp_path / "a.npz")


def test_an_image_becomes_a_row_of_pixels_of_the_models_size(tmp_path):
    pixels = np.zeros((16, 16), np.uint8)
    pixels[:, 8:] = 255
    Image.fromarray(pixels).save(tmp_path / "half.png")
    (row,) = read_images([tmp_path / "half.png"], (4, 4, 1), is_inverted=False)
    image = np.array(row).reshape(4, 4)
    assert image.min() == 0
    assert image.max() == 1
    assert (np.diff(image, axis=1) >= 0).all(), "dark on the left"
    (inverted,) = read_images([tmp_path / "half.png"], (4, 4, 1), is_inverted=True)
    assert np.allclose(np.array(inverted), 1 - np.array(row))


def test_colours_of_a_pixel_are_side_by_side(tmp_path):
    Image.new("RGB", (5, 3), (255, 0, 51)).save(tmp_path / "plain.png")
    (row,) = read_images([tmp_path / "plain.png"], (2, 2, 3), is_inverted=False)
    assert row == pytest.approx([1.0, 0.0, 0.2] * 4)


def test_a_jpeg_is_read_like_a_png(tmp_path):
    Image.new("L", (8, 8), 51).save(tmp_path / "grey.jpg", quality=100)
    (row,) = read_images([tmp_path / "grey.jpg"], (8, 8, 1), is_inverted=False)
    assert np.asarray(row) == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n cut"])
def test_what_is_no_image_is_named(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(Failure, match="no PNG or JPEG that can be read"):
        read_images([tmp_path / "a.png"], (8, 8, 1), is_inverted=False)


def test_the_size_is_that_of_the_data_set_unless_it_is_given():
    assert image_size(None, "mnist") == (28, 28, 1)
    assert image_size("32x16", "mnist") == (32, 16, 1)
    assert image_size("32x32x3", None) == (32, 32, 3)
    with pytest.raises(Failure, match="the size of the images of a trainer of your own is not known"):
        image_size(None, None)


@pytest.mark.parametrize("text", ["", "28", "28x", "0x8", "8x8x2", "8x8x8x8", "-1x8", "ax8", "8 x 8"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(Failure, match="height x width is needed"):
        image_size(text, None)
