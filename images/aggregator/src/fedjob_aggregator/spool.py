"""Updates that wait on disk until their round closes, for strategies that look at all of them.

One file without a name beside the checkpoints, so that no crash leaves it behind; each update has its place in it, in
the order of the model's tensors by name. What is read at a time is bounded, whatever the number of updates.
"""

import tempfile
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, Final

import numpy as np
import numpy.typing as npt

from fedjob_aggregator.disk import write_all
from fedjob_aggregator.staging import read_blocks
from fedjob_aggregator.strategy import Floats

LARGEST_BLOCK_ELEMENTS: Final = 1 << 17
VALUES_IN_MEMORY: Final = 1 << 21
"""Values of all updates together that are worked on at a time: 16 MiB in float64."""
VALUE_BYTES: Final = 4

Values = npt.NDArray[np.float32]


class Spool:
    """The updates of one attempt at a round. Used by one thread at a time.

    Args:
        folder: Where the file goes.
        elements: Of each update.

    Raises:
        OSError: The file cannot be made.
    """

    def __init__(self, folder: Path, elements: int) -> None:
        self._elements = elements
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - closed by `close`
        self._places: dict[int, int] = {}

    def add(self, client: int, pieces: Iterable[tuple[int, Values]]) -> None:
        """Keep an update.

        Args:
            client: Whose it is; not added before.
            pieces: Index of the first element, and the values, of pieces that cover the update.

        Raises:
            OSError: The disk is full, for example; the spool is of no use any more.
        """
        place = len(self._places)
        for begin, values in pieces:
            self._file.seek(VALUE_BYTES * (place * self._elements + begin))
            write_all(self._file.write, values.data.cast("B"))
        self._places[client] = place

    def read(self, clients: Sequence[int], begin: int, count: int) -> Values:
        """Some consecutive elements of updates, as an array of shape (clients, count).

        Raises:
            OSError: The file cannot be read.
        """
        rows = np.empty((len(clients), count), dtype=np.float32)
        for row, client in zip(rows, clients, strict=True):
            first = VALUE_BYTES * (self._places[client] * self._elements + begin)
            filled = 0
            for block in read_blocks(self._file, first, first + VALUE_BYTES * count):
                part = np.frombuffer(block, dtype="<f4")
                row[filled : filled + part.size] = part
                filled += part.size
        return rows

    def close(self) -> None:
        """Give the disk space back; may be called twice."""
        self._file.close()


class SpooledUpdates:
    """The updates of a round that is closed, in the order of the clients' indices: `strategy.Updates`.

    Args:
        spool: Holds them.
        examples: By client, of all that are to be combined.
        elements: Of each update.
    """

    def __init__(self, spool: Spool, examples: dict[int, int], elements: int) -> None:
        self.clients: Sequence[int] = sorted(examples)
        self.examples: Sequence[int] = [examples[client] for client in self.clients]
        self._spool = spool
        self._elements = elements
        self.block_elements = max(1, min(LARGEST_BLOCK_ELEMENTS, VALUES_IN_MEMORY // len(self.clients)))

    def read(self, positions: Sequence[int], begin: int, count: int) -> Values:
        """Some consecutive elements of the updates at these positions.

        Raises:
            OSError: The file cannot be read.
        """
        return self._spool.read([self.clients[position] for position in positions], begin, count)

    @cached_property
    def norms(self) -> Floats:
        """As `strategy.Updates.norms`.

        Raises:
            OSError: The file cannot be read.
        """
        sums = np.zeros(len(self.clients))
        for block in self._blocks():
            sums += np.square(block).sum(axis=1)
        norms: Floats = np.sqrt(sums)
        return norms

    @cached_property
    def squared_distances(self) -> Floats:
        """As `strategy.Updates.squared_distances`.

        |x - y|^2 = |x|^2 + |y|^2 - 2 x.y, of values from which the mean of each element was taken: it does not change
        the distances, and updates that are alike lose no digits by the subtraction.

        Raises:
            OSError: The file cannot be read.
        """
        products = np.zeros((len(self.clients), len(self.clients)))
        for block in self._blocks():
            centred = block - block.mean(axis=0)
            products += centred @ centred.T
        lengths = np.diagonal(products)
        distances: Floats = np.maximum(lengths[:, None] + lengths[None, :] - (products + products.T), 0.0)
        np.fill_diagonal(distances, 0.0)
        return distances

    def _blocks(self) -> Iterable[Floats]:
        everyone = range(len(self.clients))
        for begin in range(0, self._elements, self.block_elements):
            count = min(self.block_elements, self._elements - begin)
            yield self.read(everyone, begin, count).astype(np.float64)
