"""Jobs on this machine, and every few seconds something is killed or stopped: ``make soak``.

So many jobs at a time run until the time is over and enough of them were run; a further one is left alone beside them.
Every few seconds a random process of the others is killed or stopped for a while; a `fedjob run` that was killed is
resumed. At the end every job has to be Complete with the models of an undisturbed run, the memory of whoever lived long
has to be as it was, and no process and no temporary file may be left.

Memory is the resident set of a process, looked at once a second. Of each that lived a minute, the median of the looks
between its 15th and its 30th second is compared with that of its last 15 seconds.

    python -m tests.faults.soak [--minutes 30] [--jobs 10] [--beside 2] [--seed 1]
"""

import argparse
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from tests.faults.jobs import ALL_OF_THREE, THREE_OF_SIX
from tests.support.faults.local import Job, prepare, stray_files
from tests.support.faults.points import FOLDER_VARIABLE
from tests.support.runs import LiveRun, is_gone, wait_until

FAULT_SECONDS: Final = 5.0
STOP_SECONDS: Final = 3.0
"""How long a process is stopped."""
TRAINING_SECONDS: Final = 0.4
"""How long a training takes, so that faults find rounds in progress."""
ROUND_SECONDS: Final = 0.9
"""About how long a disturbed round takes: decides how many rounds a job has."""
CALM_SECONDS: Final = 300.0
LAST_SECONDS: Final = 300.0
"""Deadline of what still runs when the time is over."""
SETTLED: Final = (15.0, 30.0)
LAST: Final = 15.0
LONG_LIFE: Final = 60.0
FLAT_BYTES: Final = 8 << 20
"""A process that grew by more was not flat."""
LOOK_SECONDS: Final = 0.05
KINDS: Final = (ALL_OF_THREE, THREE_OF_SIX)
FAULTS: Final = (
    "fedjob killed",
    "aggregator killed",
    "client killed",
    "several killed",
    "client stopped",
    "aggregator stopped",
)
DEATH_SECONDS: Final = 10.0


@dataclass(slots=True)
class Memory:
    """What was seen of one process."""

    name: str
    began: float
    looks: list[tuple[float, int]] = field(default_factory=list)
    """Age in seconds, and resident bytes."""

    @property
    def life(self) -> float:
        """Seconds from its start to the last look."""
        return self.looks[-1][0] if self.looks else 0.0

    def settled(self) -> float:
        """Bytes once it had started."""
        return statistics.median(size for age, size in self.looks if SETTLED[0] <= age <= SETTLED[1])

    def last(self) -> float:
        """Bytes at its end."""
        return statistics.median(size for age, size in self.looks if age >= self.life - LAST)


class Soaked:
    """One job that is resumed as often as it is killed.

    Args:
        root: Its folder.
        job: What it is.
    """

    def __init__(self, root: Path, job: Job) -> None:
        self.root = root
        self.job = job
        self.resumes = 0
        self.seen: set[psutil.Process] = set()
        self._file = prepare(root, job)
        self.run = self._start()

    def code(self) -> int | None:
        """Its exit code once it came to its end; resumes it when it was killed."""
        code = self.run.process.poll()
        if code is not None and code < 0:
            self.resumes += 1
            self.run = self._start("--resume" if (self.root / "run" / "job.json").exists() else "")
            return None
        return code

    def programs(self) -> dict[str, psutil.Process]:
        """Its processes that live, by name, `fedjob run` among them."""
        programs = self.run.programs()
        with suppress(psutil.NoSuchProcess):
            programs["fedjob"] = psutil.Process(self.run.process.pid)
        self.seen.update(programs.values())
        return programs

    def _start(self, *arguments: str) -> LiveRun:
        settings = {FOLDER_VARIABLE: str(self.root)}
        return LiveRun(self._file, self.root / "run", *filter(None, arguments), settings=settings)


class Soak:
    """The whole of it.

    Args:
        folder: Where jobs live.
        minutes: How long faults go on.
        jobs: How many jobs at least.
        beside: How many at a time.
        seed: Of the faults.
    """

    def __init__(self, folder: Path, *, minutes: float, jobs: int, beside: int, seed: int) -> None:
        self._folder = folder
        self._seconds = 60.0 * minutes
        self._jobs, self._beside = jobs, beside
        self._random = random.Random(seed)
        self._rounds = max(int(self._seconds * beside / jobs / ROUND_SECONDS), 3)
        self._stopped: list[tuple[float, psutil.Process]] = []
        self._memory: dict[psutil.Process, Memory] = {}
        self._started = 0
        self.running: list[Soaked] = []
        self.problems: list[str] = []
        self.faults: Counter[str] = Counter()
        self.complete = 0
        self.resumes = 0
        self._seen: set[psutil.Process] = set()
        self._calm = {kind.name: self._undisturbed(kind) for kind in KINDS}
        self.alone = Soaked(folder / "alone", self._slow(ALL_OF_THREE).having(rounds=1_000_000))

    def soak(self) -> None:
        """Go on until the time is over and enough jobs came to their end."""
        began = time.monotonic()
        next_fault, next_look = began + FAULT_SECONDS, began
        while True:
            now = time.monotonic()
            goes_on = now < began + self._seconds and not self.problems
            if now > began + self._seconds + LAST_SECONDS:
                self.problems.append(f"{len(self.running)} jobs did not end within {LAST_SECONDS:g} s")
                break
            self._collect()
            while len(self.running) < self._beside and (goes_on or self._lacks_jobs()):
                self._begin()
            if not self.running:
                break
            self._wake(now)
            if goes_on and now >= next_fault:
                next_fault += FAULT_SECONDS
                self._strike(now)
            if now >= next_look:
                next_look += 1.0
                self._look(now)
            time.sleep(LOOK_SECONDS)
        self._end()

    def survivors(self) -> list[Memory]:
        """Processes that lived long enough to compare."""
        return [memory for memory in self._memory.values() if memory.life >= LONG_LIFE]

    def _lacks_jobs(self) -> bool:
        return self._started < self._jobs and not self.problems

    def _slow(self, kind: Job) -> Job:
        return kind.slow(TRAINING_SECONDS).group(backoffLimit=1000).having(rounds=self._rounds)

    def _undisturbed(self, kind: Job) -> list[str]:
        root = self._folder / f"calm-{kind.name}"
        calm = Soaked(root, kind.having(rounds=self._rounds))
        assert calm.run.finish(CALM_SECONDS) == 0, calm.run.output
        return calm.run.folder.digests()

    def _begin(self) -> None:
        kind = KINDS[self._started % len(KINDS)]
        self._started += 1
        self.running.append(Soaked(self._folder / f"job-{self._started}", self._slow(kind)))

    def _collect(self) -> None:
        for soaked in list(self.running):
            code = soaked.code()
            if code is None:
                continue
            self.running.remove(soaked)
            self._finished(soaked, code)

    def _finished(self, soaked: Soaked, code: int) -> None:
        self.resumes += soaked.resumes
        self._seen |= soaked.seen
        name = soaked.root.name
        if code != 0:
            self.problems.append(f"{name} ended with exit code {code}: {soaked.run.output[-1000:]}")
            return
        self.complete += 1
        if soaked.run.folder.digests() != self._calm[soaked.job.name]:
            self.problems.append(f"{name} ended in other models than an undisturbed run")
        strays = stray_files(soaked.run.folder.path)
        self.problems += [f"{name} left {stray} behind" for stray in strays]

    def _strike(self, now: float) -> None:
        fault = self._random.choice(FAULTS)
        soaked = self._random.choice(self.running)
        who, _, what = fault.partition(" ")
        programs = {name: process for name, process in soaked.programs().items() if who == "several" or who in name}
        names = self._random.sample(sorted(programs), k=min(len(programs), 3 if who == "several" else 1))
        self.faults[fault] += bool(names)
        for process in (programs[name] for name in names):
            with suppress(psutil.NoSuchProcess):
                if what == "killed":
                    process.kill()
                else:
                    process.suspend()
                    self._stopped.append((now + STOP_SECONDS, process))

    def _wake(self, now: float) -> None:
        for until, process in [item for item in self._stopped if item[0] <= now]:
            self._stopped.remove((until, process))
            with suppress(psutil.NoSuchProcess):
                process.resume()

    def _look(self, now: float) -> None:
        for soaked in (*self.running, self.alone):
            for name, process in soaked.programs().items():
                title = "client" if name.startswith("client") else name
                memory = self._memory.setdefault(process, Memory(title, now))
                with suppress(psutil.NoSuchProcess):
                    memory.looks.append((now - memory.began, process.memory_info().rss))

    def _end(self) -> None:
        self._wake(float("inf"))
        self.alone.run.signal(signal.SIGTERM)
        code = self.alone.run.finish()
        if code != 130 or self.alone.resumes:
            self.problems.append(f"the job that was left alone ended with exit code {code}: {self.alone.run.output}")
        seen = list(self._seen | self.alone.seen)
        for soaked in self.running:
            seen += soaked.seen
            soaked.run.process.kill()
        try:
            wait_until(lambda: all(map(is_gone, seen)), "the end of all processes", DEATH_SECONDS)
        except AssertionError as error:
            self.problems.append(str(error))
        for memory in self.survivors():
            if (growth := memory.last() - memory.settled()) > FLAT_BYTES:
                self.problems.append(f"{memory.name} grew by {growth / 2**20:.1f} MiB in {memory.life:.0f} s")


def table(soak: Soak, seconds: float) -> str:
    """What happened, as text."""
    done = f"{seconds / 60:.1f} min: {soak.complete} jobs Complete, {sum(soak.faults.values())} faults"
    lines = [
        f"{done}, {soak.resumes} resumes, {len(soak.problems)} problems",
        *(f"  {fault:<20} {soak.faults[fault]:>5}" for fault in FAULTS),
        f"  {'lived a minute':<20} {'how many':>8} {'longest':>9} {'settled':>9} {'growth, median and most':>24}",
    ]
    for name in ("fedjob", "aggregator", "client", "evaluator"):
        found = [memory for memory in soak.survivors() if memory.name == name]
        if found:
            growth = sorted((memory.last() - memory.settled()) / 2**20 for memory in found)
            settled = statistics.median(memory.settled() for memory in found) / 2**20
            longest = max(memory.life for memory in found)
            change = f"{statistics.median(growth):+.1f} {growth[-1]:+.1f} MiB"
            lines.append(f"  {name:<20} {len(found):>8} {longest:>7.0f} s {settled:>5.0f} MiB {change:>24}")
    return "\n".join([*lines, *(f"  problem: {problem}" for problem in soak.problems)])


def main() -> int:
    """Soak, print the table; 1 if there were problems."""
    parser = argparse.ArgumentParser(description="Kill and stop processes of jobs on this machine for a while.")
    parser.add_argument("--minutes", type=float, default=30.0, help="how long [default: 30]")
    parser.add_argument("--jobs", type=int, default=10, help="at least so many jobs [default: 10]")
    parser.add_argument("--beside", type=int, default=2, help="so many at a time [default: 2]")
    parser.add_argument("--seed", type=int, default=1, help="of the faults [default: 1]")
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fedjob-soak-") as folder:
        soak = Soak(Path(folder), minutes=options.minutes, jobs=options.jobs, beside=options.beside, seed=options.seed)
        soak.soak()
    print(table(soak, time.monotonic() - began), flush=True)
    return int(bool(soak.problems))


if __name__ == "__main__":
    sys.exit(main())
