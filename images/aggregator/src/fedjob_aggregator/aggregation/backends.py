"""Which implementation of the inner loops is used: NumPy until Numba is compiled, and for good for small models.

Both give the same bits, so the choice is one of speed only. Importing Numba takes about a second of processor time:
a job with a small model never pays for it.
"""

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from fedjob_aggregator.aggregation.compiler_memory import release_compiler
from fedjob_aggregator.aggregation.fixed_point import factor

SMALL_MODEL_BYTES: Final = 1 << 20
"""Below this size of an update NumPy is as fast as anyone can notice."""
BLOCK_ELEMENTS: Final = 1 << 15
"""Elements that NumPy works on at a time, so that its temporaries stay in the cache."""
INFINITY_BITS: Final = 0x7F800000
"""Bits of float32 infinity; without its sign, every number that is not finite is at least this."""
_SIGNLESS: Final = np.uint32(0x7FFFFFFF)

_log = logging.getLogger(__name__)

Floats = npt.NDArray[np.float32]
Sums = npt.NDArray[np.int64]


class Kernels(Protocol):
    """The two loops over the elements of an update."""

    name: str

    def scan(self, values: Floats) -> int:
        """Bits of the largest absolute value; `INFINITY_BITS` or more when a value is not finite."""

    def fold(self, sums: Sums, values: Floats, scale_bits: int, weight: int) -> None:
        """Add weight * rint(value * 2^scaleBits) to every sum, in place."""


class NumpyKernels:
    """The loops in NumPy, block by block."""

    name = "numpy"

    def scan(self, values: Floats) -> int:
        """As `Kernels.scan`."""
        bits = values.view(np.uint32)
        return max(
            (
                int((bits[begin : begin + BLOCK_ELEMENTS] & _SIGNLESS).max())
                for begin in range(0, bits.size, BLOCK_ELEMENTS)
            ),
            default=0,
        )

    def fold(self, sums: Sums, values: Floats, scale_bits: int, weight: int) -> None:
        """As `Kernels.fold`."""
        for begin in range(0, values.size, BLOCK_ELEMENTS):
            block = slice(begin, begin + BLOCK_ELEMENTS)
            scaled = values[block] * np.float64(factor(scale_bits))
            quantized = np.rint(scaled, out=scaled).astype(np.int64)
            quantized *= weight
            sums[block] += quantized


class NumbaKernels:
    """The loops compiled.

    Raises:
        ImportError, OSError: Numba cannot be imported, or has no folder to keep compiled code in.
    """

    name = "numba"

    def __init__(self) -> None:
        from fedjob_aggregator.aggregation import kernels  # noqa: PLC0415 - compiles; a small model never needs it

        self._kernels = kernels

    def scan(self, values: Floats) -> int:
        """As `Kernels.scan`."""
        return int(self._kernels.scan(values.view(np.uint32)))

    def fold(self, sums: Sums, values: Floats, scale_bits: int, weight: int) -> None:
        """As `Kernels.fold`."""
        self._kernels.fold(sums, values, factor(scale_bits), weight)


class KernelChoice:
    """The kernels to use now; switches to Numba when it is ready.

    Args:
        cache_folder: Where compiled code is kept unless ``NUMBA_CACHE_DIR`` says otherwise; must be writable.
    """

    def __init__(self, cache_folder: Path) -> None:
        self._cache_folder = cache_folder
        self._current: Kernels = NumpyKernels()
        self._warming: threading.Thread | None = None

    @property
    def current(self) -> Kernels:
        """The kernels to use; may be called from any thread."""
        return self._current

    def prepare(self, update_bytes: int, *, afterwards: Callable[[], None]) -> None:
        """Compile in the background if updates of this size are worth it; returns at once.

        Args:
            update_bytes: Size of the updates to come.
            afterwards: Called in the background when that is done, or at once if there is nothing to do.
        """
        if update_bytes < SMALL_MODEL_BYTES or self._warming is not None:
            afterwards()
            return
        self._warming = threading.Thread(target=self._warm, args=(afterwards,), name="compile-kernels", daemon=True)
        self._warming.start()

    def wait(self) -> None:
        """Wait until the compilation that `prepare` started is over; for measurements and tests."""
        if self._warming is not None:
            self._warming.join()

    def _warm(self, afterwards: Callable[[], None]) -> None:
        os.environ.setdefault("NUMBA_CACHE_DIR", str(self._cache_folder))
        try:
            self._current = NumbaKernels()
        except (ImportError, OSError, RuntimeError) as error:
            # Not silent, and never wrong: NumPy gives the same bits at a tenth of the speed.
            _log.warning("compiled kernels are not available, NumPy goes on: %s", error)
        release_compiler()
        afterwards()
