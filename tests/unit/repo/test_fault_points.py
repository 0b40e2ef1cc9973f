"""The functions of the programs that fault runs strike are there: with a renamed one every fault run would fail."""

from functools import reduce
from importlib import import_module

import pytest

from tests.support.faults.points import POINTS


@pytest.mark.parametrize("name", POINTS)
def test_a_point_is_a_function_of_a_program(name):
    module, _, path = POINTS[name].where.partition(":")
    assert callable(reduce(getattr, path.split("."), import_module(module)))
