"""The operator with a shorter patience, so that a test need not wait for a minute; and a job that it cannot pass over.

Run as a program in the operator's place: ``python -P -m tests.support.cluster.impatient_operator``.
"""

import os
import runpy
import time
from typing import Any

from fedjob_operator import health, reconcile

PATIENCE = "FEDJOB_TEST_PATIENCE"
"""Environment variable: seconds in the place of the minute after which a blocked pass counts as dead."""
STUCK = "stuck"
"""A pass over a job of this name never ends."""


def main() -> None:
    """Run the operator."""
    seconds = float(os.environ[PATIENCE])
    health.PASS_SECONDS = health.LOOP_SECONDS = seconds  # type: ignore[misc]
    decide = reconcile.decide

    def blocked(job: Any, *arguments: Any, **named: Any) -> Any:
        while job.metadata.name == STUCK:
            time.sleep(1)
        return decide(job, *arguments, **named)

    reconcile.decide = blocked  # type: ignore[attr-defined]
    runpy.run_module("fedjob_operator", run_name="__main__")


if __name__ == "__main__":
    main()
