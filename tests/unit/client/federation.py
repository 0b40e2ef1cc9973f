"""Federated averaging in one process: what a job computes, without programs, processes or the network."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fedjob_client.models.builtin import BuiltinTrainer
from fedjob_client.trainer import EvalConfig, Params, TrainConfig
from fedjob_client.updates import delta_of
from fedjob_protocol.config import Role
from tests.unit.client.builders import a_context


def accuracies(
    *, model: str, data: str, seed: int, rounds: int, clients: int = 5, path: str | None = None, **training: Any
) -> Sequence[float]:
    """Accuracy on the held-out examples after each round; the data are divided by Dirichlet, alpha 0.5."""
    shared = {"model": model, "data": data, "seed": seed, "path": path}
    trainers = [
        BuiltinTrainer.from_context(a_context(**shared, index=index, clients=clients)) for index in range(clients)
    ]
    evaluator = BuiltinTrainer.from_context(a_context(**shared, role=Role.EVALUATOR))
    params = trainers[0].init(seed)
    found = []
    for number in range(1, rounds + 1):
        config = [TrainConfig(round=number, seed=1000 * number + index, **training) for index in range(clients)]
        params = _average(params, [trainer.train(params, each) for trainer, each in zip(trainers, config, strict=True)])
        found.append(evaluator.evaluate(params, EvalConfig(round=number))["accuracy"])
    return found


def _average(params: Params, updates: list[Any]) -> Params:
    """McMahan et al., arXiv:1602.05629, algorithm 1: the mean weighted by examples."""
    total = sum(update.num_examples for update in updates)
    deltas = [delta_of(update, params) for update in updates]
    return {
        name: (
            array
            + sum(
                delta[name].astype(np.float64) * update.num_examples
                for delta, update in zip(deltas, updates, strict=True)
            )
            / total
        ).astype(array.dtype)
        for name, array in params.items()
    }
