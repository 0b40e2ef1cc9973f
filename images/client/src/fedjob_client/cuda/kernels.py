"""CUDA kernels: gradient, loss and right answers of a regression in one launch, then one launch that adds the tiles.

No atomics: each block sums one tile (see `fedjob_client.cuda.plan`) in its shared memory and writes the sums to a row
of its own; `reduction_kernel` adds the rows in a fixed order. The same bits each time on one type of GPU.

Precision: products and sums within a thread are float32, over at most `ROWS_PER_THREAD` examples (narrow) or one step
of a block (wide, as many as the block has threads); every further sum is float64. `fedjob_client.cuda.gradient` states
the bound that follows.

Memory: ``columns`` and ``rows`` are float32 in C order; ``labels`` float32, or int32 classes for softmax; ``order``
int32 row numbers, read only by kernels that gather; ``params`` float32 ``(features + 1, classes)``, the intercepts
last; ``partials`` float64 ``(tiles, outputs)``.
"""

from functools import cache
from typing import Any, Final

import numpy as np
from numba import cuda, float32, float64

from fedjob_client.cuda.driver import is_simulated
from fedjob_client.cuda.links import LINKS
from fedjob_client.cuda.plan import Shape
from fedjob_client.cuda.simulator import share_arrays_once

if is_simulated():
    share_arrays_once()

STAGED: Final = 32
"""Features of a wide kernel that pass through shared memory at a time: one line of 128 bytes of each example."""
ZERO: Final = np.float32(0)
ONE: Final = np.float32(1)


@cuda.jit(device=True)
def _sum_block(shared, thread, threads):
    """Add what the threads of a block left in ``shared`` into its first element, as a tree."""
    cuda.syncthreads()
    half = threads // 2
    while half > 0:
        if thread < half:
            shared[thread] += shared[thread + half]
        cuda.syncthreads()
        half //= 2


@cache
def gradient_kernel(link: str, shape: Shape, *, gathers: bool) -> Any:
    """The kernel for a model and a shape; compiled at its first launch.

    Launch it with one block of ``shape.threads`` for each tile. Arguments: columns ``(features, n)`` if the shape is
    narrow, else rows ``(n, features)``; labels, order, params, partials; the number of examples; examples per tile; the
    row of ``partials`` that its first block writes.
    """
    make = _narrow if shape.is_narrow else _wide
    return make(LINKS[link], shape, gathers)


def _narrow(link: Any, shape: Shape, gathers: bool) -> Any:  # noqa: FBT001 - known when it is made
    """One thread for each example: neighbours read neighbouring words, weights and sums stay in registers."""
    features, threads = shape.features, shape.threads
    # Loads in flight hide the memory's latency: a thread with few features starts those of several examples at once.
    unrolled = 4 if features <= 2 else 2 if features <= 8 else 1
    bias, losses, rights = features, features + 1, features + 2
    outputs, parameters, kept = shape.outputs, shape.parameters, unrolled * features  # constants of the compiled kernel

    @cuda.jit
    def gradient(columns, labels, order, params, partials, examples, rows_per_tile, first_tile):
        thread = cuda.threadIdx.x
        begin = cuda.blockIdx.x * rows_per_tile
        end = min(begin + rows_per_tile, examples)
        weights = cuda.local.array(parameters, float32)
        sums = cuda.local.array(outputs, float32)
        read = cuda.local.array(kept, float32)
        wanted = cuda.local.array(unrolled, float32)
        scores = cuda.local.array(1, float32)
        for j in range(features + 1):
            weights[j] = params[j, 0]
        for v in range(outputs):
            sums[v] = ZERO
        place = begin + thread
        while place < end:
            for u in range(unrolled):
                at = min(place + u * threads, end - 1)  # behind the end: read again, and not counted below
                row = order[at] if gathers else at
                wanted[u] = labels[row]
                for j in range(features):
                    read[u * features + j] = columns[j, row]
            for u in range(unrolled):
                if place + u * threads < end:
                    score = weights[bias]
                    for j in range(features):
                        score += weights[j] * read[u * features + j]
                    scores[0] = score
                    loss, right = link(scores, wanted[u])
                    delta = scores[0]
                    for j in range(features):
                        sums[j] += delta * read[u * features + j]
                    sums[bias] += delta
                    sums[losses] += loss
                    sums[rights] += np.float32(right)
            place += unrolled * threads
        shared = cuda.shared.array(threads, float64)
        for v in range(outputs):
            shared[thread] = float64(sums[v])
            _sum_block(shared, thread, threads)
            if thread == 0:
                partials[first_tile + cuda.blockIdx.x, v] = shared[0]
            cuda.syncthreads()

    return gradient


def _wide(link: Any, shape: Shape, gathers: bool) -> Any:  # noqa: FBT001 - known when it is made
    """Scores with a thread for each example, then sums with a thread for each feature, a step of examples at a time.

    Both read neighbouring words of ``rows``: the first through a staging area in shared memory, the second as they lie,
    a step's worth of them still in the second-level cache. The intercept is a feature that is 1.
    """
    classes, threads = shape.classes, shape.threads
    padded = STAGED + 1  # threads that read a column of the staging area hit different banks

    @cuda.jit
    def gradient(rows, labels, order, params, partials, examples, rows_per_tile, first_tile):
        thread = cuda.threadIdx.x
        begin = cuda.blockIdx.x * rows_per_tile
        end = min(begin + rows_per_tile, examples)
        tile = first_tile + cuda.blockIdx.x
        features = rows.shape[1]
        staged = cuda.shared.array((threads, padded), float32)
        deltas = cuda.shared.array((threads, classes), float32)
        shared = cuda.shared.array(threads, float64)
        scores = cuda.local.array(classes, float32)
        sums = cuda.local.array(classes, float32)
        losses = 0.0
        rights = 0.0
        for base in range(begin, end, threads):
            count = min(threads, end - base)
            for c in range(classes):
                scores[c] = params[features, c]
            for first in range(0, features, STAGED):
                width = min(STAGED, features - first)
                for element in range(thread, threads * STAGED, threads):
                    r, j = element // STAGED, element % STAGED
                    if r < count and j < width:
                        row = order[base + r] if gathers else base + r
                        staged[r, j] = rows[row, first + j]
                cuda.syncthreads()
                if thread < count:
                    for j in range(width):
                        value = staged[thread, j]
                        for c in range(classes):
                            scores[c] += value * params[first + j, c]
                cuda.syncthreads()
            if thread < count:
                row = order[base + thread] if gathers else base + thread
                loss, right = link(scores, labels[row])
                losses += float64(loss)
                rights += float64(right)
                for c in range(classes):
                    deltas[thread, c] = scores[c]
            cuda.syncthreads()
            for j in range(thread, features + 1, threads):
                for c in range(classes):
                    sums[c] = ZERO
                for r in range(count):
                    row = order[base + r] if gathers else base + r
                    value = rows[row, j] if j < features else ONE
                    for c in range(classes):
                        sums[c] += value * deltas[r, c]
                for c in range(classes):
                    before = partials[tile, j * classes + c] if base > begin else 0.0
                    partials[tile, j * classes + c] = before + float64(sums[c])
            cuda.syncthreads()
        for metric in range(2):
            shared[thread] = losses if metric == 0 else rights
            _sum_block(shared, thread, threads)
            if thread == 0:
                partials[tile, (features + 1) * classes + metric] = shared[0]
            cuda.syncthreads()

    return gradient


@cache
def reduction_kernel(width: int, lanes: int) -> Any:
    """The kernel that adds the tiles: blocks of ``(width, lanes)`` threads, one for each ``width`` outputs.

    Lane l adds the tiles l, l + lanes, …, then the lanes are added as a tree. Arguments: partials, the number of tiles,
    totals ``(outputs,)`` float64.
    """

    @cuda.jit
    def reduce(partials, tiles, totals):
        column = cuda.threadIdx.x
        lane = cuda.threadIdx.y
        output = cuda.blockIdx.x * width + column
        shared = cuda.shared.array((lanes, width), float64)
        total = 0.0
        if output < totals.shape[0]:
            for tile in range(lane, tiles, lanes):
                total += partials[tile, output]
        shared[lane, column] = total
        cuda.syncthreads()
        half = lanes // 2
        while half > 0:
            if lane < half:
                shared[lane, column] += shared[lane + half, column]
            cuda.syncthreads()
            half //= 2
        if lane == 0 and output < totals.shape[0]:
            totals[output] = shared[0, column]

    return reduce
