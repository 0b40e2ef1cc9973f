"""Trainers that the tests steer through files; loaded by real client processes."""

import os
import time
from pathlib import Path

import numpy as np

from fedjob_client.trainer import Update

FOLDER = "FEDJOB_TEST_FOLDER"
"""Environment variable: where the tests put gates, and trainers note what they did."""


class Gated:
    """Adds 1 to a model, each training noted. Where a file ``hold`` is there, it waits until it is gone."""

    num_examples = 10
    num_test_examples = 4

    def __init__(self, context):
        self.folder = Path(os.environ[FOLDER])
        self.size = context.model.parameters.get("size", 4)

    def init(self, seed):
        self.note("init")
        return {"w": np.full(self.size, float(seed), dtype=np.float32)}

    def train(self, params, config):
        self.note(f"train {config.round}")
        config.on_epoch(1, {"loss": 1 / config.round})
        while (self.folder / "hold").exists():
            time.sleep(0.005)
            if not config.parameters.get("deaf"):
                config.check_cancelled()
        if config.parameters.get("fail"):
            raise ValueError("the sensor\nis broken")
        if config.parameters.get("nan"):
            params["w"][0] = np.nan
        params["w"] += 1
        return self.update(params, config)

    def update(self, params, config):
        return Update(params=params, num_examples=7, metrics={"loss": 1 / config.round, "auc": float("nan")})

    def evaluate(self, params, config):
        self.note(f"evaluate {config.round}")
        return {"mean": float(params["w"].mean()), "auc": float("inf")}

    def predict(self, params, inputs):
        return inputs + params["w"][0]

    def note(self, line):
        with (self.folder / "notes").open("a") as file:
            file.write(line + "\n")
