"""A wrong manifest: exit code 2, one line per problem that names the field, and nothing was started."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from fedjob.__main__ import cli
from tests.support.runs import fedjob

GOOD = """\
apiVersion: fedjob.dev/v1alpha1
kind: FederatedJob
metadata: {name: wrong}
spec:
  rounds: 2
  model: {name: softmax}
  data: {name: digits}
  training: {epochs: 1, learningRate: 0.1}
  roundPolicy: {clientsPerRound: 2, minReports: 2}
  clientGroups:
  - {name: clients, replicas: 3}
"""
CASES = {
    "unknown-field": ("  rounds: 2", "  rounds: 2\n  sede: 7", "spec.sede", "seed"),
    "zero-rounds": ("rounds: 2", "rounds: 0", "spec.rounds", "0"),
    "text-for-a-number": ("epochs: 1", 'epochs: "1"', "spec.training.epochs", "1"),
    "fraction-for-a-count": ("epochs: 1", "epochs: 1e-3", "spec.training.epochs", "0.001"),
    "sexagesimal-is-text": ("rounds: 2", "rounds: 12:30", "spec.rounds", "12:30"),
    "too-many-reports": ("minReports: 2", "minReports: 3", "spec.roundPolicy.minReports", "clientsPerRound"),
    "too-many-clients": ("clientsPerRound: 2", "clientsPerRound: 4", "spec.roundPolicy.clientsPerRound", "4"),
    "missing-path": ("{name: digits}", "{name: npz, path: nowhere.npz}", "spec.data.path", "nowhere.npz"),
    "unnamed-path": ("{name: digits}", "{name: mnist}", "spec.data.path", "mnist"),
    "unknown-model": ("{name: softmax}", "{name: sofmax}", "spec.model.name", "softmax"),
    "unknown-data": ("{name: digits}", "{name: digit}", "spec.data.name", "digits"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_manifest_is_refused_by_field_and_nothing_is_started(case, tmp_path, monkeypatch):
    before, after, path, said = CASES[case]
    (tmp_path / "job.yaml").write_text(GOOD.replace(before, after), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["run", "job.yaml"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert [entry.name for entry in tmp_path.iterdir()] == ["job.yaml"]
    (line,) = done.stderr.splitlines()
    assert path in line
    assert said in line


def test_all_problems_are_told_at_once_one_per_line(tmp_path):
    text = (
        GOOD.replace("rounds: 2", "rounds: 0")
        .replace("minReports: 2", "minReport: 2")
        .replace("epochs: 1", "epochs: []")
    )
    (tmp_path / "job.yaml").write_text(text, encoding="utf-8")
    done = fedjob("validate", "job.yaml", cwd=tmp_path)
    assert done.returncode == 2
    for path in ("spec.rounds", "spec.roundPolicy.minReport", "spec.training.epochs"):
        assert sum(line.startswith(f"{path}:") for line in done.stderr.splitlines()) == 1
    assert len(done.stderr.splitlines()) == 3


@pytest.mark.parametrize("arguments", [["run", "absent.yaml"], ["run"], ["run", "job.yaml", "--set", "spec.rounds"]])
def test_wrong_usage_is_exit_code_two_and_starts_nothing(arguments, tmp_path: Path):
    (tmp_path / "job.yaml").write_text(GOOD, encoding="utf-8")
    done = fedjob(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.strip()
    assert [path.name for path in tmp_path.iterdir()] == ["job.yaml"]


@pytest.mark.parametrize("command", ["validate", "run", "serve"])
def test_wrong_parameters_of_a_model_are_seen_before_anything_is_started(command, tmp_path: Path):
    (tmp_path / "job.yaml").write_text(GOOD, encoding="utf-8")
    wrong = ("--set", "spec.model.parameters.layers=3", "--set", "spec.data.parameters.samples=7")
    done = fedjob(command, "job.yaml", *wrong, cwd=tmp_path)
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert lines[0].startswith("spec.model.parameters.layers: unknown field")
    assert lines[1].startswith("spec.data.parameters.samples: unknown field")
    assert len(lines) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["job.yaml"]


def test_what_only_this_machine_cannot_do_does_not_make_a_manifest_wrong(tmp_path: Path):
    (tmp_path / "job.yaml").write_text(GOOD, encoding="utf-8")
    done = fedjob("validate", "job.yaml", "--set", "spec.suspend=true", cwd=tmp_path)
    assert done.returncode == 0
    assert "note: not with `fedjob run`: spec.suspend: is true" in done.stdout
