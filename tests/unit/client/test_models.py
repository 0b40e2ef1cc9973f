from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjob_client.errors import Cancelled, DataError, SettingsError, TrainerError
from fedjob_client.models.builtin import MODELS, BuiltinTrainer
from fedjob_client.models.cnn import Cnn
from fedjob_client.models.linear import Gram, LinearRegression, gram_pays
from fedjob_client.models.logistic import FusedGradient, LogisticRegression, kernel_pays
from fedjob_client.models.mlp import Mlp
from fedjob_client.models.softmax import SoftmaxRegression
from fedjob_client.trainer import EvalConfig, OptimizerSettings, TrainConfig
from fedjob_protocol.builtin import MODEL_PARAMETERS, CnnParameters
from tests.unit.client.builders import a_classification, a_context, a_regression, some_images

CASES = {
    "linear": (LinearRegression(), a_regression()),
    "logistic": (LogisticRegression(), a_classification(classes=2)),
    "softmax": (SoftmaxRegression(), a_classification()),
    "mlp": (Mlp([7]), a_classification()),
    "deep mlp": (Mlp([6, 5, 4]), a_classification()),
    "cnn": (Cnn(CnnParameters(channels=(2, 3), kernel_size=3, hidden_size=4)), some_images()),
}
each_model = pytest.mark.parametrize("case", CASES)


def shape_of(model, dataset):
    """Of one example as the model takes it."""
    return dataset.image if model.takes_images else dataset.train.x.shape[1:]


def start(model, dataset, seed=3):
    """Random parameters, biases too: at zero a gradient can be right by accident."""
    generator = np.random.default_rng(seed)
    params = model.init(generator, shape_of(model, dataset), dataset.num_classes)
    return {
        name: np.asarray(generator.normal(scale=0.4, size=array.shape), array.dtype) for name, array in params.items()
    }


@each_model
def test_the_gradient_is_that_of_finite_differences(case):
    model, dataset = CASES[case]
    # In float64, so that differences are exact enough; the formulas do not depend on the type.
    params = {name: array.astype(np.float64) for name, array in start(model, dataset).items()}
    x, y = dataset.train.x.astype(np.float64).reshape(-1, *shape_of(model, dataset)), dataset.train.y
    gradient = {name: np.empty_like(array) for name, array in params.items()}
    sums = model.gradient(params, x, y, gradient)
    assert sums.loss == pytest.approx(model.score(params, x, y).loss)
    assert sums.correct == model.score(params, x, y).correct
    step = 1e-6
    for name, array in params.items():
        for place in np.ndindex(array.shape):
            moved = [{**params, name: array.copy()} for _ in range(2)]
            moved[0][name][place] += step
            moved[1][name][place] -= step
            above, below = (model.score(each, x, y).loss / len(y) for each in moved)
            assert gradient[name][place] == pytest.approx((above - below) / (2 * step), abs=2e-6)


@each_model
def test_training_lowers_the_loss_and_reports_each_epoch(case):
    model, dataset = CASES[case]
    trainer = BuiltinTrainer(model, dataset)
    seen = []
    config = TrainConfig(
        round=1,
        epochs=30,
        batch_size=8,
        learning_rate=0.01,
        on_epoch=lambda epoch, metrics: seen.append((epoch, dict(metrics))),
    )
    update = trainer.train(trainer.init(1), config)
    assert [epoch for epoch, _ in seen] == list(range(1, 31))
    assert seen[-1][1]["loss"] < seen[0][1]["loss"]
    assert dict(update.metrics) == seen[-1][1]
    assert update.num_examples == len(dataset.train)


@each_model
@pytest.mark.parametrize("batch_size", [8, 1000])
def test_the_same_seed_gives_the_same_bits_and_the_start_is_not_changed(case, batch_size):
    model, dataset = CASES[case]
    params = start(model, dataset)
    kept = {name: array.copy() for name, array in params.items()}
    config = TrainConfig(
        round=1, epochs=3, batch_size=batch_size, seed=5, optimizer=OptimizerSettings(parameters={"momentum": 0.9})
    )
    first, second = (BuiltinTrainer(model, dataset).train(params, config).params for _ in range(2))
    assert first is not None
    assert second is not None
    assert all(np.array_equal(first[name], second[name]) for name in params)
    assert all(first[name].dtype == params[name].dtype == model.dtype for name in params)
    assert all(np.array_equal(kept[name], params[name]) for name in params)


def test_another_seed_shuffles_otherwise():
    model, dataset = CASES["mlp"]
    params = start(model, dataset)
    config = TrainConfig(round=1, batch_size=8, seed=5)
    trainer = BuiltinTrainer(model, dataset)
    first, second = trainer.train(params, config).params, trainer.train(params, replace(config, seed=6)).params
    assert first is not None
    assert second is not None
    assert not np.array_equal(first["w1"], second["w1"])


def test_momentum_and_weight_decay_are_the_textbook_steps():
    dataset = a_regression(features=1)
    x, y = dataset.train.x[:, 0], dataset.train.y
    optimizer = OptimizerSettings(parameters={"momentum": 0.5, "weightDecay": 0.1})
    config = TrainConfig(round=1, epochs=4, batch_size=len(y), learning_rate=0.01, optimizer=optimizer)
    trained = BuiltinTrainer(LinearRegression(), dataset).train({"w": np.zeros(1), "b": np.zeros(1)}, config).params
    w = b = velocity_w = velocity_b = 0.0
    for _ in range(4):
        error = w * x + b - y
        velocity_w = 0.5 * velocity_w + 2 * (error * x).mean() + 0.1 * w
        velocity_b = 0.5 * velocity_b + 2 * error.mean() + 0.1 * b
        w, b = w - 0.01 * velocity_w, b - 0.01 * velocity_b
    assert trained is not None
    assert trained["w"][0] == pytest.approx(w, rel=1e-12)
    assert trained["b"][0] == pytest.approx(b, rel=1e-12)


def plain_loop(x, y, epochs, learning_rate):
    w, b = np.zeros(x.shape[1]), 0.0
    for _ in range(epochs):
        error = x @ w + b - y
        w, b = w - learning_rate * 2 * (x.T @ error) / len(y), b - learning_rate * 2 * error.mean()
    return np.append(w, b), float(((x @ w + b - y) ** 2).mean())


@settings(max_examples=40, deadline=None)
@given(
    examples=st.integers(2, 200),
    features=st.integers(1, 12),
    epochs=st.integers(1, 60),
    shift=st.floats(-10, 10),
    seed=st.integers(0, 1000),
)
def test_the_gram_form_gives_the_iterates_of_the_plain_loop(examples, features, epochs, shift, seed):
    generator = np.random.default_rng(seed)
    x = generator.uniform(-1, 1, size=(examples, features)) + shift
    y = x @ generator.normal(size=features) + generator.normal(size=examples)
    learning_rate = 0.4 / (1 + float((x**2).sum(axis=1).mean()))
    params, gradient = {"w": np.zeros(features), "b": np.zeros(1)}, {"w": np.empty(features), "b": np.empty(1)}
    gram = Gram.of(x, y)
    for _ in range(epochs):
        gram.gradient(params, gradient)
        params = {name: array - learning_rate * gradient[name] for name, array in params.items()}
    expected, loss = plain_loop(x, y, epochs, learning_rate)
    found = np.append(params["w"], params["b"])
    assert np.abs(found - expected).max() <= 1e-9 * max(1.0, np.abs(expected).max())
    assert gram.gradient(params, gradient).loss / examples == pytest.approx(loss, rel=1e-8, abs=1e-10)


@pytest.mark.parametrize("features", [3, 1030])
def test_full_batches_with_and_without_the_gram_form_agree_with_the_plain_loop(features):
    dataset = a_regression(examples=30, features=features)
    config = TrainConfig(round=1, epochs=5, batch_size=30, learning_rate=1e-5)
    assert gram_pays(features, 5) == (features == 3)
    trained = (
        BuiltinTrainer(LinearRegression(), dataset).train({"w": np.zeros(features), "b": np.zeros(1)}, config).params
    )
    assert trained is not None
    expected, _ = plain_loop(dataset.train.x, dataset.train.y, 5, 1e-5)
    assert np.abs(np.append(trained["w"], trained["b"]) - expected).max() <= 1e-9 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("examples", "features", "scale"), [(1, 1, 1.0), (511, 3, 1.0), (513, 10, 30.0), (2000, 4, 1e-3)]
)
def test_the_fused_logistic_kernel_agrees_with_the_reference(examples, features, scale):
    generator = np.random.default_rng(examples)
    x = (scale * generator.normal(size=(examples, features))).astype(np.float32)
    y = generator.integers(0, 2, size=examples)
    params = {"w": generator.normal(size=features).astype(np.float32), "b": np.array([0.3], dtype=np.float32)}
    reference, fused = ({name: np.empty_like(array) for name, array in params.items()} for _ in range(2))
    expected = LogisticRegression().gradient(params, x, y, reference)
    found = FusedGradient(x, y)(params, fused)
    assert found.correct == expected.correct
    assert found.loss == pytest.approx(expected.loss, rel=1e-5, abs=1e-5)
    for name in params:
        assert np.abs(fused[name] - reference[name]).max() <= 1e-5 * max(1.0, float(np.abs(x).max()))


def test_the_kernel_is_chosen_by_size_alone():
    assert not kernel_pays(10_000, 100)
    assert kernel_pays(10_000_000, 100)


@pytest.mark.parametrize("scores", [[-1e30, 1e30], [-200.0, 200.0], [0.0, -0.0]])
def test_extreme_scores_do_not_overflow(scores):
    model = LogisticRegression()
    x, params = np.array(scores, dtype=np.float32)[:, None], {"w": np.ones(1, np.float32), "b": np.zeros(1, np.float32)}
    assert np.isfinite(model.outputs(params, x)).all()
    assert np.isfinite(model.score(params, x, np.array([0, 1])).loss)
    soft = {"w": np.array([[1.0, -1.0]], np.float32), "b": np.zeros(2, np.float32)}
    assert np.isfinite(SoftmaxRegression().outputs(soft, x)).all()
    assert np.isfinite(SoftmaxRegression().score(soft, x, np.array([1, 0])).loss)


def test_classification_metrics_are_loss_and_accuracy():
    model, dataset = CASES["softmax"]
    trainer = BuiltinTrainer(model, dataset)
    metrics = trainer.evaluate(trainer.init(0), EvalConfig(round=1))
    assert metrics.keys() == {"loss", "accuracy"}
    assert metrics["loss"] == pytest.approx(np.log(3), rel=1e-6)
    outputs = trainer.predict(trainer.init(0), dataset.test.x)
    assert outputs.shape == (20, 3)
    assert outputs.sum(axis=1) == pytest.approx(np.ones(20))


def test_regression_metrics_are_those_of_the_textbook():
    dataset = a_regression()
    params = {"w": np.arange(1.0, 4.0), "b": np.array([-2.0])}
    metrics = BuiltinTrainer(LinearRegression(), dataset).evaluate(params, EvalConfig(round=1))
    error = dataset.test.x @ params["w"] - 2 - dataset.test.y
    assert metrics["loss"] == pytest.approx((error**2).mean())
    assert metrics["rmse"] == pytest.approx(np.sqrt((error**2).mean()))
    assert metrics["r2"] == pytest.approx(1 - error.var() / dataset.test.y.var(), abs=0.01)


def test_the_initial_model_depends_on_the_seed_only():
    trainer = BuiltinTrainer(*CASES["mlp"])
    assert np.array_equal(trainer.init(4)["w1"], trainer.init(4)["w1"])
    assert not np.array_equal(trainer.init(4)["w1"], trainer.init(5)["w1"])


def test_cancelling_ends_a_training_in_the_middle_of_an_epoch():
    calls = []

    def check() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise Cancelled

    model, dataset = CASES["mlp"]
    trainer = BuiltinTrainer(model, dataset)
    with pytest.raises(Cancelled):
        trainer.train(trainer.init(0), TrainConfig(round=1, epochs=100, batch_size=4, check_cancelled=check))
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("optimizer", "complaint"),
    [
        (OptimizerSettings(name="Lion"), "'Lion' is not known; known: Adam, SGD"),
        (OptimizerSettings(name="Adam", parameters={"momentum": 0.9}), "momentum is not known; known: beta1, beta2"),
        (OptimizerSettings(parameters={"momentun": 0.9}), "momentun is not known; known: momentum, weightDecay"),
        (OptimizerSettings(parameters={"momentum": 1.0}), "momentum: Input should be less than 1"),
    ],
)
def test_an_optimizer_that_does_not_exist_is_refused(optimizer, complaint):
    trainer = BuiltinTrainer(*CASES["softmax"])
    with pytest.raises(TrainerError, match=complaint):
        trainer.train(trainer.init(0), TrainConfig(round=1, optimizer=optimizer))


@pytest.mark.parametrize(
    ("model", "dataset", "complaint"),
    [
        (LogisticRegression(), a_classification(), "two classes are needed, this data set has 3; use softmax"),
        (SoftmaxRegression(), a_regression(), "a classifier needs class labels"),
    ],
)
def test_data_that_do_not_fit_the_model_are_refused(model, dataset, complaint):
    with pytest.raises(DataError, match=complaint):
        BuiltinTrainer(model, dataset).init(0)


def test_a_model_of_other_shapes_is_refused():
    trainer = BuiltinTrainer(*CASES["softmax"])
    other = {"w": np.zeros((9, 3), np.float32), "b": np.zeros(3, np.float32)}
    with pytest.raises(
        TrainerError, match=r"'w' with shape \[9, 3\], model and data of this job make 'w' with shape \[5, 3\]"
    ):
        trainer.train(other, TrainConfig(round=1))
    with pytest.raises(DataError, match="the held-out examples have 5 features, the model has 9"):
        trainer.evaluate(other, EvalConfig(round=1))
    with pytest.raises(DataError, match="the inputs have 2 features, the model has 9"):
        trainer.predict(other, np.zeros((1, 2)))


def test_models_are_made_from_the_manifest():
    trainer = BuiltinTrainer.from_context(a_context(model="mlp", data="digits", hiddenSizes=[16, 8]))
    assert {name: array.shape for name, array in trainer.init(0).items()} == {
        "w1": (64, 16), "b1": (16,), "w2": (16, 8), "b2": (8,), "w3": (8, 10), "b3": (10,),
    }  # fmt: skip
    assert MODELS.keys() == MODEL_PARAMETERS.keys()
    with pytest.raises(SettingsError, match="'resnet' is not known; known: cnn, linear, logistic, mlp, softmax"):
        BuiltinTrainer.from_context(a_context(model="resnet"))
    with pytest.raises(SettingsError, match=r"model.parameters: hidden is not known; known: hiddenSizes"):
        BuiltinTrainer.from_context(a_context(hidden=[3]))
