"""A failing schedule is explained by the fewest of its faults."""

from hypothesis import given
from hypothesis import strategies as st

from tests.support.world.shrinking import shrunk
from tests.support.world.simulation import Fault

FAULTS = [Fault("request lost", nth) for nth in range(1, 13)]


@given(st.sets(st.sampled_from(FAULTS)))
def test_what_is_left_is_what_it_takes(needed):
    assert set(shrunk(FAULTS, lambda faults: needed <= set(faults))) == needed


@given(st.lists(st.sets(st.sampled_from(FAULTS), min_size=1), min_size=1, max_size=4))
def test_none_of_what_is_left_can_be_left_out(causes):
    """Where several causes make it fail, one of them is left."""

    def fails(faults):
        return any(cause <= set(faults) for cause in causes)

    left = shrunk(FAULTS, fails)
    assert fails(left)
    assert not any(fails([other for other in left if other != fault]) for fault in left)


def test_the_order_of_faults_stays():
    assert shrunk(FAULTS, lambda faults: len(faults) >= 5) == tuple(sorted(shrunk(FAULTS, lambda f: len(f) >= 5)))
