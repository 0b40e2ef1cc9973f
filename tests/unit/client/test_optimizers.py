"""Optimizers and FedProx's term against the formulas of their papers, computed independently in float64."""

import numpy as np
import pytest

from fedjob_client.models.builtin import BuiltinTrainer
from fedjob_client.models.linear import LinearRegression
from fedjob_client.models.mlp import Mlp
from fedjob_client.trainer import OptimizerSettings, TrainConfig
from tests.unit.client.builders import a_classification, a_regression

BATCH = 8


def gradients_of(params, dataset, seed, epochs):
    """Yield batches in the order in which the client takes them: shuffled anew in each epoch by the seed alone."""
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
    for _ in range(epochs):
        order = generator.permutation(len(dataset.train))
        for begin in range(0, len(order), BATCH):
            rows = order[begin : begin + BATCH]
            yield dataset.train.x[rows], dataset.train.y[rows]


def linear_gradient(w, x, y):
    """Of the mean squared error; w has the intercept last."""
    error = x @ w[:-1] + w[-1] - y
    return np.append(2 * x.T @ error, 2 * error.sum()) / len(y)


def trained(optimizer, *, mu=0.0, epochs=3, learning_rate=0.003):
    dataset = a_regression()
    config = TrainConfig(
        round=1,
        epochs=epochs,
        batch_size=BATCH,
        learning_rate=learning_rate,
        seed=5,
        optimizer=optimizer,
        proximal_mu=mu,
    )
    start = {"w": np.array([0.5, -1.0, 2.0]), "b": np.array([0.25])}
    params = BuiltinTrainer(LinearRegression(), dataset).train(start, config).params
    assert params is not None
    return np.append(params["w"], params["b"]), np.append(start["w"], start["b"]), dataset


def test_adam_is_algorithm_1_of_its_paper():
    settings = OptimizerSettings(
        name="Adam", parameters={"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-6, "weightDecay": 0.01}
    )
    found, w, dataset = trained(settings, learning_rate=0.05)
    m, v = np.zeros(4), np.zeros(4)
    for t, (x, y) in enumerate(gradients_of(w, dataset, 5, 3), start=1):
        g = linear_gradient(w, x, y) + 0.01 * w
        m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g**2
        w = w - 0.05 * (m / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.95**t)) + 1e-6)
    assert found == pytest.approx(w, rel=1e-10)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_fedprox_adds_its_proximal_term_to_every_step(momentum):
    """Li et al., MLSys 2020, equation 2: F(w) + mu/2 · |w - w_start|²."""
    found, start, dataset = trained(OptimizerSettings(parameters={"momentum": momentum}), mu=0.7)
    w, v = start, np.zeros(4)
    for x, y in gradients_of(w, dataset, 5, 3):
        v = momentum * v + linear_gradient(w, x, y) + 0.7 * (w - start)
        w = w - 0.003 * v
    assert found == pytest.approx(w, rel=1e-10)


def test_a_large_mu_holds_a_client_near_the_model_it_began_with():
    moved = []
    for mu in (0.0, 5.0):
        found, start, _ = trained(OptimizerSettings(), mu=mu, epochs=30, learning_rate=0.01)
        moved.append(float(np.linalg.norm(found - start)))
    assert moved[1] < 0.9 * moved[0]


def test_full_batches_have_optimizer_and_proximal_term_too():
    dataset = a_regression(features=3)
    config = TrainConfig(
        round=1,
        epochs=4,
        batch_size=1000,
        learning_rate=0.05,
        optimizer=OptimizerSettings(name="Adam"),
        proximal_mu=0.3,
    )
    params = BuiltinTrainer(LinearRegression(), dataset).train({"w": np.ones(3), "b": np.ones(1)}, config).params
    assert params is not None
    w = start = np.ones(4)
    m, v = np.zeros(4), np.zeros(4)
    for t in range(1, 5):
        g = linear_gradient(w, dataset.train.x, dataset.train.y) + 0.3 * (w - start)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        w = w - 0.05 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    assert np.append(params["w"], params["b"]) == pytest.approx(w, rel=1e-9)


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_optimizers_learn_in_float32_and_repeat_bit_for_bit(name):
    dataset = a_classification()
    config = TrainConfig(
        round=1,
        epochs=30,
        batch_size=BATCH,
        learning_rate=0.02,
        optimizer=OptimizerSettings(name=name),
        proximal_mu=0.01,
    )
    trainer = BuiltinTrainer(Mlp([7]), dataset)
    first, second = (trainer.train(trainer.init(1), config) for _ in range(2))
    assert first.params is not None
    assert second.params is not None
    assert all(np.array_equal(first.params[key], second.params[key]) for key in first.params)
    assert all(array.dtype == np.float32 for array in first.params.values())
    assert first.metrics["loss"] < np.log(3)
