"""Clients as they are written for Flower; these need no Flower: the real library is in `tests/adapters`."""

import numpy as np
import pytest

from fedjob_client.errors import TrainerError
from fedjob_client.flower import flower_trainer
from fedjob_client.trainer import EvalConfig, TrainConfig
from tests.unit.client.builders import a_context


class Counting:
    """A float32 array, a float16 array, and a counter."""

    def __init__(self):
        self.given = []
        self.configs = []

    def get_parameters(self, config):
        return [np.zeros(2, np.float32), np.array(3), np.ones(2, np.float16)]

    def fit(self, parameters, config):
        self.given.append([(array.dtype.name, array.tolist()) for array in parameters])
        self.configs.append(config)
        floats, counter, halves = parameters
        return [floats + 1, counter + 1, halves], 4, {"loss": 0.5, "note": "not a number"}

    def evaluate(self, parameters, config):
        return 0.25, 4, {"accuracy": 1.0}


def made(source):
    return flower_trainer(source)(a_context(index=2, clients=5, hidden=3))


def test_floating_point_arrays_are_the_model():
    params = made(Counting).init(1)
    assert {name: (array.dtype.name, array.tolist()) for name, array in params.items()} == {
        "00000": ("float32", [0, 0]),
        "00002": ("float32", [1, 1]),
    }


def test_a_client_gets_its_own_types_and_its_own_counters_back():
    client = Counting()
    trainer = made(client)
    params = trainer.init(1)
    for number in (1, 2):
        trainer.train(params, TrainConfig(round=number))
    assert client.given == [
        [("float32", [0, 0]), ("int64", 3), ("float16", [1, 1])],
        [("float32", [0, 0]), ("int64", 4), ("float16", [1, 1])],
    ]


def test_what_was_not_touched_adds_exactly_nothing():
    trainer = made(Counting)
    params = trainer.init(1)
    params["00002"] = np.full(2, 0.1, np.float32)  # no float16
    update = trainer.train(params, TrainConfig(round=1))
    assert update.delta["00000"].tolist() == [1, 1]
    assert update.delta["00002"].tolist() == [0, 0]
    assert (update.num_examples, update.metrics) == (4, {"loss": 0.5})


def test_fit_is_told_of_round_and_training():
    client = Counting()
    trainer = made(client)
    config = TrainConfig(round=3, epochs=2, batch_size=8, learning_rate=0.5, seed=9, parameters={"mu": 0.1})
    trainer.train(trainer.init(1), config)
    assert client.configs == [
        {
            "server_round": 3,
            "local_epochs": 2,
            "epochs": 2,
            "batch_size": 8,
            "learning_rate": 0.5,
            "lr": 0.5,
            "seed": 9,
            "mu": 0.1,
        }
    ]


def test_the_loss_of_evaluate_is_a_metric():
    trainer = made(Counting)
    assert trainer.evaluate(trainer.init(1), EvalConfig(round=1)) == {"loss": 0.25, "accuracy": 1.0}


def test_a_function_of_a_clients_number_makes_the_client():
    def client_fn(cid):
        client = Counting()
        client.number = cid
        return client

    assert made(client_fn)._client.number == "2"


def test_what_draws_from_the_usual_generators_draws_the_same_again():
    def drawn():
        return np.random.rand(2).astype(np.float32)  # noqa: NPY002 - as people write it

    class Drawing(Counting):
        def fit(self, parameters, config):
            return [parameters[0] + drawn(), *parameters[1:]], 4, {}

    first, again = (made(Drawing) for _ in range(2))
    drawn()
    one, two = (trainer.train(trainer.init(1), TrainConfig(round=1, seed=5)) for trainer in (first, again))
    assert np.array_equal(one.delta["00000"], two.delta["00000"])
    assert one.delta["00000"].any()


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ([np.zeros(2, np.float32)], r"fit returned list; \(parameters, number of examples, metrics\) is needed"),
        (([np.zeros(3, np.float32)], 4, {}), "fit returned 1 arrays"),
        (([np.zeros(2, np.float32)], 4, None), "fit returned NoneType as metrics"),
    ],
)
def test_what_fit_must_not_return_is_named(answer, told):
    class Wrong(Counting):
        def get_parameters(self, config):
            return [np.zeros(2, np.float32)]

        def fit(self, parameters, config):
            return answer

    trainer = made(Wrong)
    with pytest.raises(TrainerError, match=told):
        trainer.train(trainer.init(1), TrainConfig(round=1))


def test_a_client_without_parameters_is_told_what_it_needs():
    class Without(Counting):
        def get_parameters(self, config):
            return []

    with pytest.raises(TrainerError, match="Without returns nothing from get_parameters"):
        made(Without).init(1)


def test_something_else_is_no_client():
    with pytest.raises(TrainerError, match="dict is no NumPyClient"):
        made(lambda cid: {})
