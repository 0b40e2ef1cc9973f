"""Measures what docs/performance.md says about GPUs: ``make test-gpu && .venv/bin/python bench/gpu.py``.

Regressions: seconds per epoch by the client's kernels, by CuPy and PyTorch where they are installed, by a kernel with
an atomic addition per element, and by the client's CPU code; and which share of the device's memory bandwidth that is,
which a copy within the device shows in the same run. Networks: images per second by the client and by plain PyTorch,
where it is installed. Job: GPU utilisation while four clients of `fedjob run` share the
GPU. Without a GPU it says so and measures nothing.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any, Final

import numpy as np
from machine import describe
from report import Check, Row, Section, write_json

from fedjob_client.cuda.choice import missing_for_gpu, missing_for_networks
from fedjob_client.cuda.driver import is_simulated

COPY_BYTES: Final = 2**30
SIZES: Final = (
    ("linear", 100_000_000, 1, 1),
    ("linear", 10_000_000, 10, 1),
    ("logistic", 10_000_000, 10, 1),
    ("softmax", 1_000_000, 64, 10),
)
EPOCHS: Final = 50
SLOW_EPOCHS: Final = 3
"""Of the ways that are there to be compared with and take long."""
ATOMIC: Final = "an atomic addition per element"
SLOW: Final = frozenset({"the client's CPU code", "NumPy, a pass over the examples", ATOMIC})
REPEATS: Final = 5
SHARE_GOAL: Final = 0.6
LARGEST_DIFFERENCE: Final = 1e-3
LARGEST_LOSS_DIFFERENCE: Final = 0.02
"""Of the loss after as many epochs: the two round in another order, and with TF32."""
LEARNING_RATE: Final = 0.1
JOB_CLIENTS: Final = 4
JOB_SECONDS: Final = 300.0
SAMPLE_SECONDS: Final = 0.2


def main() -> None:
    """Measure everything and print it."""
    parser = argparse.ArgumentParser(description="Measure FederatedJob's GPU kernels; needs an NVIDIA GPU.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all values to FILE")
    options = parser.parse_args()
    require_gpu()
    os.environ.setdefault("NUMBA_CUDA_LOW_OCCUPANCY_WARNINGS", "0")
    machine = describe() | _gpu()
    print(", ".join(f"{name} {value}" for name, value in machine.items()), flush=True)
    sections = []
    bandwidth = copy_bandwidth()
    for size in SIZES:
        sections.append(regression(*size, bandwidth=bandwidth))
        print(f"\n{sections[-1].text()}", flush=True)
    sections += networks()
    sections.append(job())
    print(f"\n{sections[-1].text()}", flush=True)
    if options.json:
        write_json(options.json, machine, sections)


def require_gpu() -> None:
    """Leave with one line where there is no GPU; the simulator is none."""
    missing = "Numba's simulator has no speed: unset NUMBA_ENABLE_CUDASIM" if is_simulated() else missing_for_gpu()
    if missing is not None:
        sys.exit(f"bench: nothing is measured without a GPU: {missing}")


def copy_bandwidth() -> tuple[float, ...]:
    """Bytes per second that copies within the device read and write together."""
    from numba import cuda  # noqa: PLC0415 - after `require_gpu`

    source, target = (cuda.device_array(COPY_BYTES // 4, dtype=np.float32) for _ in range(2))
    return tuple(
        2 * 10 * COPY_BYTES / seconds
        for seconds in timed(lambda: target.copy_to_device(source), calls=10, finish=cuda.synchronize)
    )


def regression(link: str, examples: int, features: int, classes: int, *, bandwidth: tuple[float, ...]) -> Section:
    """Seconds per epoch in every way, and the share of the bandwidth that ours is."""
    from gpu_epochs import problem, ways  # noqa: PLC0415 - imports numba.cuda

    began = time.perf_counter()
    task = problem(link, examples, features, classes)
    rows, reference = [], None
    for name, make in ways(task).items():
        epochs = SLOW_EPOCHS if name in SLOW else EPOCHS
        values, params = measured(make(task), features, classes, epochs)
        # All go the same way at first: compare the parameters after as many epochs as the slow ones have.
        reference = params if reference is None else reference
        rows.append(compared(name, values, float(np.abs(params - reference).max())))
    median = {row.name: row.median / 1000 for row in rows}
    best_copy = max(bandwidth)
    rows.append(Row(name="copy within the device", unit="GB/s", values=tuple(rate / 1e9 for rate in bandwidth)))
    share = task.read_bytes / median["fedjob"] / best_copy
    checks = [Check(name="share of the copy's bandwidth", value=share, unit="", goal=SHARE_GOAL, at_most=False)]
    checks += [
        Check(name=f"times as fast as {name}", value=median[name] / median["fedjob"], unit="x", goal=1, at_most=False)
        for name in ("cupy", "torch")
        if name in median
    ]
    return Section(
        name=f"gpu-{link}-{features}",
        title=f"{task.name}, full batch",
        rows=tuple(rows),
        checks=tuple(checks),
        seconds=time.perf_counter() - began,
    )


def compared(name: str, values: tuple[float, ...], difference: float) -> Row:
    """A way's times, if it computes what ours does; leave if not.

    One float32 that 1e8 small numbers are added to loses most of them, so atomic additions are wrong there by nature:
    how far is said beside their time.
    """
    note = "per epoch"
    if not difference <= LARGEST_DIFFERENCE:
        if name != ATOMIC:
            sys.exit(f"bench: {name} differs from fedjob by {difference}: their times cannot be compared")
        note = f"per epoch; parameters off by {difference:.2g}"
    return Row(name=name, unit="ms", values=tuple(1000 * seconds for seconds in values), note=note)


def networks() -> list[Section]:
    """Images per second of the two-layer network by the client and by plain PyTorch, in turns."""
    missing = missing_for_networks()
    if missing is not None:
        print(f"\nNetworks are not measured: {missing}", flush=True)
        return []
    from gpu_networks import BATCHES, IMAGES, ours, plain  # noqa: PLC0415 - imports PyTorch

    sections = []
    for batch in BATCHES:
        began = time.perf_counter()
        ways = {"fedjob": ours(IMAGES, batch, "cuda"), "plain PyTorch": plain(IMAGES, batch, "cuda")}
        rates, losses = in_turns(ways, IMAGES)
        compare_losses(losses)
        rows = [Row(name=name, unit="img/s", values=tuple(values)) for name, values in rates.items()]
        value = rows[0].median / rows[1].median
        checks = (Check(name="times as fast as plain PyTorch", value=value, unit="x", goal=1, at_most=False),)
        title = f"Two-layer CNN, {IMAGES} images, batches of {batch}"
        seconds = time.perf_counter() - began
        sections.append(Section(name=f"gpu-cnn-{batch}", title=title, rows=tuple(rows), checks=checks, seconds=seconds))
        print(f"\n{sections[-1].text()}", flush=True)
    return sections


def in_turns(ways: dict[str, Callable[[], float]], images: int) -> tuple[dict[str, list[float]], list[float]]:
    """Images per second of each way, epoch by epoch after one that is not measured, and each one's first loss."""
    losses = [epoch() for epoch in ways.values()]
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(REPEATS):
        for name, epoch in ways.items():
            began = time.perf_counter()
            epoch()
            rates[name].append(images / (time.perf_counter() - began))
    return rates, losses


def compare_losses(losses: list[float]) -> None:
    """Leave if two ways of training did not learn the same."""
    first, second = losses
    if not abs(first - second) <= LARGEST_LOSS_DIFFERENCE * second:
        sys.exit(f"bench: the losses {first:.4f} and {second:.4f} differ, so their times cannot be compared")


def measured(epoch: Callable[[Any], Any], features: int, classes: int, epochs: int) -> tuple[tuple[float, ...], Any]:
    """Seconds per epoch, for each repeat, and the parameters after `SLOW_EPOCHS`."""
    params = np.zeros((features + 1, classes))

    def step() -> None:
        params[...] -= LEARNING_RATE * epoch(params)

    for _ in range(SLOW_EPOCHS):  # compiles, too
        step()
    kept = params.copy()
    return tuple(seconds / epochs for seconds in timed(step, calls=epochs)), kept


def timed(call: Callable[[], object], *, calls: int, finish: Callable[[], object] = lambda: None) -> list[float]:
    """Seconds of so many calls, again and again."""
    values = []
    for _ in range(REPEATS):
        finish()
        began = time.perf_counter()
        for _ in range(calls):
            call()
        finish()
        values.append(time.perf_counter() - began)
    return values


def job() -> Section:
    """GPU utilisation, as the driver counts it, while a job with four clients trains on one GPU."""
    began = time.perf_counter()
    smi = shutil.which("nvidia-smi")
    if smi is None:
        sys.exit("bench: nvidia-smi is not on PATH: it tells the utilisation")
    with tempfile.TemporaryDirectory(prefix="fedjob-bench-") as folder:
        (Path(folder) / "job.yaml").write_text(JOB, encoding="utf-8")
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("fedjob")), "run", "job.yaml", "--dir", "run"], cwd=folder
        )
        used: list[float] = []
        while process.poll() is None:
            if time.perf_counter() - began > JOB_SECONDS:
                process.terminate()
                sys.exit(f"bench: the job took more than {JOB_SECONDS:g} s")
            query = [smi, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
            told = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20).stdout
            used.append(float(told.splitlines()[0]))
            time.sleep(SAMPLE_SECONDS)
    if process.returncode:
        sys.exit(f"bench: the job ended with exit code {process.returncode}")
    row = Row(name="utilisation", unit="%", values=tuple(used), note=f"mean {mean(used):.0f}, start and end included")
    return Section(
        name="gpu-job",
        title=f"fedjob run, {JOB_CLIENTS} clients on one GPU",
        rows=(row,),
        seconds=time.perf_counter() - began,
    )


JOB: Final = f"""
apiVersion: fedjob.dev/v1alpha1
kind: FederatedJob
metadata: {{name: gpu-bench}}
spec:
  rounds: 20
  model: {{name: logistic}}
  data: {{name: synthetic-logistic, parameters: {{numSamples: 2000000, numTestSamples: 1000, features: 10}}}}
  training: {{epochs: 200, batchSize: 2000000, learningRate: 0.1}}
  clientGroups:
  - {{name: clients, replicas: {JOB_CLIENTS}, device: GPU}}
"""


def _gpu() -> dict[str, str]:
    from numba import cuda  # noqa: PLC0415 - after `require_gpu`

    device = cuda.get_current_device()
    name = device.name.decode() if isinstance(device.name, bytes) else str(device.name)
    return {"gpu": name, "compute capability": ".".join(map(str, device.compute_capability))}


if __name__ == "__main__":
    main()
