"""Who takes part in a real `fedjob run`: chosen per round, waited for at the start, refused when late, given up."""

from pathlib import Path

from fedjob_operator.api.v1alpha1 import FederatedJobStatus
from tests.support.runs import LiveRun, live_run, manifest, write_manifest

TRAINER = """
import pathlib
import time

import numpy as np

from fedjob_client.trainer import Update

HERE = pathlib.Path(__file__).parent

class Slow:
    num_examples = 10

    def __init__(self, context):
        self.index = context.index
        while (HERE / f"not-yet-{self.index}").exists():
            time.sleep(0.01)

    def init(self, seed):
        return {"w": np.zeros(4, dtype=np.float32)}

    def train(self, params, config):
        while (HERE / f"hold-{config.round}-{self.index}").exists() or (HERE / f"hold-{config.round}").exists():
            config.check_cancelled()
            time.sleep(0.01)
        params["w"] += np.float32(2.0 ** -config.round)
        return Update(params=params, num_examples=10)
"""


def a_job(folder: Path, clients: int, **spec: object) -> Path:
    (folder / "slow_trainer.py").write_text(TRAINER, encoding="utf-8")
    groups = [{"name": "clients", "replicas": clients, "trainer": "slow_trainer:Slow"}]
    defaults = {"rounds": 3, "seed": 3, "model": {"name": "own"}, "clientGroups": groups, "evaluation": {"modes": []}}
    return write_manifest(folder, manifest("chosen", **{**defaults, **spec}))


def status_of(run: LiveRun) -> FederatedJobStatus:
    """The status, also before the job is written for the first time."""
    return run.folder.status() if run.folder.document() else FederatedJobStatus()


def test_ten_of_twenty_are_chosen_in_each_round_and_one_that_drops_out_is_skipped(tmp_path: Path):
    policy = {"clientsPerRound": "50%", "overSelect": 2, "minReports": 8}
    file = a_job(tmp_path, 20, roundPolicy=policy, rounds=4)
    (tmp_path / "hold-1").touch()
    with live_run(file, tmp_path / "run") as run:
        run.wait_until(lambda: run.folder.committed() >= 0, "the initial model")
        run.wait_until(lambda: status_of(run).current_round is not None, "the choice of round 1")
        dropped = run.folder.status().current_round.selected[0]
        (tmp_path / f"hold-1-{dropped}").touch()
        (tmp_path / "hold-1").unlink()
        run.programs()[f"client-{dropped}"].kill()
        assert run.finish() == 0, run.output
    _initial, *rounds = run.folder.rounds()
    assert [(len(record.participants), len(record.contributors)) for record in rounds] == [(12, 10)] * 4
    assert dropped not in [contribution.client for contribution in rounds[0].contributors]
    assert len({tuple(record.participants) for record in rounds}) > 1
    assert {client for record in rounds for client in record.participants} > set(rounds[0].participants)
    assert run.folder.status().clients.ready == 20, "it is back"


def test_a_job_starts_without_those_who_are_late_and_refuses_them_if_told_to(tmp_path: Path):
    (tmp_path / "not-yet-2").touch()
    (tmp_path / "hold-1").touch()
    file = a_job(tmp_path, 3, minClients=2, joinWaitSeconds=1, lateJoiners="Refuse", roundPolicy={"minReports": 2})
    with live_run(file, tmp_path / "run") as run:
        run.wait_until(lambda: status_of(run).clients.late_indices == (2,), "the start without client 2")
        run.wait_until(lambda: "client-2" not in run.programs(), "the end of its process")
        (tmp_path / "not-yet-2").unlink()
        (tmp_path / "hold-1").unlink()
        assert run.finish() == 0, run.output
    assert all(2 not in record.participants for record in run.folder.rounds())


def test_one_that_never_comes_holds_up_no_round_longer_than_the_start_and_takes_part_once_it_is_there(tmp_path: Path):
    (tmp_path / "not-yet-2").touch()
    (tmp_path / "hold-2").touch()
    (tmp_path / "hold-3-0").touch()
    policy = {"clientsPerRound": 2, "overSelect": 1, "minReports": 2}
    with live_run(a_job(tmp_path, 3, joinWaitSeconds=1, roundPolicy=policy), tmp_path / "run") as run:
        run.wait_until(lambda: run.folder.committed() >= 1, "round 1 without client 2")
        (tmp_path / "not-yet-2").unlink()
        run.wait_until(lambda: status_of(run).clients.ready == 3, "that client 2 is there")
        (tmp_path / "hold-2").unlink()
        assert run.finish() == 0, run.output
    records = run.folder.rounds()
    assert all(record.participants == [0, 1, 2] for record in records[1:])
    assert [[c.client for c in record.contributors] for record in (records[1], records[3])] == [[0, 1], [1, 2]]


def test_a_round_that_fails_as_often_as_it_may_ends_the_job_where_it_shall(tmp_path: Path):
    (tmp_path / "hold-1").touch()
    policy = {"maxAttempts": 2, "onQuorumLoss": "Fail", "deadlineSeconds": 1}
    with live_run(a_job(tmp_path, 2, roundPolicy=policy), tmp_path / "run") as run:
        assert run.finish() == 1, run.output
    status = run.folder.status()
    assert (status.phase, status.reason, status.rounds.committed) == ("Failed", "QuorumLost", 0)
    assert "round 1, attempt 2: 0 of 2 needed reports" in (status.message or "")


def test_the_same_goes_on_where_it_shall_wait(tmp_path: Path):
    (tmp_path / "hold-1").touch()
    policy = {"maxAttempts": 1, "deadlineSeconds": 1}
    with live_run(a_job(tmp_path, 2, roundPolicy=policy), tmp_path / "run") as run:
        run.wait_until(lambda: status_of(run).reason == "QuorumLost", "the loss of the quorum")
        (tmp_path / "hold-1").unlink()
        assert run.finish() == 0, run.output
    assert run.folder.rounds()[1].attempt > 1
