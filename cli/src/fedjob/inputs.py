"""What a model is to predict, read from files: JSON, npz, csv, images."""

import csv
import io
import json
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from fedjob.failure import EXIT_USAGE, Failure

MAX_INPUT_BYTES: Final = 64 << 20
MAX_PIXELS: Final = 100_000_000
"""Largest image that is read, before it is made smaller."""
IMAGE_SIZES: Final[Mapping[str, tuple[int, int, int]]] = MappingProxyType(
    {"digits": (8, 8, 1), "mnist": (28, 28, 1), "cifar10": (32, 32, 3)}
)
"""Height, width and colours of the images of built-in data sets."""


def read_inputs(path: Path) -> list[Any]:
    """Read inputs, one entry per prediction.

    Args:
        path: JSON with a list, ``-`` for JSON on standard input; npz with the array ``x``, or with one only; csv of
            numbers, with or without a line of names.

    Raises:
        Failure: It cannot be read, is none of these, or holds a value that is not finite.
    """
    rows = _rows(path)
    try:
        is_finite = bool(np.isfinite(np.array(rows, dtype=np.float64)).all())
    except (ValueError, TypeError, OverflowError):
        return rows  # no table of numbers: whether the model takes it is for its client to say
    if not is_finite:
        raise _unusable(path, "holds a value that is not finite (NaN or infinity); replace it, or leave out its row")
    return rows


def _rows(path: Path) -> list[Any]:
    suffix = path.suffix.lower()
    raw = _read(path)
    if suffix == ".npz":
        return _from_npz(path, raw)
    if suffix == ".csv":
        return _from_csv(path, raw)
    try:
        value = json.loads(raw)
    except ValueError as error:
        raise _unusable(path, f"no JSON: {error}") from error
    if not isinstance(value, list):
        raise _unusable(path, f"{type(value).__name__} in JSON; a list of inputs is needed")
    return value


def read_images(paths: Sequence[Path], size: tuple[int, int, int], *, is_inverted: bool) -> list[Any]:
    """Read images as rows of pixels from 0 to 1, row by row, the colours of a pixel side by side.

    Args:
        paths: PNG or JPEG files.
        size: Height, width and number of colours, 1 or 3, that the model takes.
        is_inverted: Whether black and white are swapped, as for dark writing on light paper.

    Raises:
        Failure: One cannot be read, or Pillow is not installed.
    """
    try:
        from PIL import Image, UnidentifiedImageError  # noqa: PLC0415 - an extra
    except ImportError:
        raise Failure(
            "--image needs Pillow: pip install 'fedjob[images]', or give the pixels with --inputs", exit_code=EXIT_USAGE
        ) from None
    height, width, colours = size
    rows = []
    for path in paths:
        raw = _read(path)
        try:
            with Image.open(io.BytesIO(raw), formats=("PNG", "JPEG")) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise _unusable(path, f"has {image.width} x {image.height} pixels, at most {MAX_PIXELS} are read")
                made = image.convert("RGB" if colours == 3 else "L").resize((width, height), Image.Resampling.BILINEAR)
        except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
            raise _unusable(path, f"no PNG or JPEG that can be read: {str(error)[:200]}") from error
        pixels = np.asarray(made, dtype=np.float32).reshape(-1) / np.float32(255)
        rows.append(((1 - pixels) if is_inverted else pixels).tolist())
    return rows


def image_size(text: str | None, data_name: str | None) -> tuple[int, int, int]:
    """Return the size that images are brought to: the one that is given, or that of the job's data set.

    Raises:
        Failure: It is no size, or none is known.
    """
    if text is None:
        if (known := IMAGE_SIZES.get(data_name or "")) is not None:
            return known
        raise Failure(
            f"the size of the images of {data_name or 'a trainer of your own'} is not known; "
            "give --image-size, such as 28x28 or 32x32x3",
            exit_code=EXIT_USAGE,
        )
    parts = text.lower().split("x")
    numbers = [int(part) for part in parts if part.isascii() and part.isdigit() and 0 < len(part) < 6]
    if len(numbers) != len(parts) or len(parts) not in (2, 3) or 0 in numbers or numbers[2:] not in ([], [1], [3]):
        raise Failure(
            f"--image-size {text!r}: height x width is needed, such as 28x28 or 32x32x3", exit_code=EXIT_USAGE
        )
    return numbers[0], numbers[1], numbers[2] if len(numbers) == 3 else 1


def _read(path: Path) -> bytes:
    try:
        if str(path) == "-":
            raw = sys.stdin.buffer.read(MAX_INPUT_BYTES + 1)
        else:
            with path.open("rb") as file:
                raw = file.read(MAX_INPUT_BYTES + 1)
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error
    if len(raw) > MAX_INPUT_BYTES:
        raise _unusable(path, f"has more than {MAX_INPUT_BYTES} bytes; predict in parts")
    return raw


def _from_npz(path: Path, raw: bytes) -> list[Any]:
    try:
        with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
            names = list(arrays)
            if "x" not in names and len(names) != 1:
                raise _unusable(path, f"has the arrays {', '.join(sorted(names)) or 'none'}; one called x is needed")
            array = arrays["x" if "x" in names else names[0]]
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise _unusable(path, f"no npz of numbers: {str(error)[:200]}") from error
    if array.dtype.kind not in "biuf" or array.ndim < 1:
        raise _unusable(path, f"has {array.dtype} of shape {array.shape}; rows of numbers are needed")
    rows: list[Any] = array.astype(np.float64).tolist()
    return rows


def _from_csv(path: Path, raw: bytes) -> list[Any]:
    try:
        lines = [line for line in csv.reader(io.StringIO(raw.decode("utf-8-sig"))) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise _unusable(path, f"no csv: {error}") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append([float(cell) for cell in line])
        except ValueError:
            if number == 1:
                continue  # names of the columns
            raise _unusable(path, f"line {number}: {line!r:.80} are not all numbers") from None
    return rows


def _unusable(path: Path, what: str) -> Failure:
    return Failure(f"{path}: {what}", exit_code=EXIT_USAGE)
