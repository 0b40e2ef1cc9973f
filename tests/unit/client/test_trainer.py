from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load as load_safetensors

from fedjob_client.errors import DataError, NonFiniteError, TrainerError
from fedjob_client.models.builtin import BuiltinTrainer
from fedjob_client.trainer import Trainer, Update, load_trainer, make_trainer, one_line
from fedjob_client.updates import body_of, check_examples, checked_params, delta_of, finite_metrics
from fedjob_protocol.digests import xxh3_of
from tests.unit.client import own_trainers
from tests.unit.client.builders import a_context

OWN = "tests.unit.client.own_trainers"


# Loading


def test_a_trainer_is_loaded_by_name():
    assert load_trainer(f"{OWN}:Bare") is own_trainers.Bare


def test_a_trainer_is_loaded_from_a_folder(tmp_path: Path):
    (tmp_path / "my_federated_trainer.py").write_text("class Mine:\n    value = 4\n")
    assert load_trainer("my_federated_trainer:Mine", str(tmp_path)).value == 4  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("reference", "complaint"),
    [
        (
            "no_such_package.module:Mine",
            "there is no module no_such_package .looked in the installed packages.; install",
        ),
        (f"{OWN}:Missing", "has no class Missing"),
        (f"{OWN}:not_callable", "has no class not_callable"),
    ],
)
def test_a_trainer_that_is_not_there_is_named(reference, complaint):
    with pytest.raises(TrainerError, match=complaint):
        load_trainer(reference)


def test_an_error_at_import_is_the_last_line_of_its_traceback(tmp_path: Path):
    (tmp_path / "my_broken_trainer.py").write_text("1 / 0\n")
    with pytest.raises(TrainerError, match="importing my_broken_trainer failed: ZeroDivisionError: division by zero"):
        load_trainer("my_broken_trainer:Mine", str(tmp_path))


def test_constructors_get_the_context_if_they_take_it():
    context = a_context()
    assert isinstance(make_trainer(own_trainers.Bare, context), own_trainers.Bare)
    assert make_trainer(own_trainers.WithContext, context).context is context  # type: ignore[attr-defined]
    assert make_trainer(own_trainers.WithOptionalContext, context).context is context  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("factory", "complaint"),
    [
        (own_trainers.Failing, "its constructor failed: ValueError: no such sensor"),
        (own_trainers.NoTrain, "no method train"),
    ],
)
def test_what_is_no_trainer_is_refused(factory, complaint):
    with pytest.raises(TrainerError, match=complaint):
        make_trainer(factory, a_context())


def test_the_data_error_of_a_constructor_stays_one():
    def factory(context):
        context.load_data()

    with pytest.raises(DataError, match="'nothing' is not known"):
        make_trainer(factory, a_context(data="nothing"))


def test_the_built_in_trainer_is_a_trainer():
    assert isinstance(make_trainer(BuiltinTrainer.from_context, a_context(model="softmax")), Trainer)


def test_an_exception_of_several_lines_is_told_whole_in_one():
    assert one_line(RuntimeError("the disk\nwas eaten\n")) == "RuntimeError: the disk was eaten"
    assert one_line(KeyError()) == "KeyError"
    long = one_line(ValueError("first " + "x" * 5000 + " last"))
    assert long.startswith("ValueError: first xxx")
    assert long.endswith("xxx last")
    assert len(long) < 1000


# Output


def a_base():
    return {"w": np.ones((2, 3), dtype=np.float32), "b": np.zeros(3, dtype=np.float32)}


def test_exactly_one_of_params_and_delta():
    with pytest.raises(TrainerError, match="exactly one"):
        Update(num_examples=1)
    with pytest.raises(TrainerError, match="exactly one"):
        Update(num_examples=1, params=a_base(), delta=a_base())


def test_params_become_a_delta_and_a_delta_stays_one():
    trained = {"b": np.full(3, 0.25), "w": np.full((2, 3), 3.0)}
    delta = delta_of(Update(params=trained, num_examples=4), a_base())
    assert {name: array.dtype for name, array in delta.items()} == {"w": np.float32, "b": np.float32}
    assert (delta["w"] == 2).all()
    assert (delta["b"] == 0.25).all()
    assert (delta_of(Update(delta=trained, num_examples=4), a_base())["w"] == 3).all()


def test_the_delta_of_a_float64_model_is_taken_in_float64():
    base = {"w": np.array([1e9])}
    delta = delta_of(Update(params={"w": np.array([1e9 + 0.5])}, num_examples=1), base)
    assert delta["w"].tolist() == [0.5]


def test_the_delta_of_a_float32_model_is_taken_in_float32_and_is_the_clients_own():
    base, trained = a_base(), a_base()
    trained["w"][0, 0] = np.float32(1.1)
    assert delta_of(Update(params=trained, num_examples=1), base)["w"][0, 0] == np.float32(1.1) - np.float32(1)
    given = delta_of(Update(delta=trained, num_examples=1), base)
    assert not np.shares_memory(given["w"], trained["w"]), "the trainer may use its array again"


@pytest.mark.parametrize(
    ("update", "complaint"),
    [
        (None, "train returned None; it has to return an Update"),
        ({"w": np.zeros(1)}, "train returned dict; it has to return an Update"),
        (Update(params={"w": np.ones((2, 3))}, num_examples=1), r"missing \['b'\], not in the model \[\]"),
        (Update(params=a_base() | {"c": np.ones(1)}, num_examples=1), r"missing \[\], not in the model \['c'\]"),
        (
            Update(params=a_base() | {"w": np.ones((3, 2))}, num_examples=1),
            r"'w' with shape \(3, 2\); the model has \(2, 3\)",
        ),
        (
            Update(params=a_base() | {"b": np.ones(3, int)}, num_examples=1),
            "'b' of type int64; float32 or float64 is needed",
        ),
        (Update(params=a_base() | {"b": np.ones(3, np.float16)}, num_examples=1), "type float16"),
        (Update(params=a_base() | {"b": [1.0, 2.0, 3.0]}, num_examples=1), "'b' as list; a numpy array is needed"),
        (Update(params={}, num_examples=1), "at least one is needed"),
        (Update(params={3: np.ones(1)}, num_examples=1), "with the key 3"),  # type: ignore[dict-item]
        (Update(params=a_base(), num_examples=0), "num_examples = 0; a whole number from 1"),
        (Update(params=a_base(), num_examples=2.5), "num_examples = 2.5"),  # type: ignore[arg-type]
        (Update(params=a_base(), num_examples=True), "num_examples = True"),
        (Update(params=a_base(), num_examples=11), "num_examples = 11, but the client announced only 10"),
    ],
)
def test_output_that_is_no_update_of_the_model_is_refused(update, complaint):
    with pytest.raises(TrainerError, match=complaint):
        delta_of(update, a_base(), announced=10)


def test_numpy_integers_count_examples():
    check_examples(np.int64(5), 10)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_and_counted(value):
    params = a_base()
    params["w"][1, :2] = value
    with pytest.raises(NonFiniteError, match="'w' with 2 of 6 values that are not finite"):
        delta_of(Update(params=params, num_examples=1), a_base())


def test_a_difference_beyond_float32_is_refused():
    with pytest.raises(NonFiniteError, match="moved 'w' by more than a float32 can hold"):
        delta_of(Update(params={"w": np.array([1e300])}, num_examples=1), {"w": np.zeros(1)})


def test_a_tensor_of_another_library_is_refused_with_the_way_out():
    class Tensor:
        def detach(self):
            raise AssertionError

    with pytest.raises(TrainerError, match=r"convert it with .detach\(\).cpu\(\).numpy\(\)"):
        checked_params({"w": Tensor()})


def test_scalars_and_transposed_arrays_are_models_too():
    params = checked_params({"w": np.arange(6.0).reshape(2, 3).T, "b": np.float32(2)})
    assert params["w"].flags.c_contiguous
    assert params["b"].shape == ()


@settings(max_examples=40, deadline=None)
@given(shapes=st.lists(st.lists(st.integers(0, 4), max_size=3), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_the_body_is_what_safetensors_reads(shapes, seed):
    generator = np.random.default_rng(seed)
    arrays = {f"t{place}": generator.normal(size=shape).astype(np.float32) for place, shape in enumerate(shapes)}
    body = body_of(checked_params(arrays))
    data = b"".join(body.blocks)
    assert body.size == len(data)
    assert body.digest == xxh3_of(data)
    read = load_safetensors(data)
    assert all(np.array_equal(read[name], array) for name, array in arrays.items())


def test_metrics_that_are_not_finite_are_left_out_by_name():
    assert finite_metrics({"loss": np.float32(0.5), "auc": float("nan")}) == ({"loss": 0.5}, ["auc"])


@pytest.mark.parametrize(
    ("metrics", "complaint"),
    [
        (None, "returned None as metrics"),
        ({f"m{i}": 1.0 for i in range(65)}, "at most 64"),
        ({"x" * 65: 1.0}, "1 to 64 characters"),
        ({"loss": "low"}, "the metric loss = str; a number is needed"),
    ],
)
def test_metrics_that_are_no_numbers_are_refused(metrics, complaint):
    with pytest.raises(TrainerError, match=complaint):
        finite_metrics(metrics)
