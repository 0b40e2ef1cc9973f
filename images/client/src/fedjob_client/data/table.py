"""The data set ``csv``: a table of your own, one example per line.

All columns are numbers, except the label's, which may have names. The first line may name the columns. Labels that are
whole numbers are classes from 0, other numbers are values to predict, names are the classes ``classes`` lists.

Parameters: ``label`` (name of the label's column, or its number from 0; default the last one), ``classes`` (their
number, or their names in order; needed for names, and where clients hold files of their own), ``testPath`` (a file of
held-out examples; default: a fixed fifth of the lines is held out), ``delimiter`` (","), ``scale`` (1: what features
are divided by, such as 255), ``image`` ([height, width, channels] where a line is an image).
"""

import csv
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np

from fedjob_client.data.dataset import Array, Image, Raw, Source, scaled
from fedjob_client.errors import DataError
from fedjob_client.parameters import read_parameters
from fedjob_protocol.builtin import MAX_CLASSES, CsvParameters
from fedjob_protocol.config import DataConfig

MAX_FILE_BYTES: Final = 4 << 30
MAX_LINE: Final = 1 << 20
"""Longest line that is looked at for the names of the columns, in characters."""
HELD_OUT_PART: Final = 5
"""One of so many lines is held out."""
SPLIT_SEED: Final = 4180
"""Of the fixed split into training and held-out lines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A file, read."""

    x: Array
    """Features ``(n, columns - 1)`` in float64."""
    y: Array
    """Classes ``(n,)`` in int64, or values in float64."""

    def rows(self, chosen: Array) -> "Table":
        """Some of its lines."""
        return Table(x=self.x[chosen], y=self.y[chosen])


def csv_table(config: DataConfig, seed: int, index: int) -> Source:  # noqa: ARG001 - the same for every job and client
    """The data set ``csv``.

    Raises:
        DataError: No path is given, there is no file, or (when it is read) a line is no example.
    """
    settings = read_parameters(CsvParameters, config.parameters, where="data.parameters", error=DataError)
    if config.path is None:
        raise DataError("data.path: the data set csv needs the path of the file")
    paths = [Path(path) for path in (config.path, settings.test_path) if path is not None]
    for path in paths:
        if not path.is_file():
            raise DataError(f"{path}: there is no such file")
    read = cache(lambda path: read_table(path, settings))

    def part(*, is_train: bool) -> Table:
        if len(paths) == 2:
            return read(paths[0 if is_train else 1])
        whole = read(paths[0])
        order = np.random.Generator(np.random.PCG64(np.random.SeedSequence(SPLIT_SEED))).permutation(len(whole.y))
        held_out = len(order) // HELD_OUT_PART
        return whole.rows(np.sort(order[held_out:] if is_train else order[:held_out]))

    def raw(*, is_train: bool) -> Raw:
        table = part(is_train=is_train)
        return _raw(table, settings, paths[0])

    def count_classes() -> int | None:
        return _count_classes(settings, [read(path) for path in paths])

    return Source(train=lambda: raw(is_train=True), test=lambda: raw(is_train=False), count_classes=count_classes)


def read_table(path: Path, settings: CsvParameters) -> Table:
    """Read a whole file.

    Raises:
        DataError: It is too large, empty, a line has other columns, or something is no number.
    """
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise DataError(f"{path}: has {size} bytes, at most {MAX_FILE_BYTES} are read; use npz")
        columns, has_header = _columns(path, settings)
        label = _label_column(path, settings, columns, has_header=has_header)
        skip = 1 if has_header else 0
        features = [number for number in range(len(columns)) if number != label]
        x = _load(path, settings, skip, features, np.dtype(np.float64))
        y = _load(path, settings, skip, [label], np.dtype(np.str_))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if len(x) == 0:
        raise DataError(f"{path}: has no example")
    if not np.isfinite(x).all():
        line = int(np.flatnonzero(~np.isfinite(x).all(axis=1))[0]) + 1 + skip
        raise DataError(f"{path}: line {line} has a value that is not finite")
    return Table(x=x, y=_targets(y[:, 0], path, settings, columns[label]))


def _columns(path: Path, settings: CsvParameters) -> tuple[list[str], bool]:
    """The cells of the first line, and whether they name the columns: then one of the features is no number."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        line = file.readline(MAX_LINE)
    cells = next(csv.reader([line], delimiter=settings.delimiter), [])
    if len(cells) < 2:
        raise DataError(
            f"{path}: its first line has {len(cells)} columns, features and a label are needed; "
            f"the delimiter is {settings.delimiter!r}"
        )
    names = [cell.strip() for cell in cells]
    last = settings.label if isinstance(settings.label, int) else len(names) - 1
    has_header = isinstance(settings.label, str) or any(
        not _is_number(cell) for number, cell in enumerate(names) if number != last
    )
    return names, has_header


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _label_column(path: Path, settings: CsvParameters, columns: list[str], *, has_header: bool) -> int:
    label = settings.label
    if label is None:
        return len(columns) - 1
    if isinstance(label, int):
        if label >= len(columns):
            raise DataError(f"{path}: label is column {label}, there are {len(columns)}, counted from 0")
        return label
    if has_header and label in columns:
        return columns.index(label)
    raise DataError(f"{path}: has no column {label!r}; it has {', '.join(columns[:20])}")


def _load(path: Path, settings: CsvParameters, skip: int, columns: list[int], dtype: "np.dtype[np.generic]") -> Array:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a file without a line; said below
            return np.loadtxt(
                path,
                dtype=dtype,
                comments=None,
                delimiter=settings.delimiter,
                skiprows=skip,
                usecols=columns,
                ndmin=2,
                encoding="utf-8-sig",
                quotechar='"',
            )
    except ValueError as error:
        raise DataError(
            f"{path}: cannot be read: {str(error).rstrip('.')} (lines count from the first example)"
        ) from error


def _targets(cells: Array, path: Path, settings: CsvParameters, column: str) -> Array:
    classes = settings.classes
    if isinstance(classes, tuple):
        places = {name: number for number, name in enumerate(classes)}
        unknown = sorted({str(cell).strip() for cell in cells} - places.keys())
        if unknown:
            raise DataError(f"{path}: has labels {', '.join(unknown[:5])}, which are not in classes")
        return np.array([places[str(cell).strip()] for cell in cells], dtype=np.int64)
    try:
        values = cells.astype(np.float64)
    except ValueError:
        bad = next(str(cell) for cell in cells if not _is_number(str(cell)))
        raise DataError(
            f"{path}: the label {bad!r} in column {column} is no number; list the names in data.parameters.classes"
        ) from None
    if not np.isfinite(values).all():
        raise DataError(f"{path}: has labels that are not finite")
    is_class = classes is not None or not any("." in str(cell) or "e" in str(cell).lower() for cell in cells)
    if not is_class:
        return values
    top = (classes or MAX_CLASSES) - 1
    if values.min() < 0 or values.max() > top or not (values == np.floor(values)).all():
        raise DataError(
            f"{path}: has labels from {values.min():g} to {values.max():g}; whole ones from 0 to {top} are accepted"
        )
    return values.astype(np.int64)


def _raw(table: Table, settings: CsvParameters, path: Path) -> Raw:
    image: Image | None = settings.image
    if image is not None and image[0] * image[1] * image[2] != table.x.shape[1]:
        raise DataError(f"{path}: a line has {table.x.shape[1]} features, an image of {image} has {np.prod(image)}")
    if table.y.dtype == np.int64:
        return Raw(x=table.x, y=table.y, convert=scaled(settings.scale), image=image)
    return Raw(x=table.x / settings.scale, y=table.y, image=image)


def _count_classes(settings: CsvParameters, tables: list[Table]) -> int | None:
    if settings.classes is not None:
        return settings.classes if isinstance(settings.classes, int) else len(settings.classes)
    if any(table.y.dtype != np.int64 for table in tables):
        return None
    return max(2, 1 + max(int(table.y.max()) for table in tables))
