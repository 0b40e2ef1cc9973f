"""The tests of this folder run on a GPU, or with NUMBA_ENABLE_CUDASIM=1 in Numba's simulator, at small sizes.

Numba reads that variable when it is imported, so they are a pytest process of their own: `make test-gpu`, and a part of
`make test`. Where neither is there one test is left, which skips, or fails if FEDJOB_REQUIRE_GPU is set.
"""

import os
import sys
from pathlib import Path

from fedjob_client.cuda.choice import missing_for_gpu

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
os.environ.setdefault("NUMBA_CUDA_LOW_OCCUPANCY_WARNINGS", "0")  # small problems are meant to be small
if SIMULATED:
    # Each thread of a kernel is a thread of Python there, which waits for its turn: shorter turns, shorter tests.
    sys.setswitchinterval(1e-4)


MISSING = missing_for_gpu()
"""Why the tests of this folder cannot run."""
REMAINS = "test_machine.py"
HERE = Path(__file__).parent
collect_ignore_glob = [path.name for path in HERE.glob("test_*.py") if path.name != REMAINS] if MISSING else []
