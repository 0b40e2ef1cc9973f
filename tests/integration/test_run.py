"""`fedjob run` and its neighbours as a user meets them: exit codes, lines, JSON, folders, follow-up commands."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

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


def test_a_finished_job_prints_its_rounds_its_model_and_three_commands_that_run_as_printed(tmp_path):
    done = fedjob("run", write_manifest(tmp_path, SMALL), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    rounds = [line for line in lines if line.startswith("round ")]
    assert [line.split()[1] for line in rounds] == ["1/3", "2/3", "3/3"]
    assert all("accuracy 0." in line and "loss " in line for line in rounds)
    status = Folder(tmp_path / "runs" / "small").status()
    assert f"digest: {status.model.digest}" in lines
    (model,) = [line.removeprefix("model: ") for line in lines if line.startswith("model: ")]
    assert (tmp_path / model).is_file()
    commands = [line.strip() for line in lines[lines.index("next:") + 1 :]]
    assert len(commands) == 3
    table, shown, predicted = [assert_runs_as_printed(command, tmp_path) for command in commands]
    assert len([line for line in table.splitlines() if line.strip()[:1].isdigit()]) == 4
    assert status.model.digest in shown
    assert "right" in predicted


def test_the_last_line_of_json_output_is_the_final_object_and_text_goes_elsewhere(tmp_path):
    done = fedjob("run", write_manifest(tmp_path, SMALL), "-o", "json", "--set", "spec.rounds=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout.splitlines()[-1])
    assert len(done.stdout.splitlines()) == 1
    assert document["status"]["phase"] == "Complete"
    assert document["status"]["rounds"] == {"committed": 2, "total": 2}
    assert document["spec"]["rounds"] == 2
    assert "round 2/2" in done.stderr


def test_a_trainer_that_raises_fails_the_job_and_is_named_with_its_last_line_and_its_log(tmp_path):
    file = with_trainer(
        tmp_path, training={"parameters": {"how": "raises", "client": 1}}, roundPolicy={"maxAttempts": 1}
    )
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


def test_a_folder_that_holds_a_run_is_not_overwritten_and_nothing_is_resumed_from_nothing(tmp_path):
    file = with_trainer(tmp_path, rounds=1)
    assert fedjob("run", file, "--dir", tmp_path / "run", cwd=tmp_path).returncode == 0
    before = (tmp_path / "run" / "job.json").read_bytes()
    again = fedjob("run", file, "--dir", tmp_path / "run", cwd=tmp_path)
    assert (again.returncode, (tmp_path / "run" / "job.json").read_bytes()) == (2, before)
    assert "holds a run already" in again.stderr
    nothing = fedjob("run", file, "--dir", tmp_path / "other", "--resume", cwd=tmp_path)
    assert nothing.returncode == 2
    assert "--resume" in nothing.stderr
    assert not (tmp_path / "other").exists()


def test_resuming_a_finished_run_shows_its_result_again(tmp_path):
    file = with_trainer(tmp_path, rounds=1)
    first = fedjob("run", file, "--dir", tmp_path / "run", cwd=tmp_path)
    again = fedjob("run", file, "--dir", tmp_path / "run", "--resume", cwd=tmp_path)
    assert again.returncode == 0, again.stdout + again.stderr
    digest = [line for line in first.stdout.splitlines() if line.startswith("digest: ")]
    assert digest
    assert [line for line in again.stdout.splitlines() if line.startswith("digest: ")] == digest


def test_runs_of_one_name_get_folders_of_their_own_and_resume_takes_the_newest(tmp_path):
    file = with_trainer(tmp_path, rounds=1)
    for _ in range(2):
        assert fedjob("run", file, cwd=tmp_path).returncode == 0
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["own", "own-2"]
    resumed = fedjob("run", file, "--resume", "--set", "spec.rounds=1", cwd=tmp_path)
    assert resumed.returncode == 0
    assert "own-2" in resumed.stdout


def test_the_manifest_that_init_writes_is_valid_and_runs(tmp_path):
    assert fedjob("init", cwd=tmp_path).returncode == 0
    assert fedjob("validate", "job.yaml", cwd=tmp_path).returncode == 0
    assert fedjob("init", cwd=tmp_path).returncode == 2  # it is never overwritten
    done = fedjob("run", "job.yaml", "--set", "spec.rounds=1", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_is_left_when_a_job_is_over(tmp_path):
    with live_run(write_manifest(tmp_path, SMALL), tmp_path / "run") as run:
        run.wait_until(lambda: run.folder.committed() >= 1, "a committed round")
        children = run.children()
        assert set(run.programs()) <= {"aggregator", "client-0", "client-1", "evaluator"}
        assert run.finish() == 0, run.output
        assert_gone(children)


@pytest.mark.parametrize("example", sorted(path.name for path in (REPOSITORY / "examples").glob("*.yaml")))
def test_every_example_is_valid(example):
    done = fedjob("validate", REPOSITORY / "examples" / example, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
