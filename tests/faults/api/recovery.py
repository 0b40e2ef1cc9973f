"""How soon a job on a real API server goes on after something was killed; as `tests.faults.recovery`.

Jobs of three clients, an evaluator and many rounds; a seeded moment for each kill. The operator is
started as usual, imports included; the programs of pods are copies of a process that has imported them, so from the
seconds of theirs the start of a container and of Python are missing.

    python -m tests.faults.api.recovery [--times 20] [--json FILE]
"""

import argparse
import json
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
from tests.faults.recovery import percentile
from tests.support.cluster.apiserver import ASSETS_VARIABLE
from tests.support.runs import wait_until

WHERE: Final = "on an API server, "
OPERATOR: Final = f"{WHERE}operator killed, from its start to its first write or call"
AGAIN: Final = f"{WHERE}operator killed, from its start to the next committed round"
AGGREGATOR: Final = f"{WHERE}aggregator killed, from the kill to the next committed round"
CLIENT: Final = f"{WHERE}client killed, from the kill to the next committed round"
GOALS: Final = {OPERATOR: 5.0, AGAIN: None, AGGREGATOR: 15.0, CLIENT: 60.0}
"""Seconds; `None` where there is no goal. A client: the deadline of a round."""
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


def measure(stage: Stage, times: int, seed: int) -> dict[str, list[float]]:
    """Seconds by measurement."""
    moments = random.Random(seed)
    found: dict[str, list[float]] = {name: [] for name in GOALS}
    for number in range(times):
        with ExitStack() as stack:
            measured = Measured(Run(stage, ALL, "api-proxy", stack), moments)
            first, again = measured.operator()
            values = (first, again, measured.pod("j-aggregator-0-0"), measured.pod(f"j-client-{number % 3}-0"))
            for name, seconds in zip(GOALS, values, strict=True):
                found[name].append(seconds)
            stage.cluster.clear(measured.namespace)
    return found


def document(found: dict[str, list[float]]) -> dict[str, dict[str, float | int | None]]:
    """p50 and p95 by measurement, for JSON."""
    return {
        name: {
            "times": len(values),
            "p50Seconds": round(percentile(values, 0.5), 3),
            "p95Seconds": round(percentile(values, 0.95), 3),
            "goalSeconds": GOALS[name],
        }
        for name, values in found.items()
    }


def main() -> int:
    """Measure, print, and add to a file of JSON where asked to; 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description="Measure how soon a job on an API server goes on after a kill.")
    parser.add_argument("--times", type=int, default=20, help="kills of each kind [default: 20]")
    parser.add_argument("--seed", type=int, default=1, help="of the moments [default: 1]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="add the figures to those in FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fedjob-recovery-") as folder, ExitStack() as stack:
        stage = stack.enter_context(Stage.open(Path(folder), Path(os.environ[ASSETS_VARIABLE])))
        found = document(measure(stage, options.times, options.seed))
    for name, row in found.items():
        print(f"{name:<84} n={row['times']} p50 {row['p50Seconds']:.2f} s  p95 {row['p95Seconds']:.2f} s")
    if options.json:
        others = json.loads(options.json.read_bytes()) if options.json.exists() else {}
        options.json.write_text(json.dumps(others | found, indent=1) + "\n", encoding="utf-8")
    return int(any(row["goalSeconds"] is not None and row["p95Seconds"] > row["goalSeconds"] for row in found.values()))


if __name__ == "__main__":
    sys.exit(main())
