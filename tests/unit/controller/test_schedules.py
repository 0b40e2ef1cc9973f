"""The learning rate of each round, and FedProx's mu, as tasks carry them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedjob_operator.api.v1alpha1 import FederatedJob
from fedjob_operator.core.acceptance import training_problem
from fedjob_operator.core.schedules import SMALLEST, learning_rate
from fedjob_operator.core.tasks import training_config


def a_spec(schedule=None, *, rate=0.8, rounds=10, **fields):
    training = {"learningRate": rate} | ({"learningRateSchedule": schedule} if schedule else {})
    spec = {
        "rounds": rounds,
        "model": {"name": "mlp"},
        "data": {"name": "digits"},
        "clientGroups": [{"name": "clients", "replicas": 2}],
        "training": training,
        **fields,
    }
    return FederatedJob.model_validate({"metadata": {"name": "a", "uid": "u"}, "spec": spec}).spec


def rates(schedule, **fields):
    spec = a_spec(schedule, **fields)
    return [learning_rate(spec, number) for number in range(1, spec.rounds + 1)]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (None, [0.8] * 5),
        ({"name": "Constant"}, [0.8] * 5),
        ({"name": "Step", "parameters": {"everyRounds": 2, "gamma": 0.5}}, [0.8, 0.8, 0.4, 0.4, 0.2]),
        ({"name": "Step", "parameters": {"everyRounds": 4}}, [0.8, 0.8, 0.8, 0.8, 0.08]),
        ({"name": "Exponential", "parameters": {"gamma": 0.5}}, [0.8, 0.4, 0.2, 0.1, 0.05]),
    ],
)
def test_the_rates_are_those_of_the_formula(schedule, expected):
    assert rates(schedule, rounds=5) == pytest.approx(expected, rel=1e-11)


def test_the_cosine_goes_from_the_rate_down_towards_the_least_over_all_rounds():
    found = rates({"name": "Cosine", "parameters": {"minLearningRate": 0.1}}, rounds=10)
    assert found[0] == 0.8
    assert found[5] == pytest.approx(0.45, rel=1e-11)
    assert found[9] == pytest.approx(0.1 + 0.35 * (1 + math.cos(math.pi * 0.9)), rel=1e-11)
    assert found == sorted(found, reverse=True)


@given(
    schedule=st.sampled_from(
        [
            {"name": "Exponential", "parameters": {"gamma": 1e-3}},
            {"name": "Step", "parameters": {"everyRounds": 1, "gamma": 1e-9}},
            {"name": "Cosine"},
        ]
    ),
    number=st.integers(1, 2000),
)
def test_a_rate_is_always_one_that_a_task_can_carry(schedule, number):
    rate = learning_rate(a_spec(schedule, rounds=1000), number)
    assert SMALLEST <= rate <= 0.8


def test_rates_have_twelve_digits_so_that_they_are_equal_everywhere():
    for rate in rates({"name": "Cosine"}, rounds=50):
        assert float(f"{rate:.12g}") == rate


def a_job(**fields):
    return FederatedJob.model_validate(
        {"metadata": {"name": "a", "uid": "u"}, "spec": a_spec(**fields).model_dump(by_alias=True, exclude_none=True)}
    )


def test_a_task_carries_the_rate_of_its_round():
    job = a_job(schedule={"name": "Exponential", "parameters": {"gamma": 0.5}})
    assert [training_config(job, round_number=number, index=0).learning_rate for number in (1, 3)] == [0.8, 0.2]


def test_a_task_carries_the_mu_of_fedprox_and_of_no_other_strategy():
    prox = training_config(a_job(strategy={"name": "FedProx", "parameters": {"mu": 0.25}}), round_number=1, index=0)
    other = training_config(a_job(strategy={"name": "FedAvg", "parameters": {"mu": 0.25}}), round_number=1, index=0)
    assert (prox.proximal_mu, other.proximal_mu) == (0.25, 0.0)
    assert "proximalMu" in prox.model_dump_json(by_alias=True)
    assert "proximalMu" not in other.model_dump_json(by_alias=True)  # a client of an older release does not know it


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        (
            {"strategy": {"name": "FedProx", "parameters": {"mu": "much"}}},
            "spec.strategy.parameters.mu: Input should be",
        ),
        ({"schedule": {"name": "Step"}}, "spec.training.learningRateSchedule.parameters.everyRounds: Field required"),
        ({"schedule": {"name": "Nosuch"}}, 'spec.training.learningRateSchedule.name: "Nosuch" is not built in'),
        ({}, None),
    ],
)
def test_what_no_client_could_be_told_is_named_by_its_field(fields, problem):
    found = training_problem(a_job(**fields))
    assert found is None if problem is None else found is not None and found.startswith(problem)
