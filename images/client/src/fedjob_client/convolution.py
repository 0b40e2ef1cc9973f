"""Numba kernels of the convolutional network: everything around its matrix products. Compiled at the first call.

All arrays are float32 in C order unless it says otherwise; ``r = k // 2`` pixels of zeros surround a padded image. The
second convolution works on rows: a product for each of the k rows of the kernel, over ``rows[y, image, x]`` = the k
pixels around x in row y with their channels end to end. So nothing has to be copied k times to line rows up, as k
products of views that begin at row 0, 1, … k - 1 do it.

`fedjob_client.models.cnn` is the reference.
"""

from typing import Final

import numba
import numpy as np

from fedjob_client.trainer import Array

DEAD: Final = np.uint8(4)
"""The place of a pooled value that relu made 0: nothing flows back through it."""
ZERO: Final = np.float32(0)


@numba.njit(nogil=True, cache=True)
def columns(planes: Array, k: int, out: Array) -> None:
    """Patches by column: ``out[(dy, dx, channel), (image, y, x)]`` from padded planes ``(n, channels, …, …)``."""
    n, channels, padded_height, padded_width = planes.shape
    height, width = padded_height - k + 1, padded_width - k + 1
    for dy in range(k):
        for dx in range(k):
            for channel in range(channels):
                row = (dy * k + dx) * channels + channel
                for i in range(n):
                    for y in range(height):
                        begin = (i * height + y) * width
                        for x in range(width):
                            out[row, begin + x] = planes[i, channel, y + dy, x + dx]


@numba.njit(nogil=True, cache=True)
def pool_first(z: Array, bias: Array, r: int, out: Array, places: Array) -> None:
    """Pool ``z`` (n, height, width, c) into the middle of padded ``out``; ``places`` (n, height/2, width/2, c)."""
    n, height, width, channels = places.shape
    for i in range(n):
        for y in range(height):
            for x in range(width):
                for j in range(channels):
                    top, place = z[i, 2 * y, 2 * x, j], np.uint8(0)
                    value = z[i, 2 * y, 2 * x + 1, j]
                    place = np.uint8(1) if value > top else place
                    top = max(top, value)
                    value = z[i, 2 * y + 1, 2 * x, j]
                    place = np.uint8(2) if value > top else place
                    top = max(top, value)
                    value = z[i, 2 * y + 1, 2 * x + 1, j]
                    place = np.uint8(3) if value > top else place
                    top = max(top, value) + bias[j]
                    places[i, y, x, j] = place if top > ZERO else DEAD
                    out[i, y + r, x + r, j] = max(top, ZERO)


@numba.njit(nogil=True, cache=True)
def rows(a: Array, k: int, out: Array) -> None:
    """``out[y, image, x, (dx, channel)]`` from padded images; its first and last r rows are zero and stay so."""
    height, n, width, length = out.shape
    channels, r = length // k, k // 2
    for y in range(r, height - r):
        for i in range(n):
            for x in range(width):
                for dx in range(k):
                    for j in range(channels):
                        out[y, i, x, dx * channels + j] = a[i, y, x + dx, j]


@numba.njit(nogil=True, cache=True)
def add_rows(parts: Array, out: Array) -> None:
    """Sum the k products ``parts`` (k, …) in their order."""
    for i in range(out.size):
        out[i] = parts[0, i]
    for part in range(1, parts.shape[0]):
        for i in range(out.size):
            out[i] += parts[part, i]


@numba.njit(nogil=True, cache=True)
def pool_second(z: Array, bias: Array, out: Array, places: Array) -> None:
    """Pool ``z`` (height, n, width, c) to ``out`` and ``places`` (n, height/2, width/2, c)."""
    n, height, width, channels = places.shape
    for i in range(n):
        for y in range(height):
            for x in range(width):
                for j in range(channels):
                    top, place = z[2 * y, i, 2 * x, j], np.uint8(0)
                    value = z[2 * y, i, 2 * x + 1, j]
                    place = np.uint8(1) if value > top else place
                    top = max(top, value)
                    value = z[2 * y + 1, i, 2 * x, j]
                    place = np.uint8(2) if value > top else place
                    top = max(top, value)
                    value = z[2 * y + 1, i, 2 * x + 1, j]
                    place = np.uint8(3) if value > top else place
                    top = max(top, value) + bias[j]
                    places[i, y, x, j] = place if top > ZERO else DEAD
                    out[i, y, x, j] = max(top, ZERO)


@numba.njit(nogil=True, cache=True)
def unpool_second(delta: Array, places: Array, k: int, out: Array, out_rows: Array, bias: Array) -> None:
    """Undo `pool_second`, add to the bias' gradient, lay rows for the product for the input's derivative.

    ``out`` (height, n, width, c) and ``out_rows`` (height + 2r, n, width, k · c) are overwritten.
    """
    _, n, width, channels = out.shape
    _, half_height, half_width, _ = places.shape
    r = k // 2
    out[:] = ZERO
    out_rows[:] = ZERO
    for i in range(n):
        for y in range(half_height):
            for x in range(half_width):
                for j in range(channels):
                    place = places[i, y, x, j]
                    if place < DEAD:
                        value = delta[i, y, x, j]
                        row, column = 2 * y + (place >> 1), 2 * x + (place & 1)
                        bias[j] += value
                        out[row, i, column, j] = value
                        for dx in range(max(0, column + r - width + 1), min(k, column + r + 1)):
                            out_rows[row + r, i, column + r - dx, dx * channels + j] = value


@numba.njit(nogil=True, cache=True)
def unpool_first(delta: Array, places: Array, out: Array, bias: Array) -> None:
    """Undo `pool_first` from ``delta`` (height/2, n, width/2, c) to ``out`` (n, height, width, c); add to the bias."""
    n, half_height, half_width, channels = places.shape
    out[:] = ZERO
    for i in range(n):
        for y in range(half_height):
            for x in range(half_width):
                for j in range(channels):
                    place = places[i, y, x, j]
                    if place < DEAD:
                        value = delta[y, i, x, j]
                        bias[j] += value
                        out[i, 2 * y + (place >> 1), 2 * x + (place & 1), j] = value
