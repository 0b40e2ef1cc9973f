"""A trainer without training: adds small noise to a model of 25 million parameters, so that a round is all transfer.

Copied beside the manifest of the measurement, which names it as ``trainer: noise_trainer:NoiseTrainer``.
"""

import numpy as np

from fedjob_client.trainer import EvalConfig, Metrics, Params, TrainConfig, Update

TENSORS = 50
ELEMENTS = 500_000
"""Of each tensor; together 25 million float32, 100 MB."""


class NoiseTrainer:
    """Implements `fedjob_client.trainer.Trainer`."""

    num_examples = 100

    def init(self, seed: int) -> Params:
        """Normal numbers of the seed."""
        generator = np.random.default_rng(seed)
        return {
            f"layer{number:02d}": generator.standard_normal(ELEMENTS, dtype=np.float32) for number in range(TENSORS)
        }

    def train(self, params: Params, config: TrainConfig) -> Update:
        """Add one tensor's worth of noise to every tensor."""
        noise = np.random.default_rng(config.seed).standard_normal(ELEMENTS, dtype=np.float32)
        noise *= np.float32(0.01)
        for values in params.values():
            np.add(values, noise, out=values)
        return Update(params=params, num_examples=self.num_examples)

    def evaluate(self, params: Params, config: EvalConfig) -> Metrics:  # noqa: ARG002 - nothing to choose
        """The first weight."""
        return {"first": float(params["layer00"][0])}
