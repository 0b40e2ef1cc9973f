"""The fold against the reference in unbounded integers: exact, whatever the order and the blocks."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedjob_aggregator.aggregation import reference
from fedjob_aggregator.aggregation.accumulator import Accumulator, flat_begins, runs
from fedjob_aggregator.aggregation.backends import BLOCK_ELEMENTS, INFINITY_BITS, KernelChoice, NumpyKernels
from fedjob_aggregator.aggregation.fixed_point import SUM_LIMIT, check_range, divisor, quantized
from fedjob_aggregator.nextmodel import NonFiniteMeanError, narrowed
from fedjob_protocol.errors import Refusal, Word
from fedjob_protocol.weights import Manifest, decode, encode, read_header

KERNELS = NumpyKernels()
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
MODERATE = st.floats(width=32, min_value=-1000, max_value=1000)
UPDATES = st.lists(
    st.tuples(hnp.arrays(np.float32, 7, elements=MODERATE), st.integers(0, 10**6)), min_size=1, max_size=6
)
SCALES = st.integers(0, 40)


def fits(updates, scale_bits):
    for delta, weight in updates:
        check_range(float(np.abs(delta).max()), weight, len(updates), scale_bits)


def folded(updates, scale_bits, base, *, blocks=(7,)):
    manifest = Manifest.of_arrays({"t": base})
    accumulator = Accumulator(manifest)
    for delta, weight in updates:
        begin = 0
        for length in blocks:
            accumulator.fold(KERNELS, begin, delta[begin : begin + length], scale_bits=scale_bits, weight=weight)
            begin += length
    return accumulator


def next_values(accumulator, begin, base, **scale):
    """Base + mean of some elements of the one tensor."""
    mean = accumulator.quotients(begin, base.size, **scale)
    return narrowed(accumulator.manifest.tensors[0], mean + base)


@given(UPDATES, SCALES, st.randoms(use_true_random=False))
def test_sums_are_exact_in_any_order_and_in_any_blocks(updates, scale_bits, random):
    try:
        fits(updates, scale_bits)
    except Refusal:
        return
    expected = reference.weighted_sum(updates, scale_bits)
    base = np.zeros(7, np.float32)
    spec = Manifest.of_arrays({"t": base}).tensors[0]
    shuffled = random.sample(updates, len(updates))
    for order, blocks in ((updates, (7,)), (shuffled, (1, 2, 4)), (shuffled, (6, 1))):
        assert folded(order, scale_bits, base, blocks=blocks).sums(spec).tolist() == expected


@given(UPDATES, SCALES, hnp.arrays(st.sampled_from([np.dtype("<f4"), np.dtype("<f8")]), 7, elements=MODERATE))
def test_the_mean_has_the_bits_of_the_reference_and_is_near_the_float64_mean(updates, scale_bits, base):
    try:
        fits(updates, scale_bits)
    except Refusal:
        return
    total = sum(weight for _, weight in updates)
    if total == 0:
        return
    accumulator = folded(updates, scale_bits, base)
    mean = np.concatenate(
        [
            next_values(accumulator, begin, base[begin:end], total_weight=total, scale_bits=scale_bits)
            for begin, end in ((0, 3), (3, 7))
        ]
    )
    expected = reference.mean(base, reference.weighted_sum(updates, scale_bits), total, scale_bits)
    assert mean.dtype == base.dtype
    assert mean.tobytes() == expected.tobytes()
    plain = base.astype(np.float64) + sum(d.astype(np.float64) * w for d, w in updates) / total
    largest = max(float(np.abs(base).max()), *(float(np.abs(d).max()) for d, _ in updates))
    assert np.abs(mean - plain).max() <= 2.0**-scale_bits + 1e-6 * largest


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(-40, 20).map(lambda power: 2.0**power), min_size=7, max_size=7),
            st.integers(1, 10**9),
        ),
        min_size=1,
        max_size=5,
    ),
    st.integers(20, 40),
)
def test_tensors_of_all_magnitudes_are_folded_right_or_refused(magnitudes, scale_bits):
    """One tensor spans 1e-12 to 1e6, the numbers of examples 1 to 1e9."""
    updates = [(np.array(values, np.float32), weight) for values, weight in magnitudes]
    expected = reference.weighted_sum(updates, scale_bits)
    try:
        fits(updates, scale_bits)
    except Refusal:
        return
    accumulator = folded(updates, scale_bits, np.zeros(7, np.float32))
    assert accumulator.sums(accumulator.manifest.tensors[0]).tolist() == expected
    assert all(abs(value) <= SUM_LIMIT for value in expected)


@given(FLOATS, st.integers(0, 2**53), st.integers(1, 100_000), st.integers(0, 52))
def test_what_passes_the_range_check_cannot_overflow_together(value, weight, participants, scale_bits):
    largest = abs(value)
    try:
        check_range(largest, weight, participants, scale_bits)
    except Refusal:
        assert weight * quantized(largest, scale_bits) > SUM_LIMIT // participants
        return
    assert participants * weight * quantized(largest, scale_bits) <= SUM_LIMIT < np.iinfo(np.int64).max


@pytest.mark.parametrize(
    ("value", "weight", "participants", "scale_bits", "accepted"),
    [
        (1.0, 2**32, 1, 30, True),
        (1.0, 2**32 + 1, 1, 30, False),
        (1.0, 2**31, 2, 30, True),
        (1.0, 2**31 + 1, 2, 30, False),
        (3.4028234663852886e38, 1, 1, 0, False),
        (3.4028234663852886e38, 0, 100_000, 52, True),
        (0.0, 2**53, 100_000, 52, True),
    ],
)
def test_the_limit_of_the_range(value, weight, participants, scale_bits, accepted):
    if accepted:
        check_range(value, weight, participants, scale_bits)
        return
    with pytest.raises(Refusal, match="the sum could overflow") as caught:
        check_range(value, weight, participants, scale_bits)
    assert caught.value.word is Word.VALUE_OUT_OF_RANGE


@given(hnp.arrays(np.float32, st.integers(0, 50), elements=FLOATS))
def test_the_scan_finds_the_largest_absolute_value(values):
    bits = np.array(KERNELS.scan(values), np.uint32).view(np.float32)
    assert float(bits) == max((abs(float(value)) for value in values), default=0.0)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, -math.nan])
@pytest.mark.parametrize("position", [0, 1, BLOCK_ELEMENTS, 2 * BLOCK_ELEMENTS])
def test_the_scan_finds_a_value_that_is_not_finite_anywhere(value, position):
    values = np.ones(2 * BLOCK_ELEMENTS + 1, np.float32)
    values[position] = value
    values.flags.writeable = False
    assert KERNELS.scan(values) >= INFINITY_BITS


def test_ties_go_to_even():
    values = np.array([0.5, 1.5, 2.5, -0.5, -1.5], np.float32)
    sums = np.zeros(5, np.int64)
    KERNELS.fold(sums, values, 0, 1)
    assert sums.tolist() == [0, 2, 2, 0, -2] == [quantized(float(value), 0) for value in values]


def test_the_divisor_is_rounded_once():
    assert divisor(3, 30) == 3 * 2.0**30
    assert divisor(2**53 + 1, 1) == float((2**53 + 1) * 2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_accepted_update_makes_a_finite_base_infinite(dtype):
    """The largest mean of accepted updates is 2^62, less than half a step at the largest number of either type."""
    base = np.full(2, np.finfo(dtype).max, dtype)
    largest = np.array([2.0**62, -(2.0**62)], np.float32)
    check_range(float(largest[0]), 1, 1, 0)
    accumulator = folded([(largest, 1)], 0, base, blocks=(2,))
    assert np.isfinite(next_values(accumulator, 0, base, total_weight=1, scale_bits=0)).all()


def test_a_mean_that_is_not_finite_is_refused_by_name():
    base = np.array([np.inf], np.float32)
    accumulator = folded([(np.ones(1, np.float32), 1)], 0, base, blocks=(1,))
    with pytest.raises(NonFiniteMeanError, match="'t' is not finite in F32"):
        next_values(accumulator, 0, base, total_weight=1, scale_bits=0)


def model(*names):
    return {name: np.full((2, index + 1), index, np.float32) for index, name in enumerate(names)}


def test_a_canonical_update_is_one_run():
    arrays = model("a", "b", "c")
    (run,) = runs(read_header(encode(arrays)), flat_begins(Manifest.of_arrays(arrays)))
    assert (run.begin, run.elements) == (0, 12)


@settings(max_examples=30)
@given(st.permutations(["a", "b", "c", "d"]))
def test_an_update_in_any_order_of_tensors_is_folded_where_it_belongs(order):
    arrays = model("a", "b", "c", "d")
    header, position, data = {}, 0, b""
    for name in order:
        end = position + arrays[name].nbytes
        header[name] = (
            f'"{name}":{{"dtype":"F32","shape":{list(arrays[name].shape)},"data_offsets":[{position},{end}]}}'
        )
        position, data = end, data + arrays[name].tobytes()
    text = ("{" + ",".join(header.values()) + "}").encode()
    text += b" " * (-len(text) % 8)
    file = len(text).to_bytes(8, "little") + text + data
    assert decode(file)[0].keys() == arrays.keys()
    accumulator = Accumulator(Manifest.of_arrays(arrays))
    for run in runs(read_header(file), flat_begins(accumulator.manifest)):
        values = np.frombuffer(file, np.float32, run.elements, run.file_begin)
        accumulator.fold(KERNELS, run.begin, values, scale_bits=0, weight=1)
    for spec in accumulator.manifest.tensors:
        assert accumulator.sums(spec).tolist() == arrays[spec.name].reshape(-1).astype(int).tolist()


def test_a_reset_starts_over_at_zero():
    accumulator = folded([(np.ones(7, np.float32), 3)], 4, np.zeros(7, np.float32))
    accumulator.reset()
    assert not accumulator.sums(accumulator.manifest.tensors[0]).any()


def test_small_models_never_compile(tmp_path):
    choice = KernelChoice(tmp_path)
    called = []
    choice.prepare((1 << 20) - 1, afterwards=lambda: called.append(1))
    choice.wait()
    assert called
    assert choice.current.name == "numpy"
