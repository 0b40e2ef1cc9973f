from hypothesis import given
from hypothesis import strategies as st

from fedjob_client.cuda.plan import PARTIAL_BYTES, ROWS_PER_THREAD, most_tiles, shape_of, tiling_of

shapes = st.builds(shape_of, st.integers(1, 2000), st.sampled_from([1, 1, 2, 10, 100]))


@given(shape=shapes, examples=st.integers(1, 2**31))
def test_tiles_hold_every_example_in_whole_steps_and_none_is_empty(shape, examples):
    tiling = tiling_of(shape, examples)
    assert tiling.rows_per_tile % shape.threads == 0
    assert (tiling.tiles - 1) * tiling.rows_per_tile < examples <= tiling.tiles * tiling.rows_per_tile
    if shape.is_narrow:
        assert tiling.rows_per_tile <= ROWS_PER_THREAD * shape.threads
    else:
        assert tiling.tiles * shape.outputs * 8 <= max(PARTIAL_BYTES, 16 * shape.outputs * 8)


@given(shape=shapes, examples=st.integers(1, 10**7), fewer=st.integers(1, 10**7))
def test_a_batch_needs_no_more_tiles_and_no_larger_ones_than_all_examples(shape, examples, fewer):
    batch = min(fewer, examples)
    assert tiling_of(shape, batch).tiles <= most_tiles(shape, examples)
    assert tiling_of(shape, batch).rows_per_tile <= tiling_of(shape, examples).rows_per_tile


def test_a_shape_takes_registers_where_they_suffice():
    assert shape_of(1, 1).is_narrow
    assert shape_of(32, 1).is_narrow
    assert not shape_of(33, 1).is_narrow
    assert not shape_of(2, 3).is_narrow
