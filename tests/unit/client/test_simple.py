import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjob_client.settings import Settings
from fedjob_client.simple import Line, SimpleModel, SimpleTrainRequest, predict_simple, train_simple
from fedjob_protocol.errors import Refusal
from tests.unit.client.asgi import serving


def trained(index=0, **values):
    return train_simple(SimpleTrainRequest.model_validate(values), index=index)


@pytest.mark.parametrize("index", range(12))
def test_the_figures_that_the_lab_shows_hold_for_every_client(index):
    default = trained(index)
    assert default.w == pytest.approx(3.5, abs=0.05)
    assert default.b == pytest.approx(2.00, abs=0.05)
    short = trained(index, epochs=50, learning_rate=0.01)
    assert short.w == pytest.approx(3.5, abs=0.05)
    assert short.b == pytest.approx(1.27, abs=0.07)
    assert trained(index, epochs=500).b == pytest.approx(2.00, abs=0.05)


def test_the_bias_of_b_is_the_optimisers():
    limit = 2 * (1 - 0.98**50)
    assert limit == pytest.approx(1.27, abs=0.005)
    exact = trained(noise=0, num_samples=200_000, epochs=50, learning_rate=0.01)
    assert exact.b == pytest.approx(limit, abs=0.02)


def test_training_goes_on_from_w_and_b_and_both_names_of_epochs_work():
    first = trained(epochs=50)
    assert trained(num_epochs=50) == first
    second = trained(num_epochs=50, w=first.w, b=first.b)
    once = trained(epochs=100)
    assert (second.w, second.b) == pytest.approx((once.w, once.b), abs=1e-12)
    assert (trained(epochs=0, w=1.5, b=2.5).w, trained(epochs=0, w=1.5, b=2.5).b) == (1.5, 2.5)


def test_each_client_has_data_of_its_own_and_a_seed_replaces_them():
    assert trained(0).w != trained(1).w
    assert trained(0, seed=9).w == trained(1, seed=9).w
    assert trained(1) == trained(1)


def test_the_logistic_model_finds_its_truth_and_says_how_accurate_it_is():
    answer = trained(model="logistic", num_samples=20_000)
    assert answer.w == pytest.approx(1.5, abs=0.1)
    assert answer.b == pytest.approx(-0.75, abs=0.1)
    assert answer.accuracy is not None
    assert answer.accuracy > 0.85
    assert answer.num_examples == 20_000
    assert answer.noise is None


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"learning_rate": 5.0}, "diverged: a learning_rate of 5.0 is too large"),
        ({"epochs": 1_000_000, "num_samples": 1_000_000}, "ask for less"),
    ],
)
def test_too_much_is_refused(values, complaint):
    with pytest.raises(Refusal, match=complaint):
        trained(**values)


def test_predictions_of_a_line():
    outputs, probabilities = predict_simple(Line(w=2, b=1), np.array([0.0, 3.0]))
    assert outputs.tolist() == [1, 7]
    assert probabilities is None
    outputs, probabilities = predict_simple(Line(w=2, b=1, model=SimpleModel.LOGISTIC), np.array([[-3.0], [3.0]]))
    assert outputs.tolist() == [0, 1]
    assert probabilities is not None
    assert probabilities[1, 1] == pytest.approx(1 / (1 + np.exp(-7)))
    with pytest.raises(Refusal, match="a list of numbers is needed"):
        predict_simple(Line(), np.zeros((2, 2)))


async def test_curl_without_a_body_and_with_a_form_content_type():
    async with serving(Settings(index=1)) as call:
        plain = await call("POST", "/train")
        form = await call("POST", "/train", "{}", content_type="application/x-www-form-urlencoded")
        assert plain.status == form.status == 200
        assert plain.json == form.json
        assert plain.json["backend"] == "cpu"
        assert plain.json["client_index"] == 1
        assert "accuracy" not in plain.json
        predicted = await call("POST", "/predict", '{"inputs": [0]}')
        assert predicted.json == {"outputs": [plain.json["b"]], "round": None}


BAD_BODIES = [
    ("/train", "{", "no JSON"),
    ("/train", "[" * 100_000, "no JSON"),
    ("/train", b"\xff\xfe", "no JSON"),
    ("/train", "[]", "valid dictionary"),
    ("/train", '{"epochs": "many"}', "epochs: Input should be a valid integer"),
    ("/train", '{"epoch": 3}', "epoch is not known; known: w, b, epochs, learning_rate, num_samples"),
    ("/train", '{"epochs": 3, "num_epochs": 4}', "num_epochs is not known"),
    ("/train", '{"w": NaN}', "NaN is no number"),
    ("/train", '{"w": 1e999}', "w: Input should be"),
    ("/train", '{"b": -1e300}', "b: Input should be greater"),
    ("/train", '{"learning_rate": Infinity}', "Infinity is no number"),
    ("/train", '{"num_samples": 1000000000}', "num_samples: Input should be less"),
    ("/train", '{"num_samples": 0}', "num_samples"),
    ("/train", '{"model": "cnn"}', "'linear' or 'logistic'"),
    ("/train", '{"seed": -1}', "seed"),
    ("/predict", "{}", "one of them"),
    ("/predict", '{"inputs": [1], "samples": 2}', "one of them"),
    ("/predict", '{"samples": 2}', "without a job"),
    ("/predict", '{"inputs": []}', "at least one entry"),
    ("/predict", '{"inputs": {"a": 1}}', "a list with at least one"),
    ("/predict", '{"inputs": ["x"]}', "numbers are needed"),
    ("/predict", '{"inputs": [[1], [2, 3]]}', "same length"),
    ("/predict", '{"inputs": [1e999]}', "finite"),
    ("/predict", '{"inputs": [null]}', "finite"),
]


async def test_every_bad_body_is_a_problem_with_one_clear_line():
    async with serving() as call:
        await call("POST", "/train", '{"epochs": 1}')
        for path, body, complaint in BAD_BODIES:
            answer = await call("POST", path, body)
            assert answer.status == 422, body[:50]
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json["word"] == "bad-request"
            assert complaint in answer.json["detail"], (body[:50], answer.json["detail"])
            assert "\n" not in answer.json["detail"]


@settings(max_examples=60, deadline=None)
@given(
    body=st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["inputs", "w", "x"]), inner),
        max_leaves=6,
    )
)
async def test_any_json_is_answered(body):
    async with serving() as call:
        for path in ("/train", "/predict"):
            answer = await call("POST", path, json.dumps(body))
            assert answer.status in {200, 422, 503}
            assert isinstance(answer.json, dict)


async def test_predicting_before_training_says_what_to_do():
    async with serving() as call:
        answer = await call("POST", "/predict", '{"inputs": [1]}')
    assert answer.status == 503
    assert "POST /train first" in answer.json["detail"]
