"""A trainer for tests: does as it is told, and as ``training.parameters`` say, misbehaves in some clients.

Copied into a manifest's folder and named as ``trainer: misbehaving:Misbehaving``. Its updates are functions of client
and round alone, so a run with a client that never gets through ends in the same model as a run without it.
"""

import os
import threading

import numpy as np

from fedjob_client.trainer import ClientContext, EvalConfig, Metrics, Params, TrainConfig, Update

SHAPE = (7, 3)


class Misbehaving:
    """Implements `fedjob_client.trainer.Trainer`; ``parameters`` say by a client's index how it misbehaves."""

    def __init__(self, context: ClientContext) -> None:
        self._index = context.index

    def init(self, seed: int) -> Params:
        """Zeros."""
        return {"w": np.zeros(SHAPE, dtype=np.float32)}

    def train(self, params: Params, config: TrainConfig) -> Update:
        """Misbehave, or return numbers that depend on client and round."""
        numbers = np.random.default_rng((self._index, config.round)).standard_normal(SHAPE, dtype=np.float32)
        numbers = self._misbehave(config.parameters.get(str(self._index)), numbers)
        return Update(delta={"w": numbers}, num_examples=10 + self._index)

    def evaluate(self, params: Params, config: EvalConfig) -> Metrics:
        """The largest weight, under two names that people know."""
        return {"loss": float(np.abs(params["w"]).max()), "accuracy": 0.5}

    def _misbehave(self, how: str | None, numbers: np.ndarray) -> np.ndarray:
        match how:
            case "dies":
                os._exit(9)
            case "hangs":
                threading.Event().wait()
            case "raises":
                raise RuntimeError("no batch today\nthe scanner is broken")
            case "nan":
                numbers[1, 1] = np.nan
            case "shape":
                return numbers.reshape(SHAPE[::-1])
            case "huge":
                numbers *= np.float32(1e30)
        return numbers
