"""What Numba's CUDA simulator, in which the kernels are tested without a GPU, needs to compute what a GPU does."""

import sys
import threading
from typing import Any

import numpy as np


def share_arrays_once() -> None:
    """Let all threads of a block get the same array in shared memory.

    The simulator (of Numba 0.68) looks for the array and makes it if there is none, without a lock: two threads at once
    could each get one of their own, and a sum over the block's threads would then miss one of them.
    """
    from numba.cuda.simulator.kernelapi import FakeCUDAShared  # noqa: PLC0415 - there in the simulator only
    from numba.np.numpy_support import as_dtype  # noqa: PLC0415 - imports Numba, which takes half a second

    lock = threading.Lock()

    def array(self: Any, shape: Any, dtype: Any) -> Any:
        caller = sys._getframe(1)  # noqa: SLF001 - an array is known by the line that asks for it, as in the simulator
        place = caller.f_code.co_filename, caller.f_lineno
        with lock:
            if place not in self._allocations:
                self._allocations[place] = np.empty(shape, as_dtype(dtype))
            return self._allocations[place]

    FakeCUDAShared.array = array
