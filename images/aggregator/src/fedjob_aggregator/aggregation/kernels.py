"""The inner loops in Numba. Importing this module compiles them, or loads them from the cache, so it takes a second.

Imported only by `fedjob_aggregator.aggregation.backends`, after ``NUMBA_CACHE_DIR`` is set. Both loops release the
interpreter's lock and vectorise: the scan is an integer maximum rather than a test for NaN with a boolean, and no
reduction is in the loop of the fold (measured: either would cost more than half of the speed).
"""

import numpy as np
import numpy.typing as npt
from numba import float32, float64, int64, njit, types, uint32, void

_READ_FLOATS = types.Array(float32, 1, "C", readonly=True)
_READ_BITS = types.Array(uint32, 1, "C", readonly=True)
_SUMS = types.Array(int64, 1, "C")


@njit(uint32(_READ_BITS), cache=True, nogil=True)
def scan(bits: npt.NDArray[np.uint32]) -> np.uint32:  # pragma: no cover - compiled
    """Largest float32, without its sign, as bits: they are ordered as the absolute values are, then infinity, NaN."""
    top = np.uint32(0)
    for index in range(bits.size):
        top = max(top, np.uint32(bits[index] & np.uint32(0x7FFFFFFF)))
    return top


@njit(void(_SUMS, _READ_FLOATS, float64, int64), cache=True, nogil=True)
def fold(
    sums: npt.NDArray[np.int64], values: npt.NDArray[np.float32], scale: float, weight: int
) -> None:  # pragma: no cover - compiled
    """Add weight * rint(value * scale) to every sum; exact when the update passed `fixed_point.check_range`."""
    for index in range(values.size):
        sums[index] += np.int64(np.rint(np.float64(values[index]) * scale)) * weight
