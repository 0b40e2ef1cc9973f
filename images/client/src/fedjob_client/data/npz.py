"""The data set ``npz``: your own arrays in one file that ``numpy.savez`` or ``numpy.savez_compressed`` wrote.

Arrays: ``x_train``, ``y_train`` (training examples, examples first) and ``x_test``, ``y_test`` (held-out ones). ``y``
of integers are class labels from 0, anything else are values to predict. Features are used as they are: scale them
when you write the file. Pickled arrays are refused, and so is a header that does not agree with the length of its data.

Parameters: ``classes`` (default: the largest label + 1; give it where clients hold files of their own).
"""

import zipfile
import zlib
from functools import cache
from pathlib import Path
from typing import IO, Final

import numpy as np

from fedjob_client.data.dataset import Array, Image, Raw, Source
from fedjob_client.errors import DataError
from fedjob_client.parameters import read_parameters
from fedjob_protocol.builtin import MAX_CLASSES, NpzParameters
from fedjob_protocol.config import DataConfig

MAX_ARRAY_BYTES: Final = 16 << 30
MAX_DEFLATE_RATIO: Final = 1032
"""Deflate cannot do better; an entry that claims more lies."""
MAX_NPY_HEADER: Final = 10_000


def npz(config: DataConfig, seed: int, index: int) -> Source:  # noqa: ARG001 - the same for every job and client
    """The data set ``npz``.

    Raises:
        DataError: No path is given, there is no file, or (when it is read) an array is missing or unusable.
    """
    settings = read_parameters(NpzParameters, config.parameters, where="data.parameters", error=DataError)
    if config.path is None:
        raise DataError("data.path: the data set npz needs the path of the file")
    path = Path(config.path)
    if not path.is_file():
        raise DataError(f"{path}: there is no such file")
    read = cache(lambda name: read_array(path, name))

    def labels(part: str) -> Array:
        return _targets(read(f"y_{part}"), path, f"y_{part}", settings.classes)

    def raw(part: str) -> Raw:
        y = labels(part)
        x = _features(read_array(path, f"x_{part}"), path, f"x_{part}", is_class=y.dtype == np.int64)
        return Raw(x=x, y=y, image=_image(x))

    def count_classes() -> int | None:
        if settings.classes is not None:
            return settings.classes  # an evaluator's file may have no training examples
        y = labels("train")
        if y.dtype != np.int64:
            return None
        return 1 + int(max(y.max(initial=1), labels("test").max(initial=1)))

    return Source(train=lambda: raw("train"), test=lambda: raw("test"), count_classes=count_classes)


def read_array(path: Path, name: str) -> Array:
    """One array of the file, checked against its own header before memory is taken.

    Raises:
        DataError: There is no such array, it is damaged, pickled or too large.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entry = archive.getinfo(f"{name}.npy")
            _check_entry(entry, path, name)
            with archive.open(entry) as file:
                return _read_npy(file, entry.file_size, path, name)
    except KeyError:
        raise DataError(f"{path}: has no array {name}; write it with numpy.savez(path, {name}=…, …)") from None
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{path}: array {name} cannot be read: {error}") from error


def _check_entry(entry: zipfile.ZipInfo, path: Path, name: str) -> None:
    if entry.file_size > min(MAX_ARRAY_BYTES, (entry.compress_size + 64) * MAX_DEFLATE_RATIO):
        raise DataError(
            f"{path}: array {name} claims {entry.file_size} bytes from {entry.compress_size} compressed ones; "
            f"at most {MAX_ARRAY_BYTES} are read"
        )


def _read_npy(file: IO[bytes], file_bytes: int, path: Path, name: str) -> Array:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file, max_header_size=MAX_NPY_HEADER)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(file, max_header_size=MAX_NPY_HEADER)
    else:
        raise DataError(f"{path}: array {name} has the .npy version {version}, 1.0 and 2.0 are read")
    if dtype.kind not in "biuf":
        raise DataError(f"{path}: array {name} has the type {dtype}; numbers are expected, objects are never unpickled")
    data_bytes = file_bytes - file.tell()
    needed = dtype.itemsize
    for length in shape:
        needed *= length
    if needed != data_bytes:
        raise DataError(f"{path}: array {name}: shape {shape} of {dtype} needs {needed} bytes, it has {data_bytes}")
    data = file.read(data_bytes)
    if len(data) != data_bytes:
        raise DataError(f"{path}: array {name} is cut off: {len(data)} of {data_bytes} bytes")
    return np.frombuffer(data, dtype=dtype).reshape(shape, order="F" if fortran else "C")


def _image(x: Array) -> Image | None:
    """Height, width and channels of examples that have two or three axes of their own."""
    if x.ndim == 4:
        return (x.shape[1], x.shape[2], x.shape[3])
    return (x.shape[1], x.shape[2], 1) if x.ndim == 3 else None


def _features(x: Array, path: Path, name: str, *, is_class: bool) -> Array:
    if x.ndim < 1:
        raise DataError(f"{path}: array {name} is a single number; examples first are expected")
    features = np.ascontiguousarray(x, dtype=np.float32 if is_class else np.float64)
    features = features.reshape(-1, 1) if features.ndim == 1 else features
    if not np.isfinite(features).all():
        raise DataError(f"{path}: array {name} has values that are not finite")
    return features


def _targets(y: Array, path: Path, name: str, classes: int | None) -> Array:
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise DataError(f"{path}: array {name} has shape {y.shape}; one number for each example is expected")
    if y.dtype.kind == "f":
        if not np.isfinite(y).all():
            raise DataError(f"{path}: array {name} has values that are not finite")
        return y.astype(np.float64)
    top = (classes or MAX_CLASSES) - 1
    if len(y) and (int(y.min()) < 0 or int(y.max()) > top):
        raise DataError(f"{path}: array {name} has labels from {y.min()} to {y.max()}; 0 to {top} are accepted")
    return y.astype(np.int64)
