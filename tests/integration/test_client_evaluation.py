"""Clients evaluate on held-out examples of their own, and tell each epoch: in their logs and in the round log."""

import re

import pytest

from tests.support.runs import Folder, fedjob, manifest, write_manifest

JOB = manifest(
    "measured",
    rounds=2,
    seed=3,
    model={"name": "softmax"},
    data={"name": "digits", "partition": {"scheme": "Dirichlet", "alpha": 0.3}},
    training={"epochs": 3, "batchSize": 32, "learningRate": 0.1},
    clientGroups=[{"name": "clients", "replicas": 3}],
    evaluation={"modes": ["Evaluator", "Clients"]},
    objective={"metric": "clients/accuracy", "mode": "Max"},
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("measured")
    done = fedjob("run", write_manifest(folder, JOB), "--dir", folder / "run", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return Folder(folder / "run")


def test_each_client_is_measured_and_the_mean_is_weighted_by_examples(run):
    for record in run.rounds()[1:]:
        parts = record.client_evaluations
        assert [item.client for item in parts] == [0, 1, 2]
        examples = sum(item.examples for item in parts)
        assert examples == record.evaluation_examples == 360, "the held-out digits, divided among the clients"
        mean = sum(item.metrics["accuracy"] * item.examples for item in parts) / examples
        assert record.metrics["clients/accuracy"] == pytest.approx(mean)
        assert record.metrics["accuracy"] == pytest.approx(mean), "the evaluator has all of the same examples"
        spread = record.spread["accuracy"]
        values = [item.metrics["accuracy"] for item in parts]
        assert (spread.clients, spread.lowest, spread.highest) == (3, min(values), max(values))
        assert spread.deviation > 0


def test_the_clients_mean_can_be_the_objective(run):
    status = run.status()
    assert status.best.value == max(record.metrics["clients/accuracy"] for record in run.rounds()[1:])


def test_each_epoch_is_in_the_clients_log_and_in_the_round_log(run):
    for record in run.rounds()[1:]:
        for item in record.contributors:
            assert [entry["epoch"] for entry in item.epochs] == [1, 2, 3]
            assert all(0 <= entry["accuracy"] <= 1 for entry in item.epochs)
            assert item.epochs[-1]["accuracy"] == pytest.approx(item.metrics["accuracy"], abs=1e-5)
    for index in range(3):
        log = (run.path / f"logs/client-{index}.log").read_text(encoding="utf-8")
        told = re.findall(r"round (\d): epoch (\d) of 3: accuracy [\d.]+, loss [\d.]+", log)
        assert told == [(str(number), str(epoch)) for number in (1, 2) for epoch in (1, 2, 3)]
