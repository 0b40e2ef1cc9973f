"""`fedjob run` and its neighbours as a user meets them: exit codes, lines, JSON, folders, follow-up commands."""

import json
import platform
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from fedjob.__main__ import cli
from tests.support.runs import (
    REPOSITORY,
    RUN_SECONDS,
    Folder,
    assert_gone,
    environment,
    fedjob,
    live_run,
    manifest,
    write_manifest,
)

SMALL = manifest(
    "small",
    rounds=3,
    seed=5,
    model={"name": "softmax"},
    data={"name": "digits", "partition": {"scheme": "IID"}, "maxTrainSamples": 300},
    training={"epochs": 2},
    clientGroups=[{"name": "clients", "replicas": 2}],
    objective={"metric": "accuracy", "mode": "Max"},
)


def with_trainer(folder: Path, **spec: object) -> Path:
    """A manifest whose trainer lies beside it."""
    shutil.copy(REPOSITORY / "tests" / "support" / "misbehaving.py", folder)
    group = {"name": "clients", "replicas": 2, "trainer": "misbehaving:Misbehaving"}
    return write_manifest(
        folder, manifest("own", **{"rounds": 2, "model": {"name": "any"}, "clientGroups": [group], **spec})
    )


def assert_runs_as_printed(command: str, folder: Path) -> str:
    """Run a command exactly as it was printed."""
    done = subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, list[str]]:
    """Folder and output of a small job that was run without ``--dir``."""
    folder = tmp_path_factory.mktemp("small")
    done = fedjob("run", write_manifest(folder, SMALL), cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout.splitlines()


def test_a_finished_job_has_printed_a_line_for_each_round_its_model_and_its_digest(finished):
    folder, lines = finished
    rounds = [line for line in lines if line.startswith("round ")]
    assert [line.split()[1] for line in rounds] == ["1/3", "2/3", "3/3"]
    assert all("accuracy 0." in line and "loss " in line for line in rounds)
    assert f"digest: {Folder(folder / 'runs' / 'small').status().model.digest}" in lines
    (model,) = [line.removeprefix("model: ") for line in lines if line.startswith("model: ")]
    assert (folder / model).is_file()


def test_the_round_log_says_what_computed_each_update(finished):
    folder, _ = finished
    records = Folder(folder / "runs" / "small").rounds()
    (machine,) = {item.machine for record in records for item in record.contributors}
    assert machine.endswith(", threads 1")


@pytest.mark.skipif(platform.machine() not in {"x86_64", "AMD64"}, reason="names of x86-64 kernels")
def test_other_kernels_of_the_linear_algebra_are_told_apart_in_the_round_log(tmp_path):
    file = write_manifest(tmp_path, SMALL)
    said = set()
    for kernels in ("Nehalem", "Prescott"):  # any x86-64 processor has their instructions
        done = fedjob("run", file, "--dir", tmp_path / kernels, cwd=tmp_path, OPENBLAS_CORETYPE=kernels)
        assert done.returncode == 0, done.stdout + done.stderr
        said |= {item.machine for record in Folder(tmp_path / kernels).rounds() for item in record.contributors}
    assert len(said) == 2, said


def test_the_three_commands_that_a_finished_job_prints_run_as_printed(finished):
    folder, lines = finished
    commands = [line.strip() for line in lines[lines.index("next:") + 1 :]]
    assert len(commands) == 3
    table, shown, predicted = [assert_runs_as_printed(command, folder) for command in commands]
    assert len([line for line in table.splitlines() if line.strip()[:1].isdigit()]) == 4
    assert Folder(folder / "runs" / "small").status().model.digest in shown
    assert "right" in predicted


def test_a_folder_that_holds_a_run_is_not_overwritten(finished):
    folder, _ = finished
    job = folder / "runs" / "small" / "job.json"
    before = job.read_bytes()
    again = fedjob("run", "job.yaml", "--dir", "runs/small", cwd=folder)
    assert (again.returncode, job.read_bytes()) == (2, before)
    assert "runs/small holds a run already" in again.stderr


def test_nothing_is_resumed_from_nothing(tmp_path):
    done = fedjob("run", write_manifest(tmp_path, SMALL), "--dir", tmp_path / "other", "--resume", cwd=tmp_path)
    assert done.returncode == 2
    assert "--resume" in done.stderr
    assert not (tmp_path / "other").exists()


def test_a_second_run_gets_a_folder_of_its_own_and_resume_shows_the_newest_again(finished):
    """Its output is JSON: the last line of standard output is the final object, and text goes elsewhere."""
    folder, _ = finished
    done = fedjob("run", "job.yaml", "-o", "json", "--set", "spec.rounds=2", cwd=folder)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    document = json.loads(line)
    assert document["spec"]["rounds"] == 2
    assert document["status"]["phase"] == "Complete"
    assert document["status"]["rounds"] == {"committed": 2, "total": 2}
    assert "round 2/2" in done.stderr
    assert sorted(path.name for path in (folder / "runs").iterdir()) == ["small", "small-2"]
    resumed = fedjob("run", "job.yaml", "--resume", "--set", "spec.rounds=2", cwd=folder)
    assert resumed.returncode == 0, resumed.stderr
    assert f"digest: {document['status']['model']['digest']}" in resumed.stdout.splitlines()


def test_a_trainer_that_raises_fails_the_job_and_is_named_with_its_message_and_its_log(tmp_path):
    file = with_trainer(tmp_path, training={"parameters": {"1": "raises"}}, roundPolicy={"maxAttempts": 1})
    done = fedjob("run", file, "--dir", tmp_path / "run", cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    status = Folder(tmp_path / "run").status()
    assert (status.phase, status.reason) == ("Failed", "TrainerError")
    assert "client 1" in status.message or "clients-1" in status.message
    assert "the scanner is broken" in status.message
    log = Folder(tmp_path / "run").log("client-1")
    assert "Traceback" in log
    assert "no batch today" in log
    assert str(tmp_path / "run" / "logs") in done.stdout
    assert Folder(tmp_path / "run").committed() == 0


def test_a_trainer_beside_the_manifest_trains_from_any_folder(tmp_path):
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    project.mkdir()
    elsewhere.mkdir()
    done = fedjob("run", with_trainer(project), "--dir", tmp_path / "run", cwd=elsewhere)
    assert done.returncode == 0, done.stdout + done.stderr
    assert Folder(tmp_path / "run").rounds()[-1].examples == 10 + 11


def test_the_manifest_that_init_writes_is_valid_and_runs(tmp_path):
    assert fedjob("init", cwd=tmp_path).returncode == 0
    assert CliRunner().invoke(cli, ["validate", str(tmp_path / "job.yaml")]).exit_code == 0
    done = fedjob("run", "job.yaml", "--set", "spec.rounds=1", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_is_left_when_a_job_is_over(tmp_path):
    with live_run(write_manifest(tmp_path, SMALL), tmp_path / "run") as run:
        programs = {"aggregator", "client-0", "client-1", "evaluator"}
        run.wait_until(lambda: set(run.programs()) == programs, "all programs")
        children = run.children()
        assert run.finish() == 0, run.output
        assert_gone(children)


NEVER_READY = """
import threading
import misbehaving

class NeverReady(misbehaving.Misbehaving):
    def __init__(self, context):
        super().__init__(context)
        if context.index == 2:
            threading.Event().wait()
"""


def test_a_client_that_is_late_is_left_out_where_late_joiners_are_refused(tmp_path: Path) -> None:
    (tmp_path / "never_ready.py").write_text(NEVER_READY, encoding="utf-8")
    file = with_trainer(
        tmp_path,
        clientGroups=[{"name": "clients", "replicas": 3, "trainer": "never_ready:NeverReady"}],
        roundPolicy={"clientsPerRound": 2},
        minClients=2,
        joinWaitSeconds=0,
        lateJoiners="Refuse",
        evaluation={"modes": []},
    )
    done = fedjob("run", file, "--dir", tmp_path / "run", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = Folder(tmp_path / "run")
    assert folder.status().clients.late_indices == (2,)
    assert [[item.client for item in record.contributors] for record in folder.rounds()[1:]] == [[0, 1]] * 2
