"""Round overhead of the real `fedjob run` beside the bare loop, with trivial clients and with a model of 100 MB."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Final

import psutil
from aggregator import MODEL_BYTES
from bare_loop import bare_rounds
from children import HERE
from machine import status_bytes
from report import Check, Row, Section

from fedjob_protocol.layout import ROUND_LOG_NAME

GOALS: Final = {3: 15.0, 10: 40.0, 20: 90.0}
"""Milliseconds per round, durable commit included, by the number of clients."""
ROUNDS: Final = {3: 200, 10: 100, 20: 60}
WARM_UP: Final = 5
"""First rounds of a run that are not counted: connections are opened, code is loaded."""
REPEATS: Final = 3
TRIVIAL_MODEL_BYTES: Final = 256
"""Of a file with 11 parameters in float64 and its header, about."""
LARGE_CLIENTS: Final = 5
LARGE_ROUNDS: Final = 8
RUN_SECONDS: Final = 300.0
SAMPLE_SECONDS: Final = 0.1
"""Between looks at the peak memory, which the kernel keeps: only the last look before the end must not be early."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What a run of `fedjob run` left."""

    gaps: tuple[float, ...]
    """Seconds between the commits of consecutive rounds."""
    first_round: float
    """Seconds from the start of the command to the commit of round 1."""
    aggregator_peak: int
    """Largest resident memory of the aggregator, in bytes."""
    client_peak: int
    """Largest resident memory of a client, in bytes."""


def trivial_rounds(folder: Path, *, quick: bool) -> Section:
    """Milliseconds per round for 3, 10 and 20 clients, evaluation off and on, in turn with the bare loop."""
    rows, checks = [], []
    for clients in (3,) if quick else GOALS:
        for evaluate in (False, True):
            ours, bare, first = _compare(folder, clients, evaluate=evaluate, repeats=1 if quick else REPEATS)
            label = f"{clients} clients, evaluation {'on' if evaluate else 'off'}"
            runs = ", ".join(f"{1e3 * median(run):.1f}" for run in ours)
            rows += [
                Row(name=f"{label}: fedjob run", unit="ms", values=_milliseconds(ours), note=f"runs' medians {runs}"),
                Row(name=f"{label}: bare loop", unit="ms", values=_milliseconds(bare)),
                Row(name=f"{label}: start to end of round 1", unit="s", values=tuple(first)),
            ]
            ratio = rows[-3].median / rows[-2].median
            checks += [
                Check(name=f"{label}: per round", value=rows[-3].median, unit="ms", goal=GOALS[clients]),
                Check(name=f"{label}: of the bare loop", value=ratio, unit="x", goal=4.0),
            ]
    title = f"Round overhead, linear model of 11 parameters ({WARM_UP} rounds of warm-up not counted)"
    return Section(name="rounds", title=title, rows=tuple(rows), checks=tuple(checks))


def large_rounds(folder: Path, *, quick: bool) -> Section:
    """Seconds per round and peak memory for 5 clients and a model of 100 MB."""
    ours, bare, peaks, client_peaks = [], [], [], []
    for repeat in range(1 if quick else REPEATS):
        where = folder / f"large-{repeat}"
        run = fedjob_run(where, _large_manifest(), watch_every=SAMPLE_SECONDS)
        ours.append(run.gaps[1:])
        peaks.append(run.aggregator_peak / 1e6)
        client_peaks.append(run.client_peak / 1e6)
        shutil.rmtree(where)
        times = bare_rounds(LARGE_CLIENTS, LARGE_ROUNDS, folder, evaluate=False, model_bytes=MODEL_BYTES)
        bare.append(times[1:])
    seconds = Row(name="fedjob run", unit="s", values=tuple(value for run in ours for value in run))
    floor = Row(name="bare loop, dropped", unit="s", values=tuple(value for run in bare for value in run))
    memory = Row(name="aggregator's peak memory", unit="MB", values=tuple(peaks))
    client = Row(name="a client's peak memory", unit="MB", values=tuple(client_peaks))
    return Section(
        name="large",
        title=f"Round of {LARGE_CLIENTS} clients with a model of 100 MB (50 tensors), evaluation off",
        rows=(seconds, floor, memory, client),
        checks=(Check(name="of the bare loop", value=seconds.median / floor.median, unit="x", goal=2.0),),
    )


def fedjob_run(folder: Path, manifest: dict[str, Any], *, watch_every: float | None = None) -> Finished:
    """Run a job in a folder of its own and read its round log."""
    folder.mkdir()
    shutil.copy(HERE / "noise_trainer.py", folder)
    file = folder / "job.yaml"
    file.write_text(json.dumps(manifest), encoding="utf-8")  # JSON is YAML
    command = [sys.executable, "-P", "-m", "fedjob", "run", str(file), "--dir", str(folder / "run")]
    began = datetime.now(UTC)
    with (folder / "output.log").open("wb") as output, _process(command, output) as process:
        peaks = _watch(process, every=watch_every)
    if process.returncode != 0:
        sys.exit(f"bench: {' '.join(command)}: exit code {process.returncode}:\n{(folder / 'output.log').read_text()}")
    lines = (folder / "run" / "aggregator" / ROUND_LOG_NAME).read_text(encoding="utf-8").splitlines()
    commits = [datetime.fromisoformat(json.loads(line)["committedAt"]) for line in lines]
    return Finished(
        gaps=tuple((later - earlier).total_seconds() for earlier, later in pairwise(commits)),
        first_round=(commits[1] - began).total_seconds(),
        aggregator_peak=peaks.get("fedjob_aggregator", 0),
        client_peak=peaks.get("fedjob_client", 0),
    )


def _compare(
    folder: Path, clients: int, *, evaluate: bool, repeats: int
) -> tuple[list[tuple[float, ...]], list[list[float]], list[float]]:
    ours, bare, first = [], [], []
    for repeat in range(repeats):
        where = folder / f"trivial-{clients}-{evaluate}-{repeat}"
        run = fedjob_run(where, _trivial_manifest(clients, evaluate=evaluate))
        shutil.rmtree(where)
        ours.append(run.gaps[WARM_UP:])
        first.append(run.first_round)
        times = bare_rounds(clients, ROUNDS[clients], folder, evaluate=evaluate, model_bytes=TRIVIAL_MODEL_BYTES)
        bare.append(times[WARM_UP:])
    return ours, bare, first


def _milliseconds(runs: list[tuple[float, ...]] | list[list[float]]) -> tuple[float, ...]:
    return tuple(1e3 * value for run in runs for value in run)


def _manifest(spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "fedjob.dev/v1alpha1", "kind": "FederatedJob", "metadata": {"name": "bench"}, "spec": spec}


def _trivial_manifest(clients: int, *, evaluate: bool) -> dict[str, Any]:
    sizes = {"features": 10, "numSamples": 100, "numTestSamples": 100}
    return _manifest(
        {
            "rounds": ROUNDS[clients],
            "model": {"name": "linear"},
            "data": {"name": "synthetic-linear", "parameters": sizes},
            "training": {"epochs": 1, "batchSize": 100, "learningRate": 0.01},
            "clientGroups": [{"name": "clients", "replicas": clients}],
            "evaluation": {"modes": ["Evaluator"] if evaluate else []},
        }
    )


def _large_manifest() -> dict[str, Any]:
    group = {"name": "clients", "replicas": LARGE_CLIENTS, "trainer": "noise_trainer:NoiseTrainer"}
    return _manifest(
        {
            "rounds": LARGE_ROUNDS,
            "model": {"name": "noise"},
            "clientGroups": [group],
            "evaluation": {"modes": []},
        }
    )


@contextmanager
def _process(command: list[str], output: Any) -> Iterator["subprocess.Popen[bytes]"]:
    """A `fedjob run`; when the block is left early it is interrupted, and ends its own processes."""
    process = subprocess.Popen(command, stdout=output, stderr=output, env=os.environ, start_new_session=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait()


def _watch(process: "subprocess.Popen[bytes]", *, every: float | None) -> dict[str, int]:
    """Wait for the end; return the peak memory of the run's programs by module, in bytes.

    Args:
        process: The `fedjob run`.
        every: Seconds between looks at the memory; ``None`` does not look, so that nothing disturbs the rounds.
    """
    peaks: dict[str, int] = {}
    deadline = time.monotonic() + RUN_SECONDS
    while True:
        try:
            process.wait(RUN_SECONDS if every is None else every)
        except subprocess.TimeoutExpired:
            if time.monotonic() > deadline:
                sys.exit(f"bench: {process.args!r} did not end within {RUN_SECONDS:.0f} s")
        else:
            return peaks
        for module, peak in _peaks(process.pid):
            peaks[module] = max(peaks.get(module, 0), peak)


def _peaks(parent: int) -> Iterator[tuple[str, int]]:
    """Module and largest resident memory of each program that the run started, in bytes."""
    try:
        children = psutil.Process(parent).children()
    except psutil.Error:
        return
    for child in children:
        try:
            words = child.cmdline()
            peak = status_bytes(child.pid, "VmHWM")
        except (psutil.Error, OSError, IndexError):
            continue  # it has just ended
        if "-m" in words:
            yield words[words.index("-m") + 1], peak
