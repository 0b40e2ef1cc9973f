"""The examples, and the code in the READMEs, run."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.markdown import ROOT, blocks
from tests.support.runs import fedjob

EXAMPLES = ROOT / "examples"
TWO_ROUNDS = "spec.rounds=2"
TWO_CLIENTS = "spec.clientGroups[0].replicas=2"
MNIST = Path(os.environ.get("FEDJOB_TEST_MNIST") or ROOT.parent / "shared" / "data" / "mnist")


def run_briefly(manifest: Path, folder: Path, *overrides: str, settings: dict[str, str] | None = None) -> dict:
    """Run two rounds, with further settings in the environment; return the final status."""
    arguments = [part for override in (TWO_ROUNDS, *overrides) for part in ("--set", override)]
    done = fedjob("run", manifest, "--dir", folder / "run", "-o", "json", *arguments, cwd=folder, **(settings or {}))
    assert done.returncode == 0, done.stderr
    status = json.loads(done.stdout.splitlines()[-1])["status"]
    assert (status["phase"], status["rounds"]["committed"]) == ("Complete", 2)
    return status


def accuracy(status: dict) -> float:
    return next(metric["value"] for metric in status["metrics"] if metric["name"] == "accuracy")


def test_the_minimal_example_runs(tmp_path):
    status = run_briefly(EXAMPLES / "01-minimal.yaml", tmp_path, TWO_CLIENTS)
    assert accuracy(status) > 0.5


def test_the_example_for_a_cluster_runs_here_too(tmp_path):
    status = run_briefly(EXAMPLES / "02-kubernetes.yaml", tmp_path, TWO_CLIENTS)
    assert accuracy(status) > 0.5


def test_the_trainer_of_ones_own_runs_and_predicts(tmp_path):
    status = run_briefly(EXAMPLES / "03-own-trainer/job.yaml", tmp_path, TWO_CLIENTS)
    assert accuracy(status) > 0.7
    predicted = fedjob("predict", tmp_path / "run", cwd=tmp_path)
    assert re.search(r"^\d of 8 right$", predicted.stdout, re.MULTILINE), predicted.stdout + predicted.stderr


def test_the_estimator_of_scikit_learn_runs(tmp_path):
    status = run_briefly(EXAMPLES / "51-scikit-learn/job.yaml", tmp_path, TWO_CLIENTS)
    assert accuracy(status) > 0.7


@pytest.mark.skipif(not MNIST.is_dir(), reason="no MNIST files: name their folder in FEDJOB_TEST_MNIST")
def test_the_mnist_example_runs(tmp_path):
    status = run_briefly(EXAMPLES / "04-mnist.yaml", tmp_path, TWO_CLIENTS, f"spec.data.path={MNIST}")
    assert accuracy(status) > 0.7


def test_the_example_with_standbys_runs(tmp_path):
    status = run_briefly(EXAMPLES / "06-standbys.yaml", tmp_path, TWO_CLIENTS)
    assert status["aggregator"]["replicas"] == 3


def test_the_example_with_files_of_ones_own_runs(tmp_path):
    folder = tmp_path / "05-npz"
    shutil.copytree(EXAMPLES / "05-npz", folder, ignore=shutil.ignore_patterns("data"))
    subprocess.run([sys.executable, folder / "make_data.py"], check=True)
    assert accuracy(run_briefly(folder / "job.yaml", tmp_path)) > 0.85


def test_the_example_with_an_optimizer_on_the_aggregator_runs(tmp_path):
    run_briefly(EXAMPLES / "10-server-optimizer.yaml", tmp_path, "spec.roundPolicy.clientsPerRound=2")
    state = tmp_path / "run/aggregator/checkpoints/round-000002.state.safetensors"
    shown = fedjob("model", "show", tmp_path / "run", cwd=tmp_path).stdout
    assert f"state: sha256:{hashlib.sha256(state.read_bytes()).hexdigest()}" in shown


def test_the_example_with_faulty_clients_names_them_with_the_evidence(tmp_path):
    folder = tmp_path / "11-robust"
    shutil.copytree(EXAMPLES / "11-robust", folder)
    status = run_briefly(folder / "job.yaml", tmp_path)
    assert accuracy(status) > 0.8
    for row in status["recentRounds"][1:]:
        named = {item["client"]: item for item in row["judgements"]}
        assert (row["judged"], sorted(named)) == (2, [8, 9])
        assert all(re.fullmatch(r"score [\d.e+-]+, limit [\d.e+-]+", item["evidence"]) for item in named.values())
    shown = fedjob("rounds", tmp_path / "run", cwd=tmp_path)
    assert "Rejected 8,9" in shown.stdout


def test_the_package_with_strategies_of_ones_own_is_installed_and_runs(tmp_path):
    package = tmp_path / "package"
    shutil.copytree(EXAMPLES / "12-own-strategy", package)
    build = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([sys.executable, *build, "--target", tmp_path / "site", package], check=True)
    settings = {"PYTHONPATH": str(tmp_path / "site")}
    status = run_briefly(package / "job.yaml", tmp_path, "spec.clientGroups[0].replicas=3", settings=settings)
    assert accuracy(status) > 0.5
    overrides = ["--set", "spec.strategy={name: Nesterov, parameters: {momentum: 0.3}}", "--set", TWO_ROUNDS]
    remembering = fedjob("run", package / "job.yaml", "--dir", tmp_path / "n", *overrides, cwd=tmp_path, **settings)
    assert remembering.returncode == 0, remembering.stderr
    assert (tmp_path / "n/aggregator/checkpoints/round-000002.state.safetensors").is_file()
    wrong = ["--set", "spec.strategy.parameters={step: 3}"]
    failed = fedjob("run", package / "job.yaml", "--dir", tmp_path / "w", *wrong, cwd=tmp_path, **settings)
    assert (failed.returncode, "step: is no parameter; it has steps" in failed.stdout) == (1, True), failed.stdout
    elsewhere = fedjob("run", package / "job.yaml", "--dir", tmp_path / "e", cwd=tmp_path)
    assert (elsewhere.returncode, '"GeometricMedian" is not built in' in elsewhere.stderr) == (2, True)


def test_the_manifest_of_the_readme_runs_with_the_trainer_of_the_docs(tmp_path):
    (code,) = blocks(ROOT / "docs/trainer.md", "python")
    (manifest,) = blocks(ROOT / "README.md", "yaml")
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package/client.py").write_text(code, encoding="utf-8")
    file = tmp_path / "job.yaml"
    file.write_text(manifest, encoding="utf-8")
    overrides = ["spec.clientGroups[0].trainer=my_package.client:MyTrainer", "spec.clientGroups[0].replicas=3"]
    assert accuracy(run_briefly(file, tmp_path, *overrides)) > 0.6
