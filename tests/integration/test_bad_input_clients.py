"""Clients of a real job that die, hang, or send what no model can use: named in the record, and the job goes on."""

import shutil
from pathlib import Path

import pytest

from fedjob_protocol.messages import RoundRecord
from tests.support.runs import REPOSITORY, Folder, fedjob, manifest, write_manifest

GOOD, BAD = (0, 1), 2
ROUNDS = 2


def job(folder: Path, *bad: str, **spec: object) -> Path:
    """A job of two good clients, which are enough for it, and others that misbehave in every round."""
    shutil.copy(REPOSITORY / "tests" / "support" / "misbehaving.py", folder)
    clients = len(GOOD) + len(bad)
    how = {str(len(GOOD) + number): what for number, what in enumerate(bad)}
    group = {"name": "clients", "replicas": clients, "trainer": "misbehaving:Misbehaving", "backoffLimit": 0}
    settings = {
        "rounds": ROUNDS,
        "model": {"name": "any"},
        "training": {"parameters": how},
        "roundPolicy": {"minReports": len(GOOD), "deadlineSeconds": 30},
        "minClients": len(GOOD),
        "clientGroups": [group],
        "evaluation": {"modes": []},
    }
    return write_manifest(folder, manifest("misbehaving", **{**settings, **spec}))


def finished(folder: Path, file: Path) -> list[RoundRecord]:
    """Run a job that completes; return its rounds without the initial model."""
    done = fedjob("run", file, "--dir", folder / "run", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return Folder(folder / "run").rounds()[1:]


@pytest.fixture(scope="module")
def without(tmp_path_factory) -> list[str]:
    """Digests of the rounds of a job that never had the bad client."""
    folder = tmp_path_factory.mktemp("without")
    return [record.digest for record in finished(folder, job(folder))]


def test_clients_with_unusable_updates_are_named_and_left_out_in_each_round(tmp_path, without):
    rounds = finished(tmp_path, job(tmp_path, "nan", "shape", "raises", "huge"))
    assert [record.digest for record in rounds] == without
    for record in rounds:
        assert sorted(item.client for item in record.contributors) == list(GOOD)
        assert {failure.client: failure.reason for failure in record.failed} == {
            2: "NonFiniteUpdate",  # seen by the client itself: nothing is sent
            3: "TrainerError",
            4: "TrainerError",
            5: "UpdateRefused",
        }
        assert [(refused.client, refused.word) for refused in record.refused] == [(5, "value-out-of-range")]


def test_a_client_that_dies_is_named_once_and_the_job_goes_on_without_it(tmp_path, without):
    rounds = finished(tmp_path, job(tmp_path, "dies"))
    assert [record.digest for record in rounds] == without
    assert [[failure.client for failure in record.failed] for record in rounds] == [[BAD], []]
    assert "exit code 9" in rounds[0].failed[0].message
    assert Folder(tmp_path / "run").status().clients.lost_indices == (BAD,)


def test_a_client_that_hangs_is_left_out_at_the_deadline_and_ends_with_the_job(tmp_path, without):
    policy = {"minReports": len(GOOD), "deadlineSeconds": 1}
    rounds = finished(tmp_path, job(tmp_path, "hangs", roundPolicy=policy))
    assert [record.digest for record in rounds] == without
    for record in rounds:
        assert record.close_reason == "Deadline"
        assert [(failure.client, failure.reason) for failure in record.failed] == [(BAD, "DeadlineExceeded")]


def test_without_enough_reports_the_round_is_tried_again_and_then_the_job_fails_with_the_reason(tmp_path):
    policy = {"maxAttempts": 2, "deadlineSeconds": 30}
    file = job(tmp_path, "nan", roundPolicy=policy)
    done = fedjob("run", file, "--dir", tmp_path / "run", cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    status = Folder(tmp_path / "run").status()
    assert (status.phase, status.reason, status.rounds.committed) == ("Failed", "NonFiniteUpdate", 0)
    assert f"client {BAD}" in status.message
    assert "attempt 2" in done.stdout


def test_without_enough_clients_the_job_fails_by_its_policy(tmp_path):
    policy = {"maxAttempts": 1, "deadlineSeconds": 1, "onQuorumLoss": "Fail"}
    file = job(tmp_path, "hangs", roundPolicy=policy)
    done = fedjob("run", file, "--dir", tmp_path / "run", cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    status = Folder(tmp_path / "run").status()
    assert (status.phase, status.reason) == ("Failed", "QuorumLost")
    assert "of 3 needed reports" in status.message
