"""A model that a cluster learned, taken away and asked by the command line."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from sklearn.datasets import load_digits

from tests.e2e.jobs import JOB_SECONDS, is_complete, job_selector
from tests.support.kubectl import wait_until
from tests.support.repository import ROOT
from tests.support.runs import fedjob

EXAMPLE = ROOT / "examples" / "42-serve-and-predict.yaml"
ROWS = 200


@pytest.fixture
def call(kubectl, tmp_path):
    """Run `fedjob` as the user of the cluster; return what it prints."""

    def run(*arguments):
        done = fedjob(*arguments, "--namespace", kubectl.namespace, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_a_model_is_submitted_asked_and_taken_away(kubectl, call, tmp_path):
    name = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))["metadata"]["name"]
    call("submit", EXAMPLE)
    status = kubectl.wait_for_job(name, is_complete, "Complete", JOB_SECONDS)
    best = status["best"]

    wait_until(
        lambda: kubectl.status(name).get("serving", {}).get("model", {}).get("digest") == best["digest"],
        "two servers of the best model",
        JOB_SECONDS,
    )
    kubectl("rollout", "status", f"deployment/{name}-serve", "--timeout=120s")
    digits = load_digits()
    inputs = (digits.data[:ROWS] / 16.0).astype(np.float32)
    np.savez(tmp_path / "rows.npz", x=inputs)
    answer = json.loads(call("predict", name, "--inputs", tmp_path / "rows.npz", "--output", "json"))
    assert answer["round"] == best["round"]
    assert np.mean(np.asarray(answer["outputs"]) == digits.target[:ROWS]) > 0.85

    model = tmp_path / "best.safetensors"
    call("model", "pull", name, "--checkpoint", "best", "--output", model)
    assert f"sha256:{hashlib.sha256(model.read_bytes()).hexdigest()}" == best["digest"]
    card = json.loads(Path(f"{model}.json").read_text(encoding="utf-8"))
    assert (card["digest"], card["round"]) == (best["digest"], best["round"])

    logs = call("logs", name, "--role", "server")
    assert "server" in logs
    kubectl("delete", "federatedjobs.fedjob.dev", name)
    wait_until(lambda: not kubectl.names("pods", job_selector(name)), "the end of the servers", 60)
