"""A trainer that a test steers through files, loaded by the client programs of pods on the fake node."""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from fedjob_client.trainer import ClientContext, EvalConfig, Metrics, Params, TrainConfig, Update

FOLDER = "FEDJOB_TEST_FOLDER"
"""Environment variable with the folder that the files are in."""
REFERENCE = "tests.support.cluster.steered:Steered"
DIARY = "FEDJOB_TEST_DIARY"
"""Environment variable with a file that the trainer adds a line to for each round that it trains in."""
LOOK_SECONDS = 0.01


def hold_file(folder: Path, round_number: int) -> Path:
    """While this file is there, nobody finishes training of that round."""
    return folder / f"hold-{round_number}"


class Steered:
    """Adds to each value a number that depends on client and round, so that a model tells who made it.

    ``model.parameters``: ``fail`` names a client that raises; ``accuracy`` is what the evaluator reports.
    """

    num_examples = 10
    num_test_examples = 5

    def __init__(self, context: ClientContext) -> None:
        self._folder = Path(os.environ[FOLDER])
        self._context = context
        self._parameters = context.model.parameters

    def init(self, seed: int) -> Params:
        return {"w": np.full(8, seed, dtype=np.float32)}

    def train(self, params: Params, config: TrainConfig) -> Update:
        while hold_file(self._folder, config.round).exists():
            time.sleep(LOOK_SECONDS)
            config.check_cancelled()
        if self._parameters.get("fail") == self._context.index:
            raise ValueError("the sensor of this client is broken")
        if diary := os.environ.get(DIARY):
            with Path(diary).open("a", encoding="utf-8") as file:
                file.write(f"{config.round}\n")
        params["w"] += np.float32((self._context.index + 1) * 2.0**-config.round)
        return Update(params=params, num_examples=10, metrics={"loss": 1.0 / config.round})

    def evaluate(self, params: Params, config: EvalConfig) -> Metrics:
        return {"accuracy": float(self._parameters.get("accuracy", 0.5)), "mean": float(params["w"].mean())}

    def predict(self, params: Params, inputs: Any) -> Any:
        return inputs + params["w"][0]
