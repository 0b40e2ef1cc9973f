"""A client's data as trainers see it, and as loaders make it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fedjob_client.errors import DataError

Array: TypeAlias = npt.NDArray[Any]
Image: TypeAlias = tuple[int, int, int]
"""Height, width, channels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Examples: row ``i`` of `x` belongs to ``y[i]``.

    Raises:
        DataError: The two differ in length.
    """

    x: Array
    """Features, examples first; float32 for classification, float64 for regression."""
    y: Array
    """Labels as int64 from 0, or values as float64."""
    image: Image | None = None
    """Where examples are images: their size. A flat row of `x` has the pixels row by row, a pixel's channels side by
    side."""

    def __post_init__(self) -> None:
        if self.x.shape[:1] != self.y.shape:
            raise DataError(
                f"x has shape {self.x.shape}, y has shape {self.y.shape}: one y for each row of x is needed"
            )
        if self.image is not None and math.prod(self.image) != math.prod(self.x.shape[1:]):
            raise DataError(f"x has shape {self.x.shape}: its rows are no images of {self.image}")

    def __len__(self) -> int:
        return len(self.y)


class Dataset:
    """One client's training examples and the held-out examples, each read when it is first asked for.

    Args:
        train: Reads this client's part of the training examples.
        test: Reads the held-out examples: of a divided data set this client's part of them, of others all.
        count_classes: Number of classes of the whole data set, or ``None`` for regression.
    """

    def __init__(
        self, *, train: Callable[[], Split], test: Callable[[], Split], count_classes: Callable[[], int | None]
    ) -> None:
        self._read_train = train
        self._read_test = test
        self._count_classes = count_classes

    @cached_property
    def train(self) -> Split:
        """Training examples of this client; raises `DataError`."""
        return self._read_train()

    @cached_property
    def test(self) -> Split:
        """Held-out examples; raises `DataError`."""
        return self._read_test()

    @cached_property
    def num_classes(self) -> int | None:
        """Classes of the whole data set, whoever holds them; ``None`` for regression; raises `DataError`."""
        return self._count_classes()

    @property
    def image(self) -> Image | None:
        """Height, width, channels where examples are images; of whichever examples were read; raises `DataError`."""
        loaded = self.loaded_test
        return self.train.image if loaded is None else loaded.image

    @property
    def loaded_test(self) -> Split | None:
        """The held-out examples if they were read already."""
        return self.__dict__.get("test")

    @classmethod
    def of(cls, train: Split, test: Split, *, num_classes: int | None) -> "Dataset":
        """A data set of arrays in memory."""
        return cls(train=lambda: train, test=lambda: test, count_classes=lambda: num_classes)


def _as_it_is(x: Array) -> Array:
    return x


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """Examples before rows are chosen; only the chosen ones are converted."""

    x: Array
    y: Array
    convert: Callable[[Array], Array] = _as_it_is
    """Makes features of stored rows."""
    image: Image | None = None
    """As `Split.image`."""

    def split(self, rows: Array | None = None) -> Split:
        """The chosen rows, or all."""
        if rows is None:
            return Split(x=self.convert(self.x), y=self.y, image=self.image)
        return Split(x=self.convert(self.x[rows]), y=self.y[rows], image=self.image)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A whole data set, before it is limited and divided."""

    train: Callable[[], Raw]
    test: Callable[[], Raw]
    count_classes: Callable[[], int | None]


def scaled(divisor: float) -> Callable[[Array], Array]:
    """A conversion of pixels ``0 … divisor`` to float32 ``0 … 1``."""

    def convert(x: Array) -> Array:
        features = x.astype(np.float32)
        features /= np.float32(divisor)
        return features

    return convert
