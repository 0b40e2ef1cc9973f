"""Layers that stay at the client: they never leave it, and a training that is done again ends the same."""

import numpy as np
import pytest

from fedjob_client.errors import DataError, TrainerError
from fedjob_client.personal import Folder, Memory, Personal
from fedjob_client.trainer import EvalConfig, TrainConfig, Update

EXCLUDE = ["head.*"]


class Adder:
    """Adds one to everything; a head begins with the seed."""

    num_examples = 5

    def __init__(self, *, as_delta=False):
        self.as_delta = as_delta

    def init(self, seed):
        return {
            "body": np.zeros(2, np.float32),
            "head.w": np.full(2, seed, np.float32),
            "head.b": np.zeros((), np.float64),
        }

    def train(self, params, config):
        change = {name: np.ones_like(array) for name, array in params.items()}
        if self.as_delta:
            return Update(delta=change, num_examples=5)
        return Update(params={name: params[name] + change[name] for name in params}, num_examples=5)

    def evaluate(self, params, config):
        return {name: float(np.sum(array)) for name, array in params.items()}

    def predict(self, params, inputs):
        return inputs + params["head.w"][0]


@pytest.fixture(params=["memory", "folder"])
def store(request, tmp_path):
    return Memory() if request.param == "memory" else Folder(tmp_path / "state")


def personal(store, trainer=None, exclude=EXCLUDE, seed=7):
    return Personal(trainer or Adder(), exclude, seed=seed, store=store)


def train(trainer, number):
    return trainer.train({"body": np.zeros(2, np.float32)}, TrainConfig(round=number))


def head(trainer):
    return trainer.evaluate({"body": np.zeros(2, np.float32)}, EvalConfig(round=0))["head.w"] / 2


def test_the_initial_model_has_only_what_is_shared(store):
    assert list(personal(store).init(7)) == ["body"]


@pytest.mark.parametrize("as_delta", [False, True], ids=["params", "delta"])
def test_an_update_has_only_what_is_shared(store, as_delta):
    update = train(personal(store, Adder(as_delta=as_delta)), 1)
    arrays = update.delta if as_delta else update.params
    assert list(arrays) == ["body"]
    assert update.num_examples == 5


@pytest.mark.parametrize("as_delta", [False, True], ids=["params", "delta"])
def test_excluded_layers_begin_with_the_jobs_seed_and_go_on_from_training_to_training(store, as_delta):
    trainer = personal(store, Adder(as_delta=as_delta))
    assert head(trainer) == 7
    train(trainer, 1)
    train(trainer, 4)
    assert head(trainer) == 9


def test_a_round_that_is_trained_again_begins_where_it_began(store):
    trainer = personal(store)
    train(trainer, 1)
    train(trainer, 2)
    train(trainer, 2)
    assert head(trainer) == 9


def test_a_model_of_an_earlier_round_forgets_what_came_after(store):
    trainer = personal(store)
    for number in (1, 2, 3):
        train(trainer, number)
    train(trainer, 3)
    assert list(store.rounds()) == [2, 3]
    train(trainer, 2)  # the round before was taken back; what was trained before it is gone, so it begins anew
    assert list(store.rounds()) == [2]


def test_a_new_process_goes_on_with_what_a_folder_holds(tmp_path):
    train(personal(Folder(tmp_path)), 1)
    assert head(personal(Folder(tmp_path))) == 8
    assert [file.name for file in tmp_path.iterdir()] == ["1.safetensors"]


def test_types_and_scalars_survive_the_folder(tmp_path):
    train(personal(Folder(tmp_path)), 1)
    kept = Folder(tmp_path).load(1)
    assert {name: (array.dtype, array.shape) for name, array in kept.items()} == {
        "head.w": (np.float32, (2,)),
        "head.b": (np.float64, ()),
    }


def test_a_damaged_file_is_named(tmp_path):
    train(personal(Folder(tmp_path)), 1)
    (tmp_path / "1.safetensors").write_bytes(b"something else")
    with pytest.raises(DataError, match=r"1\.safetensors.*remove it"):
        train(personal(Folder(tmp_path)), 2)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "state").write_text("a file")
    with pytest.raises(DataError, match=r"state.*cannot be written"):
        train(personal(Folder(tmp_path / "state")), 1)


def test_a_pattern_that_matches_nothing_is_named(store):
    with pytest.raises(TrainerError, match=r"'haed\.\*' matches none of the tensors \['body', 'head\.w', 'head\.b'\]"):
        personal(store, exclude=["head.w", "haed.*"]).init(7)


def test_not_everything_can_be_excluded(store):
    with pytest.raises(TrainerError, match="leaves no tensor"):
        personal(store, exclude=["*"]).init(7)


def test_a_trainer_that_loses_an_excluded_layer_is_named(store):
    class Loser(Adder):
        def train(self, params, config):
            return Update(params={"body": params["body"]}, num_examples=5)

    with pytest.raises(TrainerError, match=r"no \['head\.b', 'head\.w'\].*model\.exclude"):
        train(personal(store, Loser()), 1)


def test_what_a_trainer_says_of_itself_is_still_said(store):
    assert personal(store).num_examples == 5
    assert not hasattr(personal(store), "num_test_examples")


def test_predictions_are_made_with_the_clients_own_layers(store):
    trainer = personal(store)
    train(trainer, 1)
    assert trainer.predict({"body": np.zeros(2, np.float32)}, np.zeros(1)).tolist() == [8]
