"""The command line against a real API server: submit, list, watch, suspend, resume, predict, model pull."""

import json
import os
import subprocess

import pytest

from tests.support.cluster.cluster import eventually
from tests.support.cluster.jobs import a_job, a_steered_job
from tests.support.cluster.pod_proxy import install
from tests.support.cluster.steered import hold_file
from tests.support.runs import FEDJOB, PROGRAMS, environment

COMMAND_SECONDS = 120.0


@pytest.fixture
def call(cluster, home, tmp_path):
    """Run a command as a user who has kubectl and a kubeconfig whose context is in the test's namespace."""
    config = cluster.server.kubeconfig(tmp_path / "user.kubeconfig", namespace=home)
    kubectl = install(tmp_path / "bin", cluster.server.assets / "kubectl")

    def run(*arguments, program=FEDJOB):
        variables = environment(KUBECONFIG=str(config))
        variables["PATH"] = f"{PROGRAMS}{os.pathsep}{kubectl}{os.pathsep}{variables['PATH']}"
        return subprocess.run(
            [program, *map(str, arguments)],
            cwd=tmp_path,
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )

    return run


def written(folder, document):
    file = folder / "job.yaml"
    file.write_text(json.dumps(document))
    return file


def test_a_job_from_its_submission_to_its_model(cluster, home, call, tmp_path):
    serve = {"serve": {"replicas": 1}, "evaluation": {"modes": ["Evaluator"]}}
    document = a_job("j", rounds=2, objective={"metric": "loss", "mode": "Min"}, **serve)

    done = call("submit", written(tmp_path, document), "--set", "spec.rounds=3", "--watch")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "federatedjob.fedjob.dev/j created"
    assert [line.split()[1] for line in lines if line.startswith("round ")] == ["1/3", "2/3", "3/3"]
    assert lines[-1] == "Complete: all 3 rounds are committed"

    listed = call("list")
    assert listed.stdout.split()[:2] == ["NAME", "STATE"]
    assert "Complete" in listed.stdout
    again = call("submit", tmp_path / "job.yaml")
    assert (again.returncode, "already exists" in again.stderr) == (1, True)

    status = cluster.status(home, "j")
    pulled = call("model", "pull", "j", "-n", home, "--checkpoint", "best", "--output", tmp_path / "m.safetensors")
    assert pulled.returncode == 0, pulled.stderr
    card = json.loads((tmp_path / "m.safetensors.json").read_text())
    assert card["digest"] == status["best"]["digest"]
    assert [link["round"] for link in card["chain"]] == list(range(status["best"]["round"] + 1))

    told = call("rounds", "j", "-n", home, "--tensorboard", tmp_path / "curves", "-o", "json")
    assert told.returncode == 0, told.stderr
    assert [json.loads(line)["round"] for line in told.stdout.splitlines()] == [0, 1, 2, 3]
    (curves,) = (tmp_path / "curves").iterdir()
    assert b"metrics/loss" in curves.read_bytes()

    eventually(lambda: cluster.pods(home, "j", "server"), "a server")
    (tmp_path / "rows.csv").write_text("1,0,0\n0,1,0\n")

    def asked():
        predicted = call("predict", "j", "--inputs", "rows.csv", "-o", "json", program=str(PROGRAMS / "kubectl-fedjob"))
        return predicted if predicted.returncode == 0 else None

    answer = json.loads(eventually(asked, "a server that is ready").stdout)
    assert (len(answer["outputs"]), answer["round"]) == (2, status["best"]["round"])


def test_a_job_is_suspended_and_resumed(cluster, home, call, folder, tmp_path):
    hold_file(folder, 2).touch()
    assert call("submit", written(tmp_path, a_steered_job("j", folder))).returncode == 0
    cluster.until_committed(home, "j", 1)
    assert call("suspend", "j").stdout == "federatedjob.fedjob.dev/j patched\n"
    cluster.until_phase(home, "j", "Suspended")
    hold_file(folder, 2).unlink()
    assert call("resume", "j").returncode == 0
    cluster.until_phase(home, "j", "Complete")


def test_what_is_wrong_is_one_line_and_nothing_is_made(cluster, home, call, tmp_path):
    wrong = call("submit", written(tmp_path, a_job("j", rounds=2, clientPods="PerRound", lateJoiners="Refuse")))
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("spec.lateJoiners: Refuse, but with clientPods PerRound")
    assert cluster.api.list("federatedjobs", home) == []
    absent = call("watch", "nobody")
    assert absent.returncode == 1
    assert absent.stderr.startswith("fedjob: kubectl: Error from server (NotFound)")
