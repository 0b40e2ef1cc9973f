"""Measures how long a job's pods hold GPUs, `PerRound` against `PerJob`: ``python bench/gpu_seconds.py``.

Needs ``KUBEBUILDER_ASSETS``. A real API server and the operator as a process; pods are processes of the tests' fake
node, which has a GPU for each client, and trainers wait instead of computing. A GPU counts as held from the creation of
its pod to the deletion of the object, whether or not the pod had a node in between.
"""

import argparse
import dataclasses
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from children import HERE
from machine import Others, describe, require_linux, wait_until_idle
from report import Check, Row, Section, write_json

sys.path.append(str(HERE.parent))  # the fake node belongs to the tests

from tests.support.cluster.apiserver import ASSETS_VARIABLE, BINARIES, ApiServer
from tests.support.cluster.cluster import Cluster, eventually
from tests.support.cluster.forks import Forks
from tests.support.cluster.jobs import a_job
from tests.support.cluster.operators import Operators
from tests.support.cluster.programs import forked
from tests.support.faults.spawn import zygote

CLIENTS: Final = 40
PER_ROUND: Final = 10
ROUNDS: Final = 10
GOAL: Final = 35.0
"""Per cent of the GPU-seconds of `PerJob`."""
JOB_SECONDS: Final = 900.0
LOOK_SECONDS: Final = 0.1
NAMESPACE: Final = "bench"


@dataclass(slots=True)
class Meter:
    """Adds up the pods of clients over time, from its start to its end."""

    cluster: Cluster
    name: str
    gpu_seconds: float = 0.0
    most: int = 0
    in_rounds: float = 0.0
    """Of these, from the commit of round 1 to that of the last."""
    first: float | None = None
    last: float | None = None
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Look until stopped."""
        before = time.perf_counter()
        while not self._stop.wait(LOOK_SECONDS):
            count = len(self.cluster.pods(NAMESPACE, self.name, "client"))
            committed = self.cluster.committed(NAMESPACE, self.name)
            now = time.perf_counter()
            self.gpu_seconds += count * (now - before)
            if self.first is not None and self.last is None:
                self.in_rounds += count * (now - before)
            self.first = now if self.first is None and committed >= 1 else self.first
            self.last = now if self.last is None and committed >= ROUNDS else self.last
            self.most, before = max(self.most, count), now

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()


def main() -> None:
    """Measure, print, and write JSON where asked to."""
    require_linux()
    options = _options()
    machine = describe()
    print(", ".join(f"{name} {value}" for name, value in machine.items()), flush=True)
    if not options.busy:
        wait_until_idle()
    with tempfile.TemporaryDirectory(prefix="fedjob-bench-") as folder, _cluster(Path(folder)) as cluster:
        began, others = time.perf_counter(), Others()
        always, turns = _measure(cluster, "always"), _measure(cluster, "turns", clientPods="PerRound")
        seconds, load = time.perf_counter() - began, others.cores()
    section = dataclasses.replace(_section(always, turns), seconds=seconds, others=load)
    print(f"\n{section.text()}", flush=True)
    if options.json:
        write_json(options.json, machine, [section])


def _measure(cluster: Cluster, name: str, **spec: Any) -> Meter:
    """Run a job to its end, and until its clients are gone."""
    job = a_job(
        name,
        clients=CLIENTS,
        rounds=ROUNDS,
        group={"gpus": 1, "trainer": "bench.waiting_trainer:WaitingTrainer"},
        **{"model": {"name": "own"}, "roundPolicy": {"clientsPerRound": PER_ROUND}, **spec},
    )
    del job["spec"]["data"]
    meter = Meter(cluster, name)
    looking = threading.Thread(target=meter.run)
    cluster.submit(NAMESPACE, job)
    looking.start()
    try:
        cluster.until_phase(NAMESPACE, name, "Complete", seconds=JOB_SECONDS)
        eventually(lambda: not cluster.pods(NAMESPACE, name, "client"), "the end of the clients", JOB_SECONDS)
    finally:
        meter.stop()
        looking.join()
    return meter


def _section(always: Meter, turns: Meter) -> Section:
    rows = []
    for title, meter in (("PerJob", always), ("PerRound", turns)):
        rounds = (meter.last or 0.0) - (meter.first or 0.0)
        rows += [
            Row(name=f"{title}: GPU-seconds of the job", unit="s", values=(meter.gpu_seconds,)),
            Row(name=f"{title}: of rounds 2 to {ROUNDS}", unit="s", values=(meter.in_rounds,)),
            Row(name=f"{title}: a round, 2 to {ROUNDS}", unit="s", values=(rounds / (ROUNDS - 1),)),
            Row(name=f"{title}: most pods at a time", unit="", values=(float(meter.most),)),
        ]
    whole = 100.0 * turns.gpu_seconds / always.gpu_seconds
    rounds = 100.0 * turns.in_rounds / always.in_rounds
    return Section(
        name="gpu-seconds",
        title=f"GPU-seconds held, {PER_ROUND} of {CLIENTS} clients per round, {ROUNDS} rounds of 5 to 15 s of training",
        rows=tuple(rows),
        checks=(
            Check(name="PerRound against PerJob, the whole job", value=whole, unit="%", goal=GOAL),
            Check(name=f"PerRound against PerJob, rounds 2 to {ROUNDS}", value=rounds, unit="%", goal=GOAL),
        ),
    )


@contextmanager
def _cluster(folder: Path) -> Iterator[Cluster]:
    """An API server, an operator, and a fake node whose programs are copies of one that has imported them."""
    assets = Path(os.environ.get(ASSETS_VARIABLE, "-"))
    missing = [name for name in BINARIES if not (assets / name).is_file()]
    if missing:
        sys.exit(f"bench: {ASSETS_VARIABLE} names no folder with {', '.join(missing)}")
    with zygote(folder / "zygote") as programs, ApiServer.start(folder / "server", assets) as server:
        server.apply(HERE.parent / "crds")
        server.start_controllers()
        server.create_namespace(NAMESPACE)
        forks = Forks(programs)
        cluster = Cluster(server, folder, launch=forked(forks))
        cluster.set_gpus(CLIENTS)
        operators = Operators(cluster, folder)
        try:
            operators.start()
            yield cluster
        finally:
            operators.close()
            cluster.close()
            forks.close()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure how long pods hold GPUs; leave the machine idle meanwhile.")
    parser.add_argument("--busy", action="store_true", help="do not wait until the machine is idle")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all values to FILE")
    return parser.parse_args()


if __name__ == "__main__":
    main()
