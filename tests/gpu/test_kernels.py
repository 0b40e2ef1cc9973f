from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedjob_client.cuda import plan
from fedjob_client.cuda.plan import shape_of
from fedjob_client.data.dataset import Split
from fedjob_client.errors import DataError
from tests.gpu.cases import Case, a_case, assert_within_the_bound, exact
from tests.gpu.conftest import SIMULATED

MOST = 1 if SIMULATED else 1000
"""How much larger problems are on a GPU."""
LINKS = ["linear", "logistic", "softmax"]
ONE_OF_EACH = [("linear", 3, 1), ("linear", 37, 1), ("logistic", 2, 1), ("logistic", 40, 1), ("softmax", 5, 3)]
each_kernel = pytest.mark.parametrize(("link", "features", "classes"), ONE_OF_EACH)


@contextmanager
def at_most(tiles):
    """Have few tiles, of which each takes a block many steps, as it is with a million examples."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "NARROW_TILES", tiles)
        patch.setattr(plan, "WIDE_TILES", tiles)
        yield


@settings(max_examples=30 if SIMULATED else 200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    link=st.sampled_from(LINKS),
    examples=st.integers(1, 30 * MOST),
    features=st.integers(1, 40),
    classes=st.integers(2, 5),
    scale=st.sampled_from([1e-3, 1.0, 30.0]),
    shift=st.sampled_from([0.0, 100.0]),
    tiles=st.sampled_from([1, 2, 1000]),
    seed=st.integers(0, 1000),
)
def test_a_gradient_is_the_exact_one_within_the_stated_bound(
    link, examples, features, classes, scale, shift, tiles, seed
):
    case = a_case(link, examples, features, classes if link == "softmax" else 1, seed=seed, scale=scale, shift=shift)
    out = case.empty()
    with at_most(tiles):
        assert_within_the_bound(case, out, case.gradient()(case.params, out))


@each_kernel
def test_batches_are_gathered_from_what_lies_on_the_device(link, features, classes):
    case = a_case(link, 23 * MOST, features, classes)
    gradient, out = case.gradient(), case.empty()
    for seed, size in ((1, 9), (2, 1), (3, 20)):
        rows = np.random.default_rng(seed).permutation(23 * MOST)[: size * MOST]
        assert_within_the_bound(case.rows(rows), out, gradient(case.params, out, rows))


@each_kernel
def test_a_gradient_has_the_same_bits_each_time_and_however_little_of_the_data_fits(link, features, classes):
    case = a_case(link, 27 * MOST, features, classes)
    rows = np.random.default_rng(4).permutation(27 * MOST)[: 13 * MOST]
    seen = set()
    with at_most(3):
        for capacity in (None, None, 20 * MOST, 1):
            gradient = case.gradient(capacity)
            assert gradient.is_resident == (capacity is None)
            for chosen in (None, rows):
                out = case.empty()
                sums = gradient(case.params, out, chosen)
                seen.add((chosen is None, *(out[name].tobytes() for name in sorted(out)), sums.loss, sums.correct))
    assert len(seen) == 2  # one for all examples, one for the batch


@pytest.mark.parametrize(("link", "features", "classes"), [("linear", 1, 1), ("softmax", 33, 2)])
def test_blocks_of_the_size_that_a_gpu_likes_compute_the_same(link, features, classes):
    # A simulator runs a block's threads as threads of Python, so this is the one case with many.
    small = a_case(link, 40, features, classes)
    case = Case(link, small.split, small.params, shape_of(features, classes, threads=32))
    out = case.empty()
    assert_within_the_bound(case, out, case.gradient()(case.params, out))


@pytest.mark.parametrize("score", [1e30, 200.0, 0.0])
@pytest.mark.parametrize(("link", "classes"), [("logistic", 1), ("softmax", 3)])
def test_extreme_scores_neither_overflow_nor_end_in_nan(link, classes, score):
    case = a_case(link, 8, 1, classes)
    x = np.array([[score], [-score]] * 4, dtype=np.float32)
    params = {"w": np.ones_like(case.params["w"]), "b": np.zeros_like(case.params["b"])}
    if link == "softmax":
        params["w"][0] = [1.0, -1.0, 0.5]
    case = Case(link, Split(x=x, y=case.split.y), params, case.shape)
    out = case.empty()
    sums = case.gradient()(params, out)
    assert np.isfinite(sums.loss)
    expected, right = exact(case)
    assert sums.loss == pytest.approx(right.loss, rel=1e-5)
    assert all(np.isfinite(array).all() for array in out.values())
    assert out["b"] == pytest.approx(expected["b"], abs=1e-6)


def test_a_loss_that_is_not_finite_is_given_back_as_it_is():
    case = a_case("linear", 5, 2)
    params = {"w": np.array([np.nan, 1.0]), "b": np.zeros(1)}
    out = case.empty()
    assert np.isnan(case.gradient()(params, out).loss)
    assert np.isnan(out["w"]).all()


def test_data_that_the_device_cannot_hold_are_refused():
    case = a_case("linear", 5, 2)
    huge = Split(x=case.split.x * 1e300, y=case.split.y)
    with pytest.raises(DataError, match="values beyond float32, which a GPU computes in: use device CPU"):
        Case("linear", huge, case.params, case.shape).gradient()(case.params, case.empty())
    wrong = a_case("softmax", 5, 2, 3)
    with pytest.raises(DataError, match="the data have labels from 0 to 3, the model 3 classes"):
        Case("softmax", Split(x=wrong.split.x, y=np.array([0, 1, 2, 3, 0])), wrong.params, wrong.shape).gradient()
