"""Images, initial weights and batches that both networks of ``cnn.py`` train on. Imports NumPy alone."""

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

SIDE: Final = 28
WARM_UP: Final = 5
"""Steps before the clock starts."""
LEARNING_RATE: Final = 0.01
SEED: Final = 3

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


def problem(images: int) -> tuple[Floats, Integers]:
    """Images ``(n, 28, 28, 1)`` and labels: every class is a blob at a place of its own, under noise."""
    generator = np.random.default_rng(SEED)
    labels = generator.integers(0, 10, size=images)
    pixels = generator.random((images, SIDE, SIDE, 1), dtype=np.float32) * np.float32(0.5)
    for image, label in enumerate(labels):
        row, column = 4 + 12 * (label // 5), 2 + 5 * (label % 5)
        pixels[image, row : row + 8, column : column + 4] += np.float32(0.5)
    return pixels, labels


def initial(side: int) -> dict[str, Floats]:
    """Weights as `fedjob_client.models.cnn` starts them, by the names that it gives them."""
    generator = np.random.default_rng(SEED + 1)
    shapes = ((5, 5, 1, 32), (5, 5, 32, 64), ((side // 4) ** 2 * 64, 512), (512, 10))
    params = {}
    for layer, shape in enumerate(shapes, start=1):
        bound = np.sqrt(6 / np.prod(shape[:-1]))
        params[f"w{layer}"] = generator.uniform(-bound, bound, size=shape).astype(np.float32)
        params[f"b{layer}"] = np.zeros(shape[-1], dtype=np.float32)
    return params


def order(images: int, batch: int) -> Iterator[Integers]:
    """Rows of each step: whole batches of one shuffled pass."""
    rows = np.random.default_rng(SEED + 2).permutation(images)
    for begin in range(0, images - batch + 1, batch):
        yield rows[begin : begin + batch]
