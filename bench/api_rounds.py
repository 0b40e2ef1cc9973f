"""Measures rounds on a real API server beside `fedjob run`, and an idle operator: ``python bench/api_rounds.py``.

Needs ``KUBEBUILDER_ASSETS`` (etcd, kube-apiserver, kubectl, kube-controller-manager). The operator is a process of its
own and talks to the API server directly; pods are processes, started by the fake node of the tests. Both engines run
the same manifest in turn, and both times are read from the aggregator's round log.
"""

import argparse
import dataclasses
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import psutil
from children import HERE
from machine import Others, describe, require_linux, wait_until_idle
from report import Check, Row, Section, write_json
from rounds import REPEATS, WARM_UP, fedjob_run

sys.path.append(str(HERE.parent))  # the fake node belongs to the tests

from fedjob_protocol.layout import ROUND_LOG_NAME
from tests.support.cluster.apiserver import ASSETS_VARIABLE, BINARIES, ApiServer
from tests.support.cluster.cluster import Cluster, eventually
from tests.support.cluster.jobs import a_job
from tests.support.cluster.operator_process import OperatorProcess
from tests.support.cluster.operators import Operators

GOAL_MILLISECONDS: Final = 100.0
"""On top of the local engine's time in the same run."""
ROUNDS: Final = {3: 100, 10: 60}
FINISHED_JOBS: Final = 20
AT_ONCE: Final = 4
"""Jobs that are brought to their end at the same time."""
IDLE_SECONDS: Final = 60.0
SETTLE_SECONDS: Final = 20.0
GOAL_MEBIBYTES: Final = 120.0
GOAL_PERCENT: Final = 2.0
JOB_SECONDS: Final = 300.0
NAMESPACE: Final = "bench"


def main() -> None:
    """Measure, print, and write JSON where asked to."""
    require_linux()
    options = _options()
    machine = describe()
    print(", ".join(f"{name} {value}" for name, value in machine.items()), flush=True)
    sections = []
    with tempfile.TemporaryDirectory(prefix="fedjob-bench-", dir=options.folder) as folder:
        for measure in (cluster_rounds, idle):
            if not options.busy:
                wait_until_idle()
            began, others = time.perf_counter(), Others()
            section = measure(Path(folder), quick=options.quick)
            section = dataclasses.replace(section, seconds=time.perf_counter() - began, others=others.cores())
            print(f"\n{section.text()}", flush=True)
            sections.append(section)
    if options.json:
        write_json(options.json, machine, sections)


def cluster_rounds(folder: Path, *, quick: bool) -> Section:
    """Milliseconds per round for 3 and 10 clients, on the API server and by `fedjob run`, in turn."""
    rows, checks = [], []
    with _cluster(folder / "rounds") as (cluster, _):
        for clients in (3,) if quick else ROUNDS:
            there: list[float] = []
            here: list[float] = []
            for repeat in range(1 if quick else REPEATS):
                label = f"rounds-{clients}-{repeat}"
                there += _cluster_gaps(cluster, _manifest(label, clients))
                local = fedjob_run(folder / label, _manifest(label, clients))
                here += local.gaps[WARM_UP:]
            on_cluster = Row(name=f"{clients} clients: API server", unit="ms", values=_milliseconds(there))
            by_hand = Row(name=f"{clients} clients: fedjob run", unit="ms", values=_milliseconds(here))
            rows += [on_cluster, by_hand]
            extra = on_cluster.median - by_hand.median
            checks.append(
                Check(name=f"{clients} clients: on top of fedjob run", value=extra, unit="ms", goal=GOAL_MILLISECONDS)
            )
    title = f"Round overhead on a real API server, 11 parameters ({WARM_UP} rounds of warm-up not counted)"
    return Section(name="api-rounds", title=title, rows=tuple(rows), checks=tuple(checks))


def idle(folder: Path, *, quick: bool) -> Section:
    """Memory and processor time of an operator that looks after finished jobs."""
    jobs = 2 if quick else FINISHED_JOBS
    with _cluster(folder / "idle") as (cluster, operator):
        for first in range(0, jobs, AT_ONCE):
            names = [f"job-{number}" for number in range(first, min(first + AT_ONCE, jobs))]
            for name in names:
                cluster.submit(NAMESPACE, a_job(name, clients=1, rounds=1))
            for name in names:
                cluster.until_phase(NAMESPACE, name, "Complete", seconds=JOB_SECONDS)
        eventually(lambda: len(cluster.api.list("pods", NAMESPACE)) == jobs, "the release of the clients", JOB_SECONDS)
        time.sleep(2 if quick else SETTLE_SECONDS)
        used, memory = _watch(operator.process, 10.0 if quick else IDLE_SECONDS)
    resident = Row(name="memory", unit="MiB", values=tuple(memory))
    processor = Row(name="of one core", unit="%", values=(used,))
    return Section(
        name="api-idle",
        title=f"Operator with {jobs} finished jobs and nothing to do",
        rows=(resident, processor),
        checks=(
            Check(name="memory", value=max(memory), unit="MiB", goal=GOAL_MEBIBYTES),
            Check(name="of one core", value=used, unit="%", goal=GOAL_PERCENT),
        ),
    )


def _watch(process: psutil.Process, seconds: float) -> tuple[float, list[float]]:
    """Per cent of a core that a process uses for some time, and its resident memory each second in MiB."""
    began, before = time.perf_counter(), process.cpu_times()
    memory = []
    while time.perf_counter() - began < seconds:
        memory.append(process.memory_info().rss / 2**20)
        time.sleep(1.0)
    after, passed = process.cpu_times(), time.perf_counter() - began
    return 100 * (after.user + after.system - before.user - before.system) / passed, memory


@contextmanager
def _cluster(folder: Path) -> Iterator[tuple[Cluster, OperatorProcess]]:
    """An API server, a fake node and an operator."""
    assets = Path(os.environ.get(ASSETS_VARIABLE, "-"))
    missing = [name for name in BINARIES if not (assets / name).is_file()]
    if missing:
        sys.exit(f"bench: {ASSETS_VARIABLE} names no folder with {', '.join(missing)}")
    folder.mkdir()
    with ApiServer.start(folder / "server", assets) as server:
        server.apply(HERE.parent / "crds")
        server.start_controllers()
        server.create_namespace(NAMESPACE)
        cluster = Cluster(server, folder)
        operators = Operators(cluster, folder)
        try:
            yield cluster, operators.start()
        finally:
            operators.close()
            cluster.close()


def _cluster_gaps(cluster: Cluster, manifest: dict[str, Any]) -> list[float]:
    """Run a job; return the seconds between the commits of its rounds, without the first ones."""
    name = manifest["metadata"]["name"]
    cluster.submit(NAMESPACE, manifest)
    cluster.until_phase(NAMESPACE, name, "Complete", seconds=JOB_SECONDS)
    uid = cluster.job(NAMESPACE, name)["metadata"]["uid"]
    claim = cluster.api.get("persistentvolumeclaims", NAMESPACE, f"{name}-{uid[:8]}-aggregator-0")
    log = cluster.folder / "node" / "volumes" / claim["metadata"]["uid"] / ROUND_LOG_NAME
    lines = log.read_text(encoding="utf-8").splitlines()
    commits = [datetime.fromisoformat(json.loads(line)["committedAt"]) for line in lines]
    cluster.delete(NAMESPACE, name)
    eventually(lambda: not cluster.pods(NAMESPACE, name), "the end of the job's pods", JOB_SECONDS)
    return [(later - earlier).total_seconds() for earlier, later in pairwise(commits)][WARM_UP:]


def _manifest(name: str, clients: int) -> dict[str, Any]:
    sizes = {"features": 10, "numSamples": 100, "numTestSamples": 100}
    return a_job(
        name,
        clients=clients,
        rounds=ROUNDS[clients],
        data={"name": "synthetic-linear", "parameters": sizes},
        training={"epochs": 1, "batchSize": 100, "learningRate": 0.01},
    )


def _milliseconds(seconds: list[float]) -> tuple[float, ...]:
    return tuple(1e3 * value for value in seconds)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the operator on a real API server; leave the machine idle.")
    parser.add_argument("--quick", action="store_true", help="one repeat and few jobs: to try the script, not to quote")
    parser.add_argument("--busy", action="store_true", help="do not wait until the machine is idle")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all values to FILE")
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="disk to measure on [default: the folder for temporary files]"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
