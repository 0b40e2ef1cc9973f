"""The compiled loops against NumPy and the reference, on the same cases."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedjob_aggregator.aggregation.backends import INFINITY_BITS, KernelChoice, NumpyKernels
from fedjob_aggregator.aggregation.reference import weighted_sum

pytestmark = pytest.mark.integration
NUMPY = NumpyKernels()
VALUES = hnp.arrays(np.float32, st.integers(0, 300), elements=st.floats(width=32, min_value=-4096, max_value=4096))


@pytest.fixture(scope="module")
def numba(tmp_path_factory):
    choice = KernelChoice(tmp_path_factory.mktemp("kernels"))
    choice.prepare(1 << 20, afterwards=lambda: None)
    choice.wait()
    assert choice.current.name == "numba"
    return choice.current


@settings(max_examples=200, deadline=None)
@given(VALUES, st.integers(0, 30), st.integers(0, 2**20), st.integers(-(2**60), 2**60))
def test_the_compiled_fold_has_the_bits_of_numpy_and_of_the_reference(numba, values, scale_bits, weight, start):
    values.flags.writeable = False
    sums = np.full(values.size, start, np.int64), np.full(values.size, start, np.int64)
    numba.fold(sums[0], values, scale_bits, weight)
    NUMPY.fold(sums[1], values, scale_bits, weight)
    expected = [start + value for value in weighted_sum([(values, weight)], scale_bits)]
    assert sums[0].tolist() == sums[1].tolist() == expected


@settings(max_examples=200, deadline=None)
@given(hnp.arrays(np.float32, st.integers(0, 300), elements=st.floats(width=32)))
def test_the_compiled_scan_finds_what_numpy_finds(numba, values):
    assert numba.scan(values) == NUMPY.scan(values)
    assert (numba.scan(values) < INFINITY_BITS) == bool(np.isfinite(values).all())


def test_ties_and_extremes_are_the_same(numba):
    edge = np.array([0.5, 1.5, -0.5, -2.5, 2.0**-149, -0.0, 2.0**31, -(2.0**31)], np.float32)
    for scale_bits in (0, 1, 30):
        sums = np.zeros(edge.size, np.int64), np.zeros(edge.size, np.int64)
        numba.fold(sums[0], edge, scale_bits, 1)
        NUMPY.fold(sums[1], edge, scale_bits, 1)
        assert sums[0].tolist() == sums[1].tolist()


def test_a_fold_reads_bytes_in_place(numba):
    body = np.arange(1000, dtype="<f4").tobytes()
    sums = np.zeros(1000, np.int64)
    numba.fold(sums, np.frombuffer(body, "<f4"), 0, 3)
    assert sums.tolist() == list(range(0, 3000, 3))
