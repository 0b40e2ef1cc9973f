"""Percentages and quantities."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedjob_operator.api.quantity import count_of, parse_percent, quantity_bytes


@pytest.mark.parametrize(
    ("value", "whole", "count"),
    [("100%", 7, 7), ("50%", 7, 4), ("1%", 7, 1), ("99%", 100, 99), ("34%", 3, 2), ("33%", 3, 1), (0, 7, 0), (9, 7, 9)],
)
def test_a_percentage_is_rounded_up_and_a_count_is_taken_as_it_is(value, whole, count):
    assert count_of(value, whole) == count


@given(st.integers(1, 100), st.integers(1, 10_000))
def test_a_percentage_is_never_none_and_never_more_than_all(percent, whole):
    count = count_of(f"{percent}%", whole)
    assert 1 <= count <= whole
    assert (count - 1) * 100 < percent * whole <= max(count * 100, whole)


@pytest.mark.parametrize("text", ["0%", "101%", "1000%", "5", "%", "-5%", "5.5%", "05%", " 5%", "5%\n", "\u0665%"])
def test_what_is_no_percentage_is_refused(text):
    with pytest.raises(ValueError, match="percentage"):
        parse_percent(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1", 1),
        ("1k", 1000),
        ("1Ki", 1024),
        ("1.5Gi", 3 * 2**29),
        (".5Mi", 2**19),
        ("2.", 2),
        ("1E", 10**18),
        ("1Ei", 2**60),
        ("1e3", 1000),
        ("1E3", 1000),
        ("1.5e-1", 1),
        ("100P", 10**17),
        ("0.1", 1),
    ],
)
def test_a_quantity_is_a_number_of_bytes_rounded_up(text, size):
    assert quantity_bytes(text) == size


@pytest.mark.parametrize(
    "text", ["", "Gi", "1 Gi", "1GB", "1gi", "-1", "+1", "1K", "1e", "1e+", ".", "1Gi\n", "1m", "0x1"]
)
def test_what_is_no_quantity_is_refused(text):
    with pytest.raises(ValueError, match="is not a quantity"):
        quantity_bytes(text)
