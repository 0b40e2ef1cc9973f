"""A trainer for fault runs, copied into the manifest's folder: a tiny linear regression that notes what it does.

Its updates depend on the model that it starts from, on client and round, and on nothing else. ``model.parameters.bulk``
adds a tensor of that many values. While there is a file ``hold-CLIENT-ROUND`` in the folder of the test, that client
does not finish that round. ``training.parameters.seconds`` is how long a training takes at least.
"""

import json
import os
import time
from pathlib import Path

import numpy as np

from fedjob_client.trainer import ClientContext, EvalConfig, Metrics, Params, TrainConfig, Update

FOLDER = Path(os.environ["FEDJOB_TEST_FOLDER"])
EXAMPLES = 16
FEATURES = 5
LOOK_SECONDS = 0.005
TRUTH = np.linspace(-1.0, 2.0, FEATURES)


class Steady:
    """Implements `fedjob_client.trainer.Trainer`."""

    num_test_examples = EXAMPLES

    def __init__(self, context: ClientContext) -> None:
        self._index = context.index
        self._bulk = int(context.model.parameters.get("bulk", 0))
        self.num_examples = EXAMPLES + self._index
        numbers = np.random.default_rng(self._index)
        self._x = numbers.normal(size=(self.num_examples, FEATURES))
        self._y = self._x @ TRUTH + numbers.normal(size=self.num_examples)

    def init(self, seed: int) -> Params:
        """Random weights."""
        numbers = np.random.default_rng(seed)
        params = {"w": numbers.normal(size=FEATURES).astype(np.float32), "b": np.zeros(1, np.float32)}
        return params | ({"bulk": numbers.normal(size=self._bulk).astype(np.float32)} if self._bulk else {})

    def train(self, params: Params, config: TrainConfig) -> Update:
        """Two steps of gradient descent."""
        self._note(config.round)
        for epoch in (1, 2):
            error = self._x @ params["w"] + params["b"] - self._y
            params["w"] -= np.float32(config.learning_rate) * (self._x.T @ error / len(error)).astype(np.float32)
            params["b"] -= np.float32(config.learning_rate * error.mean())
            config.on_epoch(epoch, {"loss": float((error**2).mean())})
            self._hold(config)
        time.sleep(config.parameters.get("seconds", 0.0))
        if self._bulk:
            params["bulk"] *= np.float32(1.0 + 0.01 * self._index / config.round)
        return Update(params=params, num_examples=self.num_examples)

    def evaluate(self, params: Params, config: EvalConfig) -> Metrics:
        """Loss on other examples."""
        error = self._x @ (params["w"] - TRUTH) + params["b"]
        return {"loss": float((error**2).mean())}

    def _note(self, round_number: int) -> None:
        line = json.dumps({"client": self._index, "round": round_number, "pid": os.getpid()}) + "\n"
        descriptor = os.open(FOLDER / "trainings", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.write(descriptor, line.encode())
        os.close(descriptor)

    def _hold(self, config: TrainConfig) -> None:
        while (FOLDER / f"hold-{self._index}-{config.round}").exists():
            time.sleep(LOOK_SECONDS)
            config.check_cancelled()
