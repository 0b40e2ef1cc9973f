"""What bench/gpu.py compares computes the same; that it measures nothing without a GPU."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedjob.manifest import load_manifest
from tests.gpu.conftest import SIMULATED
from tests.support.repository import ROOT

BENCH = ROOT / "bench"


@pytest.fixture
def bench(monkeypatch):
    """The scripts' folder on the path, as when one of them is started."""
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module


@pytest.mark.parametrize(
    ("link", "features", "classes"), [("linear", 1, 1), ("linear", 3, 1), ("logistic", 2, 1), ("softmax", 2, 3)]
)
def test_every_way_computes_the_same_epochs(bench, link, features, classes):
    epochs, gpu = bench("gpu_epochs"), bench("gpu")
    task = epochs.problem(link, 20 if SIMULATED else 10_000, features, classes)
    assert task.read_bytes == len(task.x) * 4 * (features + 1)
    found = {}
    for name, make in epochs.ways(task).items():
        epoch = make(task, threads=4) if name == "fedjob" and SIMULATED else make(task)
        params = np.zeros((features + 1, classes))
        for _ in range(gpu.SLOW_EPOCHS):
            params -= gpu.LEARNING_RATE * epoch(params)
        found[name] = params
    assert {"fedjob", "the client's CPU code"} <= found.keys()
    assert (epochs.ATOMIC in found) == (link == "linear")
    assert found.keys() - {"fedjob", "cupy", "torch"} <= gpu.SLOW
    for name, params in found.items():
        assert params == pytest.approx(found["fedjob"], abs=gpu.LARGEST_DIFFERENCE / 10), name


def test_only_atomic_additions_may_be_wrong_and_then_it_is_said(bench):
    epochs, gpu = bench("gpu_epochs"), bench("gpu")
    assert gpu.ATOMIC == epochs.ATOMIC
    assert gpu.compared(gpu.ATOMIC, (0.002,), 0.3).note == "per epoch; parameters off by 0.3"
    assert gpu.compared("torch", (0.002,), 1e-4).note == "per epoch"
    with pytest.raises(SystemExit, match=r"torch differs from fedjob by 0\.3"):
        gpu.compared("torch", (0.002,), 0.3)


@pytest.mark.skipif(not SIMULATED, reason="this machine has a GPU")
def test_nothing_is_measured_in_the_simulator_or_without_a_gpu():
    for simulator, line in (("1", "Numba's simulator has no speed"), ("0", "nothing is measured without a GPU: ")):
        done = subprocess.run(
            [sys.executable, str(BENCH / "gpu.py")],
            env={**os.environ, "NUMBA_ENABLE_CUDASIM": simulator, "CUDA_VISIBLE_DEVICES": ""},
            capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
        assert done.returncode == 1
        assert line in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert done.stdout == ""


def test_the_job_that_is_measured_is_a_valid_one(bench, tmp_path: Path):
    file = tmp_path / "job.yaml"
    file.write_text(bench("gpu").JOB, encoding="utf-8")
    group = load_manifest(file).spec.client_groups[0]
    assert (group.replicas, group.device) == (4, "GPU")
