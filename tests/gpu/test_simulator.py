"""That Numba's simulator computes what a GPU does, whatever the order in which it runs a block's threads."""

import time

import numpy as np
import pytest
from numba import cuda, float64

from fedjob_client.cuda import (
    kernels,  # noqa: F401 - mends the simulator when it is imported
    simulator,
)
from tests.gpu.conftest import SIMULATED

pytestmark = pytest.mark.skipif(not SIMULATED, reason="this machine has a GPU")
THREADS = 4


class SlowArrays:
    """NumPy, for the simulator: between its look for an array and its making of one, all other threads come by."""

    def __getattr__(self, name):
        return getattr(np, name)

    def empty(self, *args):
        time.sleep(0.05)
        return np.empty(*args)


def test_threads_that_start_at_once_share_one_array(monkeypatch):
    from numba.cuda.simulator import kernelapi  # noqa: PLC0415 - there in the simulator only

    @cuda.jit
    def total(out):
        shared = cuda.shared.array(THREADS, float64)
        shared[cuda.threadIdx.x] = 1.0
        cuda.syncthreads()
        if cuda.threadIdx.x == 0:
            for thread in range(THREADS):
                out[0] += shared[thread]

    for module in (kernelapi, simulator):
        monkeypatch.setattr(module, "np", SlowArrays())
    out = np.zeros(1)
    total[1, THREADS](out)
    assert out[0] == THREADS
