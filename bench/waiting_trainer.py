"""A trainer that takes its time: 5 to 15 s in each round, another time for each client and round, without computing.

It stands for training on a GPU where there is none: what is measured is how long a pod holds one, not what it does.
"""

import time
from typing import Final

import numpy as np

from fedjob_client.trainer import EvalConfig, Metrics, Params, TrainConfig, Update

SHORTEST: Final = 5.0
LONGEST: Final = 15.0
LOOK_SECONDS: Final = 0.05


class WaitingTrainer:
    """Implements `fedjob_client.trainer.Trainer`."""

    num_examples = 10

    def init(self, seed: int) -> Params:
        """Sixteen zeros."""
        return {"w": np.zeros(16, dtype=np.float32) + np.float32(seed % 2)}

    def train(self, params: Params, config: TrainConfig) -> Update:
        """Wait as long as the seed of client and round says."""
        share = np.random.default_rng(config.seed).random()
        end = time.monotonic() + SHORTEST + (LONGEST - SHORTEST) * share
        while time.monotonic() < end:
            config.check_cancelled()
            time.sleep(LOOK_SECONDS)
        params["w"] += np.float32(0.5)
        return Update(params=params, num_examples=self.num_examples)

    def evaluate(self, params: Params, config: EvalConfig) -> Metrics:  # noqa: ARG002 - nothing to choose
        """The first weight."""
        return {"first": float(params["w"][0])}
