"""scikit-learn estimators as clients."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Perceptron, SGDClassifier, SGDRegressor
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier

from fedjob_client.errors import TrainerError
from fedjob_client.sklearn import SklearnTrainer
from fedjob_client.trainer import EvalConfig, TrainConfig
from fedjob_protocol.config import Role
from tests.unit.client.builders import a_classification, a_context, a_regression


def trainer_of(make, data, **context):
    class Mine(SklearnTrainer):
        def make_estimator(self, config):
            return make(config)

        def load_data(self):
            return data

    return Mine(a_context(**context))


def classifier(config):
    return SGDClassifier("log_loss", learning_rate="constant", eta0=config.learning_rate)


def perceptron(config):
    return MLPClassifier([6], learning_rate_init=config.learning_rate, batch_size=8)


def regressor(config):
    return SGDRegressor(learning_rate="constant", eta0=config.learning_rate)


def learn(trainer, *, rounds=5, **config):
    params = trainer.init(7)
    for number in range(1, rounds + 1):
        params = trainer.train(params, TrainConfig(round=number, seed=number, **config)).params
    return params


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (classifier, {"coef_": (3, 5), "intercept_": (3,)}),
        (lambda _: Perceptron(), {"coef_": (3, 5), "intercept_": (3,)}),
        (perceptron, {"coefs_0": (5, 6), "coefs_1": (6, 3), "intercepts_0": (6,), "intercepts_1": (3,)}),
    ],
    ids=["linear", "perceptron", "layers"],
)
def test_what_an_estimator_learns_is_the_model(make, names):
    params = trainer_of(make, a_classification()).init(7)
    assert {name: array.shape for name, array in params.items()} == names


def test_a_linear_model_begins_with_zeros_and_a_perceptron_with_the_seed():
    assert not trainer_of(classifier, a_classification()).init(7)["coef_"].any()
    first, again, other = (trainer_of(perceptron, a_classification()).init(seed)["coefs_0"] for seed in (7, 7, 8))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("make", [classifier, perceptron], ids=["linear", "layers"])
def test_a_classifier_learns_the_digits(make):
    class Mine(SklearnTrainer):
        def make_estimator(self, config):
            return make(config)

    trainer = Mine(a_context())
    params = learn(trainer, epochs=2, learning_rate=0.05)
    assert trainer.evaluate(params, EvalConfig(round=5))["accuracy"] > 0.85


def test_a_regressor_learns_and_reports_r2():
    trainer = trainer_of(regressor, a_regression(examples=300))
    metrics = trainer.evaluate(learn(trainer, learning_rate=0.005), EvalConfig(round=5))
    assert metrics["r2"] > 0.8
    assert metrics["rmse"] == pytest.approx(metrics["loss"] ** 0.5)


def test_a_client_without_examples_of_a_class_still_knows_it():
    data = a_classification()
    data.train.y[:] = 0
    params = learn(trainer_of(classifier, data), rounds=1)
    assert params["coef_"].shape == (3, 5)


def test_two_classes_have_one_row():
    trainer = trainer_of(classifier, a_classification(classes=2))
    assert learn(trainer, rounds=1)["coef_"].shape == (1, 5)
    assert trainer.predict(trainer.init(7), np.zeros((4, 5))).shape == (4, 2)


@pytest.mark.parametrize("make", [classifier, perceptron], ids=["linear", "layers"])
def test_the_same_seed_gives_the_same_bits(make):
    first, again = (learn(trainer_of(make, a_classification()), rounds=2) for _ in range(2))
    assert all(np.array_equal(first[name], again[name]) for name in first)


def test_progress_is_told_after_each_epoch():
    told = []
    config = TrainConfig(round=1, epochs=3, on_epoch=lambda epoch, metrics: told.append((epoch, sorted(metrics))))
    trainer = trainer_of(classifier, a_classification())
    trainer.train(trainer.init(7), config)
    assert told == [(1, ["accuracy", "loss"]), (2, ["accuracy", "loss"]), (3, ["accuracy", "loss"])]


def test_an_evaluator_reads_no_training_examples_but_evaluates():
    trainer = trainer_of(classifier, a_classification(), role=Role.EVALUATOR)
    assert trainer.num_examples is None
    assert set(trainer.evaluate(trainer.init(7), EvalConfig(round=1))) == {"accuracy", "loss"}


def test_a_strategy_that_needs_gradients_is_refused():
    trainer = trainer_of(classifier, a_classification())
    with pytest.raises(TrainerError, match="FedProx adds to the gradient"):
        trainer.train(trainer.init(7), TrainConfig(round=1, proximal_mu=0.1))


def test_an_estimator_that_cannot_be_trained_on_is_named():
    with pytest.raises(TrainerError, match="LogisticRegression has no partial_fit"):
        trainer_of(lambda _: LogisticRegression(), a_classification()).init(7)


def test_an_estimator_that_keeps_something_else_is_named():
    with pytest.raises(TrainerError, match="GaussianNB keeps what it learns neither in coef_ and intercept_"):
        trainer_of(lambda _: GaussianNB(), a_classification()).init(7)


def test_a_model_of_other_shapes_is_named():
    params = trainer_of(classifier, a_classification(features=4)).init(7)
    with pytest.raises(TrainerError, match=r"\(3, 4\).*SGDClassifier needs.*\(3, 5\)"):
        trainer_of(classifier, a_classification()).train(params, TrainConfig(round=1))
