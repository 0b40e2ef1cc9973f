"""How soon a job goes on after something was killed, on this machine, with programs that are started as usual.

One job of three clients whose trainings take a fifth of a second; a seeded moment in a round for each kill:

- `fedjob run` is killed and started again: seconds from its start to its first write, and to the next committed round.
- The aggregator is killed: seconds from the kill to the next committed round.
- A client is killed that is needed: the same.

    python -m tests.faults.recovery [--times 20] [--json FILE]
"""

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
from tests.faults.seconds import Goals, measure_and_report
from tests.support.faults.local import prepare
from tests.support.faults.points import FOLDER_VARIABLE
from tests.support.runs import LiveRun, wait_until

TRAINING_SECONDS: Final = 0.2
ROUND_SECONDS: Final = 0.25
JOB: Final = ALL_OF_THREE.slow(TRAINING_SECONDS).group(backoffLimit=1000).having(rounds=1_000_000)
GOALS: Final[Goals] = {
    "operator killed, from its start to its first write": 5.0,
    "operator killed, from its start to the next committed round": None,
    "aggregator killed, from the kill to the next committed round": 15.0,
    "client killed, from the kill to the next committed round": float(JOB.spec["roundPolicy"]["deadlineSeconds"]),
}


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


def measure(times: int, seed: int) -> dict[str, list[float]]:
    """Seconds by measurement."""
    first, again, aggregator, client = GOALS
    found: dict[str, list[float]] = {name: [] for name in GOALS}
    with tempfile.TemporaryDirectory(prefix="fedjob-recovery-") as folder:
        measured = Measured(Path(folder) / "job", seed)
        for number in range(times):
            wrote, committed = measured.operator()
            found[first].append(wrote)
            found[again].append(committed)
            found[aggregator].append(measured.program("aggregator"))
            found[client].append(measured.program(f"client-{number % 3}"))
        measured.close()
    return found


if __name__ == "__main__":
    sys.exit(measure_and_report("Measure how soon a job goes on after something was killed.", measure, GOALS))
