"""How soon a job goes on after something was killed, on this machine, with programs that are started as usual.

One job of three clients whose trainings take a fifth of a second; a seeded moment in a round for each kill:

- `fedjob run` is killed and started again: seconds from its start to its first write, and to the next committed round.
- The aggregator is killed: seconds from the kill to the next committed round.
- A client is killed that is needed: the same.

    python -m tests.faults.recovery [--times 20] [--json FILE]
"""

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from fedjob_protocol.layout import ROUND_LOG_NAME
from tests.faults.jobs import ALL_OF_THREE
from tests.support.faults.local import prepare
from tests.support.faults.points import FOLDER_VARIABLE
from tests.support.runs import LiveRun, wait_until

TRAINING_SECONDS: Final = 0.2
ROUND_SECONDS: Final = 0.25
JOB: Final = ALL_OF_THREE.slow(TRAINING_SECONDS).group(backoffLimit=1000).having(rounds=1_000_000)
GOALS: Final = {
    "operator killed, from its start to its first write": 5.0,
    "operator killed, from its start to the next committed round": None,
    "aggregator killed, from the kill to the next committed round": 15.0,
    "client killed, from the kill to the next committed round": float(JOB.spec["roundPolicy"]["deadlineSeconds"]),
}
"""Seconds, by measurement; `None` where there is no goal."""


class Measured:
    """A job that goes on and on.

    Args:
        folder: Where it lives.
        seed: Of the moments.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder = folder
        self._file = prepare(folder, JOB)
        self._log = folder / "run" / "aggregator" / ROUND_LOG_NAME
        self._random = random.Random(seed)
        self.run = self._start()

    def operator(self) -> tuple[float, float]:
        """Kill `fedjob run` and start it again; seconds to its first write, and to the next round."""
        self._moment()
        self.run.signal(signal.SIGKILL)
        self.run.process.wait()
        writes, rounds = self.run.folder.writes(), self._rounds()
        began = time.monotonic()
        self.run = self._start("--resume")
        wrote = self._until(began, lambda: self.run.folder.writes() > writes)
        return wrote, self._until(began, lambda: self._rounds() > rounds)

    def program(self, name: str) -> float:
        """Kill a program; seconds to the next round."""
        self._moment()
        rounds = self._rounds()
        began = time.monotonic()
        self.run.programs()[name].kill()
        return self._until(began, lambda: self._rounds() > rounds)

    def close(self) -> None:
        """End the job."""
        self.run.signal(signal.SIGTERM)
        self.run.finish()

    def _moment(self) -> None:
        """Wait for two more rounds, and then for some part of a round."""
        rounds = self._rounds()
        wait_until(lambda: self._rounds() > rounds + 2, "two more rounds")
        time.sleep(self._random.uniform(0.0, ROUND_SECONDS))

    def _until(self, began: float, condition: Callable[[], object]) -> float:
        wait_until(condition, "the next write or round")
        return time.monotonic() - began

    def _rounds(self) -> int:
        return self._log.read_bytes().count(b"\n") if self._log.exists() else 0

    def _start(self, *arguments: str) -> LiveRun:
        settings = {FOLDER_VARIABLE: str(self._folder)}
        return LiveRun(self._file, self._folder / "run", *arguments, settings=settings)


def measure(folder: Path, times: int, seed: int) -> dict[str, list[float]]:
    """Seconds by measurement."""
    measured = Measured(folder, seed)
    first, again, aggregator, client = GOALS
    found: dict[str, list[float]] = {name: [] for name in GOALS}
    for number in range(times):
        wrote, committed = measured.operator()
        found[first].append(wrote)
        found[again].append(committed)
        found[aggregator].append(measured.program("aggregator"))
        found[client].append(measured.program(f"client-{number % 3}"))
    measured.close()
    return found


def percentile(values: list[float], share: float) -> float:
    """The smallest value that so large a share is not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


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
    """Measure, print, and write JSON where asked to; 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description="Measure how soon a job goes on after something was killed.")
    parser.add_argument("--times", type=int, default=20, help="kills of each kind [default: 20]")
    parser.add_argument("--seed", type=int, default=1, help="of the moments [default: 1]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="add the figures to those in FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fedjob-recovery-") as folder:
        found = document(measure(Path(folder) / "job", options.times, options.seed))
    missed = False
    for name, row in found.items():
        goal = row["goalSeconds"]
        missed = missed or (goal is not None and row["p95Seconds"] > goal)
        print(f"{name:<64} n={row['times']} p50 {row['p50Seconds']:.2f} s  p95 {row['p95Seconds']:.2f} s  goal {goal}")
    if options.json:
        others = json.loads(options.json.read_bytes()) if options.json.exists() else {}
        options.json.write_text(json.dumps(others | found, indent=1) + "\n", encoding="utf-8")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
