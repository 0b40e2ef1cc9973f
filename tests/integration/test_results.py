"""What whole jobs learn on real data: the demo's digits, and MNIST where its files are."""

import os
from pathlib import Path
from statistics import mean

import pytest

from tests.support.runs import REPOSITORY, Folder, fedjob

MNIST = Path(os.environ.get("FEDJOB_TEST_MNIST") or REPOSITORY.parent / "shared" / "data" / "mnist")
SEEDS = (1, 2, 3)


def accuracy(folder: Path, example: str, *overrides: str) -> float:
    """Held-out accuracy of the final model of an example."""
    settings = [part for override in overrides for part in ("--set", override)]
    done = fedjob("run", REPOSITORY / "examples" / example, "--dir", folder, *settings, cwd=folder.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    last = Folder(folder).rounds()[-1]
    assert last.metrics is not None
    return last.metrics["accuracy"]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_demo_reads_digits(seed, tmp_path):
    assert accuracy(tmp_path / "run", "01-minimal.yaml", f"spec.seed={seed}") >= 0.94


@pytest.mark.slow
@pytest.mark.skipif(not MNIST.is_dir(), reason="no MNIST files: name their folder in FEDJOB_TEST_MNIST")
def test_softmax_reads_mnist_after_ten_rounds_of_five_skewed_clients(tmp_path):
    reached = [
        accuracy(tmp_path / f"run-{seed}", "04-mnist.yaml", f"spec.data.path={MNIST}", f"spec.seed={seed}")
        for seed in SEEDS
    ]
    assert mean(reached) >= 0.87
