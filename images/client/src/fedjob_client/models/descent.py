"""Gradient descent with one of the optimizers: over mini-batches, or over all examples at once.

Same seed, data and parameters: the same bits, on one CPU type with the same number of threads.
"""

from collections.abc import Callable

import numpy as np

from fedjob_client.models.model import Model, Sums, training_metrics
from fedjob_client.models.optimizers import Optimizer
from fedjob_client.trainer import Array, Metrics, Params, TrainConfig


def train_batches(model: Model, params: Params, x: Array, y: Array, config: TrainConfig) -> tuple[Params, Metrics]:
    """Train with mini-batches, shuffled anew in each epoch by ``config.seed`` alone.

    Metrics are of the parameters as they were at each batch, not of the epoch's end.

    Returns:
        The trained parameters and the last epoch's metrics.
    """
    optimizer = Optimizer(params, model, config)
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(config.seed)))
    metrics: Metrics = {}
    for epoch in range(1, config.epochs + 1):
        order = generator.permutation(len(y))
        loss, correct = 0.0, 0
        for begin in range(0, len(y), config.batch_size):
            rows = order[begin : begin + config.batch_size]
            sums = model.gradient(optimizer.params, x[rows], y[rows], optimizer.gradient)
            optimizer.step()
            loss += sums.loss
            correct += sums.correct
            config.check_cancelled()
        metrics = training_metrics(model, Sums(loss, correct), len(y))
        config.on_epoch(epoch, metrics)
    return optimizer.params, metrics


def train_full_batch(
    model: Model, gradient: Callable[[Params, Params], Sums], params: Params, examples: int, config: TrainConfig
) -> tuple[Params, Metrics]:
    """Train with one step per epoch, over all examples in their own order.

    Args:
        model: The model.
        gradient: Of parameters; writes the gradient over all examples to its second argument.
        params: Parameters to start from.
        examples: Number of examples.
        config: Epochs, learning rate, optimizer.

    Returns:
        The trained parameters, and the metrics of those that the last step started from.
    """
    optimizer = Optimizer(params, model, config)
    metrics: Metrics = {}
    for epoch in range(1, config.epochs + 1):
        sums = gradient(optimizer.params, optimizer.gradient)
        optimizer.step()
        metrics = training_metrics(model, sums, examples)
        config.on_epoch(epoch, metrics)
    return optimizer.params, metrics
