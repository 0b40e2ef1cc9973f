import os

import pytest

from tests.gpu.conftest import MISSING


def test_a_gpu_or_the_simulator_is_there_for_the_tests_of_this_folder():
    if MISSING and not os.environ.get("FEDJOB_REQUIRE_GPU"):
        pytest.skip(f"no test of this folder ran: {MISSING}")
    assert MISSING is None
