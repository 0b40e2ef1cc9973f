"""The convolutional network: the fast one against the definition, whoever computes; shapes that do not fit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjob_client.errors import DataError, SettingsError, TrainerError
from fedjob_client.models.builtin import BuiltinTrainer
from fedjob_client.models.cnn import Cnn, convolution_work
from fedjob_client.models.cnn_compiled import CompiledCnn
from fedjob_client.models.team import Team
from fedjob_client.trainer import EvalConfig, TrainConfig
from fedjob_protocol.builtin import CnnParameters
from tests.unit.client.builders import a_classification, a_context, some_images

ONE, THREE = Team(1), Team(3)


def some_params(model, image, classes, seed):
    generator = np.random.default_rng(seed)
    params = model.init(generator, image, classes)
    return {
        name: array + generator.normal(scale=0.1, size=array.shape).astype(np.float32) for name, array in params.items()
    }


def gradient_of(model, params, x, y):
    out = {name: np.full_like(array, np.nan) for name, array in params.items()}
    return out, model.gradient(params, x, y, out)


@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(1, 40),
    height=st.integers(4, 13),
    width=st.integers(4, 13),
    channels=st.integers(1, 3),
    layers=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    kernel=st.sampled_from([1, 3, 5, 7]),
    seed=st.integers(0, 100),
)
def test_the_compiled_network_agrees_with_the_definition(count, height, width, channels, layers, kernel, seed):
    parameters = CnnParameters(channels=layers, kernel_size=kernel, hidden_size=7)
    definition, compiled = Cnn(parameters), CompiledCnn(parameters, ONE)
    image = (height, width, channels)
    params = some_params(definition, image, 4, seed)
    generator = np.random.default_rng(seed)
    # Few different pixels, so that poolings meet ties.
    x = generator.integers(0, 3, size=(count, *image)).astype(np.float32)
    y = generator.integers(0, 4, size=count)
    expected, sums = gradient_of(definition, params, x, y)
    found, compiled_sums = gradient_of(compiled, params, x, y)
    assert compiled_sums.loss == pytest.approx(sums.loss, rel=1e-4, abs=1e-4)
    assert compiled.score(params, x, y).loss == pytest.approx(sums.loss, rel=1e-4, abs=1e-4)
    assert np.abs(compiled.outputs(params, x) - definition.outputs(params, x)).max() <= 1e-4
    for name, array in expected.items():
        assert np.abs(found[name] - array).max() <= 1e-5 * max(1.0, float(np.abs(array).max())), name


def test_the_bits_do_not_depend_on_the_number_of_threads_nor_on_what_was_computed_before():
    parameters = CnnParameters(channels=(8, 16), kernel_size=5, hidden_size=32)
    model = Cnn(parameters)
    params = some_params(model, (28, 28, 1), 10, 1)
    generator = np.random.default_rng(2)
    x, y = generator.random((50, 28, 28, 1), dtype=np.float32), generator.integers(0, 10, size=50)
    alone, together = CompiledCnn(parameters, ONE), CompiledCnn(parameters, THREE)
    first, _ = gradient_of(alone, params, x, y)
    gradient_of(together, params, x[:7], y[:7])
    gradient_of(together, params, 1 - x, y)
    second, _ = gradient_of(together, params, x, y)
    assert all(np.array_equal(first[name], second[name]) for name in params)


@pytest.mark.parametrize("kind", ["definition", "compiled"])
def test_a_large_batch_has_the_gradient_of_its_blocks_together(kind, monkeypatch):
    parameters = CnnParameters(channels=(2, 3), kernel_size=3, hidden_size=4)
    model = Cnn(parameters) if kind == "definition" else CompiledCnn(parameters, ONE)
    params = some_params(model, (6, 6, 1), 3, 4)
    generator = np.random.default_rng(5)
    x, y = generator.random((23, 6, 6, 1), dtype=np.float32), generator.integers(0, 3, size=23)
    whole, sums = gradient_of(model, params, x, y)
    monkeypatch.setattr(type(model), "block_images", 5)
    parts, parts_sums = gradient_of(model, params, x, y)
    assert parts_sums.loss == pytest.approx(sums.loss, rel=1e-6)
    assert parts_sums.correct == sums.correct
    for name, array in whole.items():
        assert np.abs(parts[name] - array).max() <= 1e-6, name


def test_large_trainings_and_evaluations_use_the_compiled_network_and_small_ones_do_not(monkeypatch):
    parameters = CnnParameters(channels=(2, 3), kernel_size=3, hidden_size=4)
    dataset = some_images(examples=16, image=(8, 8, 1))
    trainer = BuiltinTrainer(Cnn(parameters), dataset)
    config = TrainConfig(round=1, epochs=2, batch_size=8, learning_rate=0.05)
    small = trainer.train(trainer.init(1), config).params
    assert "_compiled_cnn" not in vars(trainer)
    monkeypatch.setattr("fedjob_client.models.builtin.COMPILED_CNN_WORK", 1)
    large = trainer.train(trainer.init(1), config).params
    assert "_compiled_cnn" in vars(trainer)
    assert all(np.abs(small[name] - large[name]).max() < 1e-5 for name in small)
    assert trainer.evaluate(large, EvalConfig(round=1))["loss"] == pytest.approx(
        BuiltinTrainer(Cnn(parameters), dataset).evaluate(small, EvalConfig(round=1))["loss"], rel=1e-4
    )


def test_the_default_network_is_the_one_of_the_paper():
    model = Cnn(CnnParameters())
    params = model.init(np.random.default_rng(0), (28, 28, 1), 10)
    assert sum(array.size for array in params.values()) == 1_663_370
    assert convolution_work(params, (28, 28, 1)) == 28 * 28 * 25 * 32 + 14 * 14 * 25 * 32 * 64
    colours = model.init(np.random.default_rng(0), (32, 32, 3), 10)
    assert {name: array.shape for name, array in colours.items() if name.startswith("w")} == {
        "w1": (5, 5, 3, 32), "w2": (5, 5, 32, 64), "w3": (8 * 8 * 64, 512), "w4": (512, 10),
    }  # fmt: skip


def test_the_digits_are_images_that_it_learns():
    trainer = BuiltinTrainer.from_context(a_context(model="cnn", channels=[4, 8], kernelSize=3, hiddenSize=32))
    config = TrainConfig(round=1, epochs=8, batch_size=16, learning_rate=0.2)
    trained = trainer.train(trainer.init(3), config).params
    assert trainer.evaluate(trained, EvalConfig(round=1))["accuracy"] > 0.9
    outputs = trainer.predict(trained, trainer.dataset.test.x[:5])
    assert outputs.shape == (5, 10)
    assert np.array_equal(outputs, trainer.predict(trained, trainer.dataset.test.x[:5].reshape(5, 8, 8, 1)))


def test_examples_that_are_no_images_are_refused_before_training():
    trainer = BuiltinTrainer(Cnn(CnnParameters()), a_classification())
    with pytest.raises(DataError, match=r"images \(height, width, channels\) are needed, .* the shape \(5,\)"):
        trainer.init(0)
    tiny = BuiltinTrainer(Cnn(CnnParameters()), some_images(image=(3, 8, 1)))
    with pytest.raises(DataError, match="at least 4 x 4 pixels are needed, these have 3 x 8"):
        tiny.init(0)


def test_a_model_for_other_images_is_refused_and_both_shapes_are_named():
    parameters = CnnParameters(channels=(2, 3), kernel_size=3, hidden_size=4)
    trainer = BuiltinTrainer(Cnn(parameters), some_images(image=(8, 8, 1)))
    other = BuiltinTrainer(Cnn(parameters), some_images(image=(8, 8, 3))).init(0)
    with pytest.raises(
        TrainerError, match=r"'w1' with shape \[3, 3, 3, 2\], .* make 'w1' with shape \[3, 3, 1, 2\]: one of"
    ):
        trainer.train(other, TrainConfig(round=1))
    with pytest.raises(DataError, match=r"the held-out examples are images of 8 x 8 x 1 .*\(3, 3, 3, 2\)"):
        trainer.evaluate(other, EvalConfig(round=1))
    with pytest.raises(DataError, match=r"the inputs have 7 values, the model takes images \(8, 8, 1\)"):
        trainer.predict(trainer.init(0), np.zeros((2, 7)))


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ({"kernelSize": 4}, "kernelSize: Value error, an odd number is needed"),
        ({"channels": [8]}, "channels.1: Field required"),
        ({"channels": [0, 8]}, "channels.0: Input should be greater than or equal to 1"),
        ({"hiddenSizes": [64]}, "hiddenSizes is not known; known: channels, hiddenSize, kernelSize"),
    ],
)
def test_parameters_that_make_no_network_are_refused(parameters, complaint):
    with pytest.raises(SettingsError, match=complaint):
        BuiltinTrainer.from_context(a_context(model="cnn", **parameters))


def test_a_team_does_every_task_and_tells_what_one_of_them_raised():
    done = []

    def fail(thread):
        raise ValueError(f"in thread {thread}")

    with pytest.raises(ValueError, match="in thread 1"):
        THREE.run([done.append, fail, done.append])
    assert sorted(done) == [0, 2]
