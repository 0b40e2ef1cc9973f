"""How soon a job on a kind cluster goes on after its aggregator was killed; as `tests.faults.recovery`.

Needs the installed chart with its images on the nodes, and kubectl and docker on PATH. Every kill has a job of its own,
of four clients and rounds of about a second, and a seeded moment in a round. What is timed is what a watch of the
status sees.

    python -m tests.e2e.faults.recovery [--times 20] [--json FILE]
"""

import random
import sys
import time
import uuid
from typing import Final

from tests.e2e.conftest import make_namespace
from tests.e2e.faults.nodes import Nodes
from tests.e2e.faults.run import Run, running
from tests.faults.seconds import Goals, measure_and_report
from tests.support.kubectl import Kubectl, committed
from tests.support.runs import wait_until

WHERE: Final = "on a kind cluster, "
AGGREGATORS: Final = {
    f"{WHERE}aggregator killed, from the kill to the next committed round": 1,
    f"{WHERE}leader of three aggregators killed, from the kill to the next committed round": 3,
}
GOALS: Final[Goals] = dict(zip(AGGREGATORS, (15.0, 10.0), strict=True))
ROUND_SECONDS: Final = 1.0


def seconds_to_go_on(kubectl: Kubectl, aggregators: int, moments: random.Random) -> float:
    """Start a job, kill the aggregator that leads, wait for the next round, delete the job."""
    with running(kubectl, "job", aggregators=aggregators) as run:
        run.until_committed(2)
        leader = kubectl.get("pod", kubectl.status(run.name)["aggregator"]["leader"])
        time.sleep(moments.uniform(0.0, ROUND_SECONDS))
        rounds = _rounds(run)
        began = time.monotonic()
        Nodes(kubectl).kill(leader, "fedjob-aggregator")
        # One that was being committed may still be; the next one has been worked for.
        wait_until(lambda: _rounds(run) > rounds + 1, "the next round")
        return time.monotonic() - began


def _rounds(run: Run) -> int:
    return committed(run.statuses[-1]) if run.statuses else -1


def measure(times: int, seed: int) -> dict[str, list[float]]:
    """Seconds by measurement."""
    moments = random.Random(seed)
    found: dict[str, list[float]] = {name: [] for name in AGGREGATORS}
    for _ in range(times):
        for name, aggregators in AGGREGATORS.items():
            kubectl = Kubectl(f"recovery-{uuid.uuid4().hex[:8]}")
            make_namespace(kubectl)
            found[name].append(seconds_to_go_on(kubectl, aggregators, moments))
            kubectl("delete", "namespace", kubectl.namespace)
    return found


if __name__ == "__main__":
    sys.exit(measure_and_report("Measure how soon a job on a kind cluster goes on after a kill.", measure, GOALS))
