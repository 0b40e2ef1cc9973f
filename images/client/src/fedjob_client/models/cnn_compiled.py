"""The convolutional network as large trainings compute it: BLAS products, Numba kernels around them, several threads.

Deterministic: a batch is always cut into the same parts, each part is summed in the same order, and the parts are added
in order. So the bits do not depend on the number of threads, which only says how many parts are computed at a time.
Agrees with `fedjob_client.models.cnn.Cnn` within 1e-5 of the largest gradient of each array, as the tests check.

BLAS must run with one thread of its own (`fedjob_client.settings` sees to it): two pools of threads on the same cores
cost more than they bring.
"""

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import ClassVar, Final

import numpy as np
from typing_extensions import override

from fedjob_client import convolution as kernels
from fedjob_client.models.cnn import Cnn
from fedjob_client.models.model import Sums
from fedjob_client.models.softmax import softmax_delta
from fedjob_client.models.team import Team
from fedjob_client.trainer import Array, Params
from fedjob_protocol.builtin import CnnParameters

SLOTS: Final = 8
"""Parts of a batch, and so the most threads that convolutions use."""
CHUNK: Final = 2
"""Images that are convolved at a time: their patches stay in the second-level cache."""
COLUMNS: Final = 4
"""Parts of the hidden layer's weights."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of one image on its way through the network."""

    height: int
    width: int
    channels: int
    side: int
    first: int
    second: int

    @property
    def edge(self) -> int:
        """Zeros around an image."""
        return self.side // 2

    @property
    def middle(self) -> tuple[int, int]:
        """Height and width after the first pooling."""
        return self.height // 2, self.width // 2

    @property
    def last(self) -> tuple[int, int]:
        """Height and width after the second pooling."""
        return self.height // 4, self.width // 4


class _Batch:
    """What is kept of a batch between its forward and its backward pass."""

    def __init__(self, sizes: Sizes, count: int) -> None:
        (height, width), edge = sizes.middle, sizes.edge
        self.middle = _zeros(count, height + 2 * edge, width + 2 * edge, sizes.first)
        """Padded: its edge stays zero."""
        self.first_places = np.empty((count, height, width, sizes.first), dtype=np.uint8)
        self.last = _zeros(count, *sizes.last, sizes.second)
        self.second_places = np.empty((count, *sizes.last, sizes.second), dtype=np.uint8)
        self.delta = np.empty((count, sizes.last[0] * sizes.last[1] * sizes.second), dtype=np.float32)

    @property
    def features(self) -> Array:
        """Input of the hidden layer."""
        return self.last.reshape(len(self.last), -1)


class _Workspace:
    """Scratch memory of one thread for a chunk of images."""

    def __init__(self, sizes: Sizes, images: int) -> None:
        (height, width), side, edge = sizes.middle, sizes.side, sizes.edge
        first, second, pixels = sizes.first, sizes.second, images * sizes.height * sizes.width
        self._planes = _zeros(images, sizes.channels, sizes.height + 2 * edge, sizes.width + 2 * edge)
        self.columns = np.empty((side * side * sizes.channels, pixels), dtype=np.float32)
        self.wide = np.empty((images, sizes.height, sizes.width, first), dtype=np.float32)
        self.rows = _zeros(height + 2 * edge, images, width, side * first)
        self.shifted_rows = _shifted(self.rows, side)
        self.products = np.empty((side, height * images * width, second), dtype=np.float32)
        self.narrow = np.empty((height, images, width, second), dtype=np.float32)
        self.delta_rows = _zeros(height + 2 * edge, images, width, side * second)
        self.shifted_delta_rows = _shifted(self.delta_rows, side)
        self.delta_products = np.empty((side, height * images * width, first), dtype=np.float32)
        self.delta_middle = np.empty((height, images, width, first), dtype=np.float32)
        self.first_weights = np.empty((side * side * sizes.channels, first), dtype=np.float32)
        self.second_weights = np.empty((side, side * first, second), dtype=np.float32)
        self._middle = slice(edge, edge + sizes.height), slice(edge, edge + sizes.width)

    def padded(self, x: Array) -> Array:
        """Images as planes ``(n, channels, …, …)`` with zeros around them."""
        self._planes[:, :, *self._middle] = x.transpose(0, 3, 1, 2)
        return self._planes


class CompiledCnn(Cnn):
    """The model ``cnn``, computed fast.

    Args:
        settings: Sizes of the layers.
        team: Who computes.
    """

    block_images: ClassVar[int] = 256

    def __init__(self, settings: CnnParameters, team: Team) -> None:
        super().__init__(settings)
        self._team = team
        self._batches: dict[tuple[Sizes, int], _Batch] = {}
        self._workspaces: dict[tuple[Sizes, int, int], _Workspace] = {}

    @override
    def _scores(self, params: Params, x: Array) -> Array:
        batch, _ = self._convolved(params, x)
        return np.asarray(self._hidden(params, batch.features) @ params["w4"] + params["b4"])

    @override
    def _gradient(self, params: Params, x: Array, y: Array, out: Params, examples: int) -> Sums:
        batch, sizes = self._convolved(params, x)
        hidden = self._hidden(params, batch.features)
        delta, sums = softmax_delta(hidden @ params["w4"] + params["b4"], y)
        delta *= np.float32(len(y) / examples)
        np.matmul(hidden.T, delta, out=out["w4"])
        np.sum(delta, axis=0, out=out["b4"])
        delta = delta @ params["w4"].T
        delta *= hidden > 0
        np.sum(delta, axis=0, out=out["b3"])
        self._through_hidden(params, batch, delta, out)
        self._back(params, x, batch, sizes, out)
        return sums

    def _convolved(self, params: Params, x: Array) -> tuple[_Batch, Sizes]:
        """Both layers of convolution."""
        count, height, width, channels = x.shape
        side, _, first, second = params["w2"].shape
        sizes = Sizes(height, width, channels, side, first, second)
        batch = self._batch(sizes, count)
        self._team.run([partial(self._forward, params, x, batch, sizes, chunks) for chunks in _slots(count)])
        return batch, sizes

    def _forward(self, params: Params, x: Array, batch: _Batch, sizes: Sizes, chunks: list[slice], thread: int) -> None:
        w1 = params["w1"].reshape(-1, sizes.first)
        w2 = params["w2"].reshape(sizes.side, -1, sizes.second)
        for chunk in chunks:
            work = self._workspace(sizes, chunk.stop - chunk.start, thread)
            kernels.columns(work.padded(x[chunk]), sizes.side, work.columns)
            np.matmul(work.columns.T, w1, out=work.wide.reshape(-1, sizes.first))
            middle = batch.middle[chunk]
            kernels.pool_first(work.wide, params["b1"], sizes.edge, middle, batch.first_places[chunk])
            kernels.rows(middle, sizes.side, work.rows)
            np.matmul(work.shifted_rows, w2, out=work.products)
            kernels.add_rows(work.products.reshape(sizes.side, -1), work.narrow.reshape(-1))
            kernels.pool_second(work.narrow, params["b2"], batch.last[chunk], batch.second_places[chunk])

    def _hidden(self, params: Params, features: Array) -> Array:
        weights = params["w3"]
        hidden = np.empty((len(features), weights.shape[1]), dtype=np.float32)

        def part(columns: slice, _: int) -> None:
            np.matmul(features, weights[:, columns], out=hidden[:, columns])

        self._team.run([partial(part, columns) for columns in _parts(weights.shape[1], COLUMNS)])
        hidden += params["b3"]
        return np.maximum(hidden, 0, out=hidden)

    def _through_hidden(self, params: Params, batch: _Batch, delta: Array, out: Params) -> None:
        features, weights = batch.features, params["w3"]

        def part(rows: slice, _: int) -> None:
            np.matmul(features[:, rows].T, delta, out=out["w3"][rows])
            np.matmul(delta, weights[rows].T, out=batch.delta[:, rows])

        self._team.run([partial(part, rows) for rows in _parts(len(weights), COLUMNS)])

    def _back(self, params: Params, x: Array, batch: _Batch, sizes: Sizes, out: Params) -> None:
        """Gradients of both convolutions: every slot's own, then added in order."""
        turned = np.ascontiguousarray(params["w2"][::-1, ::-1].transpose(0, 1, 3, 2))
        names = ("w1", "b1", "w2", "b2")
        slots = _slots(len(x))
        found = [{name: np.zeros_like(out[name]) for name in names} for _ in slots]
        tasks = [
            partial(self._backward, x, batch, sizes, turned, chunks, own)
            for chunks, own in zip(slots, found, strict=True)
        ]
        self._team.run(tasks)
        for name in names:
            out[name][...] = found[0][name]
            for own in found[1:]:
                out[name] += own[name]

    def _backward(
        self, x: Array, batch: _Batch, sizes: Sizes, turned: Array, chunks: list[slice], own: Params, thread: int
    ) -> None:
        side, first, second = sizes.side, sizes.first, sizes.second
        w1, w2 = own["w1"].reshape(-1, first), own["w2"].reshape(side, -1, second)
        turned = turned.reshape(side, -1, first)
        for chunk in chunks:
            work = self._workspace(sizes, chunk.stop - chunk.start, thread)
            delta = batch.delta[chunk].reshape(-1, *sizes.last, second)
            places = batch.second_places[chunk]
            kernels.unpool_second(delta, places, side, work.narrow, work.delta_rows, own["b2"])
            kernels.rows(batch.middle[chunk], side, work.rows)
            narrow = work.narrow.reshape(-1, second)
            np.matmul(work.shifted_rows.transpose(0, 2, 1), narrow, out=work.second_weights)
            w2 += work.second_weights
            np.matmul(work.shifted_delta_rows, turned, out=work.delta_products)
            kernels.add_rows(work.delta_products.reshape(side, -1), work.delta_middle.reshape(-1))
            kernels.unpool_first(work.delta_middle, batch.first_places[chunk], work.wide, own["b1"])
            kernels.columns(work.padded(x[chunk]), side, work.columns)
            np.matmul(work.columns, work.wide.reshape(-1, first), out=work.first_weights)
            w1 += work.first_weights

    def _batch(self, sizes: Sizes, count: int) -> _Batch:
        """Of the last two sizes: an epoch has its usual batches and a smaller last one."""
        key = (sizes, count)
        if key not in self._batches:
            if len(self._batches) == 2:
                self._batches.pop(next(iter(self._batches)))
            self._batches[key] = _Batch(sizes, count)
        return self._batches[key]

    def _workspace(self, sizes: Sizes, images: int, thread: int) -> _Workspace:
        key = (sizes, images, thread)
        if key not in self._workspaces:
            self._workspaces[key] = _Workspace(sizes, images)
        return self._workspaces[key]


def _zeros(*shape: int) -> Array:
    return np.zeros(shape, dtype=np.float32)


def _shifted(rows: Array, side: int) -> Array:
    """The rows as they meet each row of the kernel: ``(k, height · n · width, length)``, a view."""
    height, images, width, length = rows.shape
    row, _, pixel, item = rows.strides
    shape = (side, (height - side + 1) * images * width, length)
    return np.lib.stride_tricks.as_strided(rows, shape, (row, pixel, item))


def _parts(count: int, parts: int) -> list[slice]:
    """The same cut for every number of threads; sizes differ by at most one, none is empty."""
    ends = [count * part // parts for part in range(parts + 1)]
    return [slice(begin, end) for begin, end in pairwise(ends) if begin < end]


def _slots(count: int) -> list[list[slice]]:
    """Each slot's images in chunks."""
    return [
        [slice(begin, min(begin + CHUNK, part.stop)) for begin in range(part.start, part.stop, CHUNK)]
        for part in _parts(count, SLOTS)
    ]
