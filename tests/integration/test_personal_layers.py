"""Layers that stay at the client, in a whole job of real processes, also when a client is killed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from fedjob_protocol.weights import decode
from tests.support.repository import ROOT
from tests.support.runs import fedjob, live_run

pytestmark = pytest.mark.integration

EXAMPLE = ROOT / "examples" / "53-personal-layers" / "job.yaml"
CLIENTS = 5


def heads(folder: Path) -> dict[int, np.ndarray]:
    """Each client's own output layer after its last training."""
    found = {}
    for state in folder.glob("clients/*/client-*"):
        newest = max(state.glob("*.safetensors"), key=lambda file: int(file.stem))
        found[int(state.name.removeprefix("client-"))] = np.array(decode(newest.read_bytes())[0]["w2"])
    return found


def status_of(text: str) -> dict:
    return json.loads(text.splitlines()[-1])["status"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    done = fedjob("run", EXAMPLE, "--dir", folder / "run", "-o", "json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return status_of(done.stdout), folder / "run"


def test_the_model_has_only_what_is_shared(undisturbed):
    status, folder = undisturbed
    arrays, _ = decode((folder / "aggregator" / status["model"]["path"]).read_bytes())
    assert sorted(arrays) == ["b1", "w1"]


def test_a_prediction_with_the_shared_part_alone_says_what_it_lacks(undisturbed):
    done = fedjob("predict", undisturbed[1], cwd=undisturbed[1])
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("note: spec.model.exclude: ?2 stayed at the clients and are untrained here")


def test_every_client_has_an_output_layer_of_its_own(undisturbed):
    found = heads(undisturbed[1])
    assert sorted(found) == list(range(CLIENTS))
    assert len({head.tobytes() for head in found.values()}) == CLIENTS


def test_a_client_that_was_killed_goes_on_with_its_layers(undisturbed, tmp_path):
    status, folder = undisturbed
    manifest = shutil.copy(EXAMPLE, tmp_path)
    with live_run(Path(manifest), tmp_path / "run") as run:
        run.wait_until(lambda: run.folder.committed() >= 3, "round 3")
        run.programs()["client-1"].kill()
        assert run.finish() == 0, run.output
    final = run.folder.status()
    assert final.model is not None
    assert final.model.digest == status["model"]["digest"]
    assert {client: head.tobytes() for client, head in heads(tmp_path / "run").items()} == {
        client: head.tobytes() for client, head in heads(folder).items()
    }


def test_a_job_may_begin_with_a_whole_model_and_takes_from_it_what_is_shared(tmp_path):
    def job(name, *overrides):
        arguments = [part for override in ("spec.rounds=1", *overrides) for part in ("--set", override)]
        done = fedjob("run", EXAMPLE, "--dir", tmp_path / name, "-o", "json", *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return tmp_path / name / "aggregator" / "checkpoints"

    whole = job("whole", "spec.model.exclude=[]") / "round-000001.safetensors"
    assert sorted(decode(whole.read_bytes())[0]) == ["b1", "b2", "w1", "w2"]
    first = job("personal", f"spec.model.initFrom={{file: {whole}}}") / "round-000000.safetensors"
    arrays, given = decode(first.read_bytes())[0], decode(whole.read_bytes())[0]
    assert sorted(arrays) == ["b1", "w1"]
    assert all(np.array_equal(arrays[name], given[name]) for name in arrays)
