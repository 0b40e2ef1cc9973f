"""The data set ``digits``: 1,797 handwritten digits of 8 x 8 pixels that scikit-learn ships; no download.

Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998; the
test part. Pixels 0 to 16 are divided by 16. The held-out 360 examples are a fixed choice, the same in every job.

The file inside the installed package is read directly: importing scikit-learn would cost every client half a second.
"""

import gzip
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import numpy as np

from fedjob_client.data.dataset import Array, Raw, Source, scaled
from fedjob_client.errors import DataError
from fedjob_client.parameters import read_parameters
from fedjob_protocol.builtin import NoParameters
from fedjob_protocol.config import DataConfig

MAX_PIXEL: Final = 16
SIDE: Final = 8
PIXELS: Final = SIDE * SIDE
CLASSES: Final = 10
HELD_OUT: Final = 360
"""Every fifth example, about."""
SPLIT_SEED: Final = 1998
"""Of the fixed split into training and held-out examples."""
MAX_TABLE_BYTES: Final = 16 << 20
"""The table has 0.3 MB; more than this is something else."""


def digits(config: DataConfig, seed: int, index: int) -> Source:  # noqa: ARG001 - the same for every job and client
    """The data set ``digits``.

    Raises:
        DataError: scikit-learn is not installed, or its file is damaged (when it is read).
    """
    read_parameters(NoParameters, config.parameters, where="data.parameters", error=DataError)
    tables = cache(read_digits)

    def part(choose: Callable[[Array], Array]) -> Raw:
        pixels, labels = tables()
        order = np.random.Generator(np.random.PCG64(np.random.SeedSequence(SPLIT_SEED))).permutation(len(labels))
        rows = np.sort(choose(order))
        return Raw(x=pixels[rows], y=labels[rows], convert=scaled(MAX_PIXEL), image=(SIDE, SIDE, 1))

    return Source(
        train=lambda: part(lambda order: order[HELD_OUT:]),
        test=lambda: part(lambda order: order[:HELD_OUT]),
        count_classes=lambda: CLASSES,
    )


def read_digits() -> tuple[Array, Array]:
    """All pixels ``(1797, 64)`` in uint8 and labels ``(1797,)`` in int64, in the file's order.

    Raises:
        DataError: scikit-learn is not installed, or its file is damaged.
    """
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise DataError("data digits: scikit-learn ships this data set and is not installed: pip install scikit-learn")
    path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    table = _read_table(path) if path.is_file() else _ask_scikit_learn()
    return checked(table, str(path))


def checked(table: Array, name: str) -> tuple[Array, Array]:
    """Pixels and labels of a table whose last column is the label.

    Raises:
        DataError: It is not such a table.
    """
    if table.ndim != 2 or table.shape[1] != PIXELS + 1 or len(table) <= HELD_OUT:
        raise DataError(f"{name}: a table of {PIXELS} pixels and a label is expected, its shape is {table.shape}")
    pixels, labels = table[:, :-1], table[:, -1]
    if not ((pixels >= 0) & (pixels <= MAX_PIXEL)).all() or not np.isin(labels, np.arange(CLASSES)).all():
        raise DataError(f"{name}: pixels from 0 to {MAX_PIXEL} and labels from 0 to {CLASSES - 1} are expected")
    return pixels.astype(np.uint8), labels.astype(np.int64)


def _read_table(path: Path) -> Array:
    try:
        with gzip.open(path) as file:
            text = file.read(MAX_TABLE_BYTES)
        return np.loadtxt(text.decode("ascii").splitlines(), delimiter=",", dtype=np.float32, ndmin=2)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}; install scikit-learn again") from error


def _ask_scikit_learn() -> Array:
    """For a release that keeps the file elsewhere."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 - slow to import, and rarely needed

    bunch = load_digits()
    return np.column_stack([bunch.data, bunch.target])
