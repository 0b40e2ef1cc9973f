"""The data set ``mnist``: IDX files of images and labels in a folder, plain or gzipped, under the published names.

The format (Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits"): big-endian; magic 0x00000803
for images (then count, rows, columns, one byte per pixel), 0x00000801 for labels (then count, one byte each). Nothing
is believed: magic, counts and the exact length are checked, and no more is read than the header allows. Fashion-MNIST
and other sets in the same files work as well.

Pixels are divided by 255 and the rows of an image laid end to end.
"""

import gzip
import io
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np

from fedjob_client.data.dataset import Array, Raw, Source, scaled
from fedjob_client.errors import DataError
from fedjob_client.parameters import read_parameters
from fedjob_protocol.builtin import NoParameters
from fedjob_protocol.config import DataConfig

IMAGES_MAGIC: Final = 0x00000803
LABELS_MAGIC: Final = 0x00000801
MAX_BYTES: Final = 2 << 30
"""Largest data section that is read."""
MAX_PIXEL: Final = 255
BLOCK_BYTES: Final = 1 << 20

Readable: TypeAlias = gzip.GzipFile | io.BufferedReader


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """One part of the data set: which files."""

    images: Path
    labels: Path


def mnist(config: DataConfig, seed: int, index: int) -> Source:  # noqa: ARG001 - the same for every job and client
    """The data set ``mnist``.

    Raises:
        DataError: No path is given, a file is missing, or (when it is read) a file is damaged.
    """
    read_parameters(NoParameters, config.parameters, where="data.parameters", error=DataError)
    if config.path is None:
        raise DataError("data.path: the data set mnist needs the folder with the IDX files")
    folder = Path(config.path)
    train, test = _find(folder, "train"), _find(folder, "t10k")
    labels = cache(read_labels)

    def read(files: Files) -> Raw:
        y = labels(files.labels)
        x = read_images(files.images, expected=len(y))
        image = (*x.shape[1:], 1)
        return Raw(x=x.reshape(len(x), -1), y=y.astype(np.int64), convert=scaled(MAX_PIXEL), image=image)

    def count_classes() -> int:
        return 1 + int(max(labels(train.labels).max(initial=0), labels(test.labels).max(initial=0)))

    return Source(train=lambda: read(train), test=lambda: read(test), count_classes=count_classes)


def read_images(path: Path, *, expected: int) -> Array:
    """Images of an IDX file: ``(count, rows, columns)`` in uint8.

    Raises:
        DataError: It is not exactly such a file with ``expected`` images.
    """
    with _open(path) as file:
        magic, count, rows, columns = _header(file, path, fields=4)
        _check_magic(path, magic, IMAGES_MAGIC, "images")
        if count != expected:
            raise DataError(f"{path}: {count} images, but the labels' file has {expected} labels")
        if rows * columns == 0:
            raise DataError(f"{path}: images of {rows} x {columns} pixels")
        return _data(file, path, count * rows * columns, header=16).reshape(count, rows, columns)


def read_labels(path: Path) -> Array:
    """Labels of an IDX file: ``(count,)`` in uint8.

    Raises:
        DataError: It is not exactly such a file.
    """
    with _open(path) as file:
        magic, count = _header(file, path, fields=2)
        _check_magic(path, magic, LABELS_MAGIC, "labels")
        return _data(file, path, count, header=8)


def _find(folder: Path, part: str) -> Files:
    return Files(images=_file(folder, f"{part}-images", "idx3"), labels=_file(folder, f"{part}-labels", "idx1"))


def _file(folder: Path, stem: str, kind: str) -> Path:
    """The file under one of the names that people have it under."""
    names = [f"{stem}{joint}{kind}-ubyte{end}" for joint in "-." for end in ("", ".gz")]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"{folder}: there is none of {', '.join(names)}")


def _open(path: Path) -> Readable:
    try:
        return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be opened: {error.strerror or error}") from error


def _header(file: Readable, path: Path, *, fields: int) -> list[int]:
    data = _read(file, path, 4 * fields)
    if len(data) < 4 * fields:
        raise DataError(f"{path}: cut off: its header has {len(data)} bytes, {4 * fields} are expected")
    return [int(value) for value in np.frombuffer(data, dtype=">u4")]


def _check_magic(path: Path, seen: int, expected: int, what: str) -> None:
    if seen != expected:
        raise DataError(f"{path}: starts with {seen:#010x}, an IDX file of {what} starts with {expected:#010x}")


def _data(file: Readable, path: Path, size: int, *, header: int) -> Array:
    if size > MAX_BYTES:
        raise DataError(f"{path}: its header announces {size} bytes of data, at most {MAX_BYTES} are read")
    data = _read(file, path, size + 1)
    if len(data) != size:
        seen = f"{len(data)} bytes of data" if len(data) < size else "more"
        raise DataError(f"{path}: its header announces {size} bytes of data after {header} of header, it has {seen}")
    return np.frombuffer(data, dtype=np.uint8)


def _read(file: Readable, path: Path, size: int) -> bytes:
    """Up to ``size`` bytes; memory grows with what is there, not with what a header says."""
    blocks: list[bytes] = []
    left = size
    try:
        while left > 0 and (block := file.read(min(left, BLOCK_BYTES))):
            blocks.append(block)
            left -= len(block)
    except EOFError as error:
        raise DataError(f"{path}: cut off: what is compressed in it does not end; get the file again") from error
    except (OSError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    return b"".join(blocks)
