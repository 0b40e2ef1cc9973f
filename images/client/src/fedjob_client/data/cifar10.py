"""The data set ``cifar10``: the published files of CIFAR-10, in either version, unpacked or as the archive.

A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009; 50,000 training and 10,000 held-out images
of 32 x 32 pixels in three colours, ten classes. The binary version has six files of 10,000 records: a byte of label,
then 1,024 bytes each of red, green and blue, row by row. The Python version has the same in six pickles, which are read
without unpickling (`fedjob_client.data.batch_pickle`).

``data.path`` is the folder with the six files, the folder above, the archive, or the folder that the archive lies in,
under their published names. Nothing is unpacked to the disk and nothing is believed: a file has exactly the length that
it was published with, and its labels are 0 to 9.

Pixels are divided by 255; an example has them row by row, red, green and blue of a pixel side by side.
"""

import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from fedjob_client.data.batch_pickle import BatchError, read_batch
from fedjob_client.data.dataset import Array, Image, Raw, Source
from fedjob_client.errors import DataError
from fedjob_client.parameters import read_parameters
from fedjob_protocol.builtin import NoParameters
from fedjob_protocol.config import DataConfig

CLASSES: Final = 10
SIDE: Final = 32
COLOURS: Final = 3
PIXELS: Final = SIDE * SIDE * COLOURS
IMAGE: Final[Image] = (SIDE, SIDE, COLOURS)
RECORDS: Final = 10_000
"""In each file."""
BATCH_BYTES: Final = RECORDS * (1 + PIXELS)
"""Of a file of the binary version."""
MAX_PICKLE_BYTES: Final = 40_000_000
"""The published pickles have 31 MB."""
MAX_ARCHIVE_BYTES: Final = 1 << 30
"""Unpacked; the published archives have 185 MB. Further in nothing is looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One of the two published forms."""

    folder: str
    """Of the files, in the archive and where it was unpacked."""
    archive: str
    suffix: str
    """Of the files' names."""

    @property
    def train(self) -> tuple[str, ...]:
        """Names of the files with training examples."""
        return tuple(f"data_batch_{number}{self.suffix}" for number in range(1, 6))

    @property
    def test(self) -> tuple[str, ...]:
        """Name of the file with the held-out examples."""
        return (f"test_batch{self.suffix}",)


BINARY: Final = Version(folder="cifar-10-batches-bin", archive="cifar-10-binary.tar.gz", suffix=".bin")
PYTHON: Final = Version(folder="cifar-10-batches-py", archive="cifar-10-python.tar.gz", suffix="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the files are: a folder, or an archive."""

    path: Path
    version: Version

    def read(self, names: tuple[str, ...]) -> Raw:
        """Read some of the files.

        Raises:
            DataError: One is missing or damaged.
        """
        found = dict(self._unpacked(names) if self.path.is_file() else self._plain(names))
        missing = [name for name in names if name not in found]
        if missing:
            raise DataError(f"{self.path}: has no {self.version.folder}/{missing[0]}; fetch the archive again")
        pixels, labels = zip(*(found[name] for name in names), strict=True)
        return Raw(x=np.concatenate(pixels), y=np.concatenate(labels), convert=_converted, image=IMAGE)

    def _plain(self, names: tuple[str, ...]) -> Iterator[tuple[str, tuple[Array, Array]]]:
        for name in names:
            path = self.path / name
            try:
                size = path.stat().st_size
                self._check_size(size, str(path))
                yield name, self._batch(path.read_bytes(), str(path))
            except OSError as error:
                raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error

    def _unpacked(self, names: tuple[str, ...]) -> Iterator[tuple[str, tuple[Array, Array]]]:
        wanted = {f"{self.version.folder}/{name}": name for name in names}
        try:
            with tarfile.open(self.path, "r|*") as archive:
                for member in archive:
                    if not wanted or member.offset > MAX_ARCHIVE_BYTES:
                        return
                    name = wanted.pop(member.name.removeprefix("./"), None)
                    if name is None:
                        continue
                    what = f"{self.path}: {member.name}"
                    self._check_size(member.size if member.isfile() else 0, what)
                    file = archive.extractfile(member)
                    assert file is not None  # a regular file
                    yield name, self._batch(file.read(member.size), what)
        except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
            raise DataError(f"{self.path}: is cut off or no archive: {error}; fetch it again") from error

    def _check_size(self, size: int, what: str) -> None:
        """Before memory is taken."""
        if self.version is BINARY and size != BATCH_BYTES:
            fault = "it is cut off" if size < BATCH_BYTES else "it is something else"
            raise DataError(
                f"{what}: has {size} bytes, a batch of CIFAR-10 has {BATCH_BYTES} ({RECORDS} records of {1 + PIXELS}): "
                f"{fault}; fetch it again"
            )
        if size > MAX_PICKLE_BYTES:
            raise DataError(f"{what}: has {size} bytes, at most {MAX_PICKLE_BYTES} are read")

    def _batch(self, data: bytes, what: str) -> tuple[Array, Array]:
        """Pixels ``(10000, 3072)`` in uint8 and labels ``(10000,)`` in int64."""
        if self.version is BINARY:
            if len(data) != BATCH_BYTES:
                raise DataError(f"{what}: is cut off: {len(data)} of {BATCH_BYTES} bytes; fetch it again")
            table = np.frombuffer(data, dtype=np.uint8).reshape(RECORDS, 1 + PIXELS)
            pixels, labels = table[:, 1:], table[:, 0].astype(np.int64)
        else:
            try:
                pixels, labels = read_batch(data, records=RECORDS, pixels=PIXELS)
            except BatchError as error:
                raise DataError(
                    f"{what}: cannot be read without running code: {error}; use the binary version, {BINARY.archive}"
                ) from error
        if labels.min() < 0 or labels.max() >= CLASSES:
            raise DataError(
                f"{what}: has labels from {labels.min()} to {labels.max()}, 0 to {CLASSES - 1} are expected"
            )
        return pixels, labels


def cifar10(config: DataConfig, seed: int, index: int) -> Source:  # noqa: ARG001 - the same for every job and client
    """The data set ``cifar10``.

    Raises:
        DataError: No path is given, there are no such files, or (when it is read) a file is damaged.
    """
    read_parameters(NoParameters, config.parameters, where="data.parameters", error=DataError)
    if config.path is None:
        raise DataError("data.path: the data set cifar10 needs the folder with its files, or the archive")
    place = _find(Path(config.path))
    return Source(
        train=lambda: place.read(place.version.train),
        test=lambda: place.read(place.version.test),
        count_classes=lambda: CLASSES,
    )


def _find(path: Path) -> Place:
    """The binary version where both are there: it is read without an interpreter."""
    if path.is_file():
        return Place(path=path, version=PYTHON if PYTHON.archive in path.name else BINARY)
    for version in (BINARY, PYTHON):
        for folder in (path, path / version.folder):
            if any((folder / name).is_file() for name in (*version.train, *version.test)):
                return Place(path=folder, version=version)
        if (path / version.archive).is_file():
            return Place(path=path / version.archive, version=version)
    raise DataError(
        f"{path}: there is none of {BINARY.folder}, {BINARY.archive}, {PYTHON.folder}, {PYTHON.archive}; "
        "fetch it with: fedjob data fetch cifar10"
    )


def _converted(x: Array) -> Array:
    """Planes of red, green and blue to pixels with their colours side by side, 0 to 1 in float32."""
    pixels = x.reshape(-1, COLOURS, SIDE * SIDE).transpose(0, 2, 1).reshape(len(x), PIXELS).astype(np.float32)
    pixels /= np.float32(255)
    return pixels
