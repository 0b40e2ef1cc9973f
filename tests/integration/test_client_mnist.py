"""Real images where the files are: in the folder that ``FEDJOB_TEST_MNIST`` names, or ``../shared/data/mnist``."""

import os
from pathlib import Path

import numpy as np
import pytest

from tests.unit.client.federation import accuracies

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("FEDJOB_TEST_MNIST") or ROOT.parent / "shared" / "data" / "mnist")


@pytest.mark.skipif(not FOLDER.is_dir(), reason="no MNIST files: name their folder in FEDJOB_TEST_MNIST")
def test_softmax_learns_mnist_in_ten_federated_rounds():
    last = [
        accuracies(model="softmax", data="mnist", path=str(FOLDER), seed=seed, rounds=10, epochs=1, learning_rate=0.1)[
            -1
        ]
        for seed in (1, 2, 3)
    ]
    assert np.mean(last) >= 0.87
