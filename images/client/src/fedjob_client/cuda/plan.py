"""How the examples of one gradient are divided among blocks. Pure.

A gradient's examples are cut into *tiles*; one block of threads sums one tile, and the tiles' sums are added in a
fixed order. Tiles depend on the numbers of examples, features and classes alone: never on the GPU, on how much of the
data its memory holds, or on what else runs. So the same gradient has the same bits each time, also after the data had
to be moved through a smaller buffer.
"""

from dataclasses import dataclass
from typing import Final

NARROW_FEATURES: Final = 32
"""Up to so many features and one output an example's weights and sums fit into a thread's registers."""
ROWS_PER_THREAD: Final = 64
"""Most examples that a thread of a narrow kernel sums in float32 before the sum goes on in float64."""
NARROW_TILES: Final = 1024
"""So many tiles, if the examples suffice, keep every multiprocessor busy."""
PARTIAL_BYTES: Final = 32 * 2**20
"""Memory for the sums of all tiles of a wide kernel."""
WIDE_TILES: Final = 2048
MIN_WIDE_TILES: Final = 16
MAX_CLASSES: Final = 128
"""Above, a row of scores no longer fits into the shared memory of a block."""
FEW_CLASSES: Final = 32
METRICS: Final = 2
"""Behind the gradient come the sum of the losses and the number of right answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What the kernels of one model are compiled for."""

    features: int
    classes: int
    """Scores of an example: 1 in linear and logistic regression."""
    threads: int
    """Threads of a block; a power of two."""

    @property
    def is_narrow(self) -> bool:
        """Whether one thread computes whole examples out of its registers."""
        return self.classes == 1 and self.features <= NARROW_FEATURES

    @property
    def parameters(self) -> int:
        """Weights and intercepts."""
        return (self.features + 1) * self.classes

    @property
    def outputs(self) -> int:
        """Numbers that a gradient consists of, with the metrics."""
        return self.parameters + METRICS


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """The tiles of so many examples."""

    rows_per_tile: int
    tiles: int


def shape_of(features: int, classes: int, *, threads: int | None = None) -> Shape:
    """The shape for a model.

    Args:
        features: Of an example.
        classes: Scores of an example, at most `MAX_CLASSES`.
        threads: Of a block, instead of the number that suits a GPU; tests on a simulator want few.
    """
    if threads is None:
        is_narrow = classes == 1 and features <= NARROW_FEATURES
        threads = 256 if is_narrow else 128 if classes <= FEW_CLASSES else 32
    return Shape(features=features, classes=classes, threads=threads)


def tiling_of(shape: Shape, examples: int) -> Tiling:
    """Divide examples into tiles of whole steps of a block."""
    steps = -(-examples // shape.threads)  # what one block does in one step
    if shape.is_narrow:
        steps_per_tile = min(-(-steps // NARROW_TILES), ROWS_PER_THREAD)
    else:
        steps_per_tile = -(-steps // _most_wide_tiles(shape))
    return Tiling(rows_per_tile=steps_per_tile * shape.threads, tiles=-(-steps // steps_per_tile))


def most_tiles(shape: Shape, examples: int) -> int:
    """No smaller number of examples has more tiles than this."""
    steps = -(-examples // shape.threads)
    if shape.is_narrow:
        return min(steps, max(NARROW_TILES, tiling_of(shape, examples).tiles))
    return min(steps, _most_wide_tiles(shape))


def _most_wide_tiles(shape: Shape) -> int:
    return min(max(PARTIAL_BYTES // (8 * shape.outputs), MIN_WIDE_TILES), WIDE_TILES)
