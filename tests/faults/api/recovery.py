"""How soon a job on a real API server goes on after something was killed; as `tests.faults.recovery`.

Jobs of three clients, an evaluator and many rounds; a seeded moment for each kill. The operator is
started as usual, imports included; the programs of pods are copies of a process that has imported them, so from the
seconds of theirs the start of a container and of Python are missing.

    python -m tests.faults.api.recovery [--times 20] [--json FILE]
"""

import os
import random
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from fedjob_protocol.layout import ROUND_LOG_NAME
from tests.faults.api.gather import volume_of
from tests.faults.api.jobs import ALL
from tests.faults.api.run import Run
from tests.faults.api.stage import Stage
from tests.faults.seconds import Goals, measure_and_report
from tests.support.cluster.apiserver import ASSETS_VARIABLE
from tests.support.runs import wait_until

WHERE: Final = "on an API server, "
OPERATOR: Final = f"{WHERE}operator killed, from its start to its first write or call"
AGAIN: Final = f"{WHERE}operator killed, from its start to the next committed round"
AGGREGATOR: Final = f"{WHERE}aggregator killed, from the kill to the next committed round"
CLIENT: Final = f"{WHERE}client killed, from the kill to the next committed round"
GOALS: Final[Goals] = {OPERATOR: 5.0, AGAIN: None, AGGREGATOR: 15.0, CLIENT: 60.0}
"""The goal of a client is the deadline of a round."""
ROUND_SECONDS: Final = 0.2


class Measured:
    """A job that goes on and on, in which each program is killed once: so the node starts it again at once.

    Args:
        run: Its run.
        moments: Draws the moments.
    """

    def __init__(self, run: Run, moments: random.Random) -> None:
        self._run = run
        self._moments = moments
        run.start_operator(is_copy=False)
        run.submit(rounds=100_000)
        run.until_committed(1)
        self._log = volume_of(run) / ROUND_LOG_NAME

    @property
    def namespace(self) -> str:
        """Where it is."""
        return self._run.namespace

    def operator(self) -> tuple[float, float]:
        """Kill the operator and start it again; seconds to its first request, and to the next round."""
        rounds = self._moment()
        self._run.restart_operator()
        began, _ = self._run.restarts[-1]
        again = self._until_more(rounds, began)
        first = self._run.seconds_to_act()
        assert first is not None, "a round was committed without the operator"
        return first, again

    def pod(self, name: str) -> float:
        """Kill a pod's program; seconds to the next round."""
        rounds = self._moment()
        began = time.monotonic()
        self._run.kill_pod(name)
        return self._until_more(rounds, began)

    def _rounds(self) -> int:
        return self._log.read_bytes().count(b"\n")

    def _moment(self) -> int:
        """Wait for two more rounds, and then for some part of a round."""
        before = self._rounds()
        wait_until(lambda: self._rounds() > before + 2, "two more rounds")
        time.sleep(self._moments.uniform(0.0, ROUND_SECONDS))
        return self._rounds()

    def _until_more(self, rounds: int, began: float) -> float:
        # One that was being committed may still be; the next one has been worked for.
        wait_until(lambda: self._rounds() > rounds + 1, "the next round")
        return time.monotonic() - began


def measure(times: int, seed: int) -> dict[str, list[float]]:
    """Seconds by measurement."""
    moments = random.Random(seed)
    found: dict[str, list[float]] = {name: [] for name in GOALS}
    with tempfile.TemporaryDirectory(prefix="fedjob-recovery-") as folder, ExitStack() as whole:
        stage = whole.enter_context(Stage.open(Path(folder), Path(os.environ[ASSETS_VARIABLE])))
        for number in range(times):
            with ExitStack() as stack:
                measured = Measured(Run(stage, ALL, "api-proxy", stack), moments)
                first, again = measured.operator()
                values = (first, again, measured.pod("j-aggregator-0-0"), measured.pod(f"j-client-{number % 3}-0"))
                for name, seconds in zip(GOALS, values, strict=True):
                    found[name].append(seconds)
                stage.cluster.clear(measured.namespace)
    return found


if __name__ == "__main__":
    sys.exit(measure_and_report("Measure how soon a job on an API server goes on after a kill.", measure, GOALS))
