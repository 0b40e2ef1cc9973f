"""A run begins with a checkpoint of another run, or with a file; one of another architecture is refused."""

import json

import pytest

from fedjob_protocol.layout import checkpoint_name
from fedjob_protocol.weights import decode
from tests.support.repository import ROOT
from tests.support.runs import Folder, fedjob, manifest, write_manifest

EXAMPLE = ROOT / "examples/40-warm-start"
CLIENTS = [{"name": "clients", "replicas": 2}]
DIGITS = {"name": "digits", "partition": {"scheme": "IID"}, "maxTrainSamples": 300}


def run(folder, file, *overrides):
    arguments = [part for override in overrides for part in ("--set", override)]
    return fedjob("run", file, "-o", "json", *arguments, cwd=folder)


def final(done):
    return json.loads(done.stdout.splitlines()[-1])


def params_of(path):
    return decode(path.read_bytes())[0]


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A folder with a finished run of the example's first job, in three rounds."""
    folder = tmp_path_factory.mktemp("first")
    done = run(folder, EXAMPLE / "first.yaml", "spec.rounds=3", "spec.clientGroups[0].replicas=2")
    assert done.returncode == 0, done.stderr
    return folder


def second(folder, **origin):
    spec = {"rounds": 1, "clientGroups": CLIENTS, "data": DIGITS}
    model = {"name": "mlp", "parameters": {"hiddenSizes": [32]}, "initFrom": origin}
    (folder / "second").mkdir(exist_ok=True)
    return write_manifest(folder / "second", manifest("second", model=model, **spec))


def test_the_example_begins_where_the_first_job_was_best(first):
    done = run(first, EXAMPLE / "second.yaml", "spec.rounds=1", "spec.clientGroups[0].replicas=2")
    assert done.returncode == 0, done.stderr
    begun, before = final(done)["status"], Folder(first / "runs/first").status()
    assert begun["origin"]["digest"] == before.best.digest
    assert begun["origin"]["uid"] == Folder(first / "runs/first").document()["metadata"]["uid"]
    accuracy = next(metric["value"] for metric in begun["metrics"] if metric["name"] == "accuracy")
    assert accuracy > before.best.value - 0.1, "it goes on, and does not begin anew"
    initial = params_of(first / "runs/second/aggregator" / checkpoint_name(0))
    best = params_of(first / "runs/first/aggregator" / checkpoint_name(before.best.round))
    assert initial.keys() == best.keys()
    assert all((initial[name] == best[name]).all() for name in best)


def test_a_round_that_is_kept_can_be_named_and_one_that_is_not_fails_with_what_there_is(first):
    kept = run(first, second(first, federatedJob={"name": "first", "checkpoint": "Round", "round": 2}))
    assert kept.returncode == 0, kept.stderr
    assert final(kept)["status"]["origin"]["round"] == 2
    gone = run(first, second(first, federatedJob={"name": "first", "checkpoint": "Round", "round": 0}))
    assert gone.returncode == 1
    status = final(gone)["status"]
    assert status["reason"] == "InitialModelLost"
    assert "does not keep the checkpoint of round 0; it has round 2 and 3" in status["message"]


def test_a_run_that_is_not_there_fails_at_once_and_says_where_was_looked(first):
    done = run(first, second(first, federatedJob={"name": "nobody"}))
    assert done.returncode == 1
    assert "there is no run of nobody in" in final(done)["status"]["message"]


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        ('{"hiddenSizes": [16]}', "tensor 'b1' has shape [32], [16] is expected"),
        ('{"hiddenSizes": [32, 8]}', "tensors are missing"),
    ],
)
def test_a_checkpoint_of_another_architecture_is_refused_with_the_first_tensor_that_differs(first, model, complaint):
    file = second(first, federatedJob={"name": "first"})
    done = run(first, file, f"spec.model.parameters={model}")
    status = final(done)["status"]
    assert (done.returncode, status["reason"]) == (1, "ArchitectureMismatch"), done.stderr
    assert complaint in status["message"]
    assert status["rounds"]["committed"] == -1


def test_a_file_is_held_against_the_architecture_too(first):
    path = first / "runs/first/aggregator" / checkpoint_name(3)
    good = run(first, second(first, file=str(path)))
    assert good.returncode == 0, good.stderr
    bad = run(first, second(first, file=str(path)), 'spec.model.parameters={"hiddenSizes": [16]}')
    assert final(bad)["status"]["reason"] == "ArchitectureMismatch"
