"""Too few clients of a real `fedjob run`: it says who is missing and why, waits, and goes on when they are back."""

import json
import urllib.request
from pathlib import Path

import pytest

from tests.support.runs import Folder, LiveRun, fedjob, live_run, manifest, write_manifest

TRAINER = """
import os
import pathlib

import numpy as np

from fedjob_client.trainer import Update

HERE = pathlib.Path(__file__).parent

class Fragile:
    num_examples = 10

    def __init__(self, context):
        self.index = context.index
        with (HERE / f"starts-{self.index}").open("a") as file:
            file.write("x")
        if (HERE / f"broken-{self.index}").exists():
            os._exit(3)

    def init(self, seed):
        return {"w": np.full(4, seed, dtype=np.float32)}

    def train(self, params, config):
        while (HERE / f"hold-{config.round}").exists():
            config.check_cancelled()
        params["w"] += np.float32((self.index + 1) * 2.0**-config.round)
        return Update(params=params, num_examples=10)
"""


def a_job(folder: Path, *, clients: int = 3, group: dict | None = None, **spec: object) -> Path:
    """A manifest whose clients end at once while a file ``broken-INDEX`` lies beside it."""
    (folder / "fragile.py").write_text(TRAINER, encoding="utf-8")
    groups = [{"name": "clients", "replicas": clients, "trainer": "fragile:Fragile", **(group or {})}]
    defaults = {
        "rounds": 3,
        "seed": 7,
        "model": {"name": "own"},
        "clientGroups": groups,
        "evaluation": {"modes": []},
    }
    return write_manifest(folder, manifest("quorum", **{**defaults, **spec}))


def call(run: LiveRun, method: str, path: str) -> dict:
    """Call the aggregator as the person whose folder it is."""
    known = run.folder.path / "run" / "aggregator.json"
    run.wait_until(known.exists, "the aggregator")  # a client that cannot start may be lost before
    access = json.loads(known.read_bytes())
    request = urllib.request.Request(access["url"] + path, method=method, headers={"Fedjob-Token": access["token"]})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return dict(json.load(answer))


def is_lost(run: LiveRun, *indices: int):
    return lambda: run.folder.document() is not None and run.folder.status().clients.lost_indices == indices


@pytest.fixture
def undisturbed(tmp_path: Path) -> list[str]:
    """Digests of the job when nobody is missing."""
    folder = tmp_path / "calm"
    folder.mkdir()
    done = fedjob("run", a_job(folder), "--dir", folder / "run", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return Folder(folder / "run").digests()


def test_a_client_that_left_for_good_is_replaced_with_its_index_and_its_data(tmp_path: Path, undisturbed: list[str]):
    (tmp_path / "broken-1").touch()
    with live_run(a_job(tmp_path, group={"backoffLimit": 1}), tmp_path / "run") as run:
        run.wait_until(is_lost(run, 1), "that client 1 is lost")
        status = run.folder.status()
        assert status.reason == "WaitingForClients"
        assert "client 1: Crashed: exit code 3 (given up)" in status.message
        (tmp_path / "broken-1").unlink()

        answers = [call(run, "DELETE", "/v1/clients/1") for _ in range(3)]

        assert answers == [{"client": 1, "generation": 1}] * 3
        assert call(run, "GET", "/v1/clients")["clients"] == [{"client": 1, "generation": 1}]
        assert run.finish() == 0, run.output
    (replaced,) = run.folder.status().clients.replaced
    assert (replaced.index, replaced.generation, replaced.first_ordinal) == (1, 1, 2)
    assert (tmp_path / "starts-1").read_text() == "xxx", "two that failed, one replacement"
    assert run.folder.digests() == undisturbed


def test_a_client_that_is_replaced_in_the_middle_of_a_round_gets_its_task_again(tmp_path: Path, undisturbed: list[str]):
    (tmp_path / "hold-2").touch()
    with live_run(a_job(tmp_path), tmp_path / "run") as run:
        run.wait_until(lambda: run.folder.committed() >= 1, "round 1")
        call(run, "DELETE", "/v1/clients/0")
        run.wait_until(lambda: (tmp_path / "starts-0").read_text() == "xx", "the replacement")
        (tmp_path / "hold-2").unlink()
        assert run.finish() == 0, run.output
    assert run.folder.digests() == undisturbed
    assert [record.attempt for record in run.folder.rounds()] == [1, 1, 1, 1]


def test_nobody_is_replaced_twice_although_aggregator_and_operator_are_killed(tmp_path: Path, undisturbed: list[str]):
    (tmp_path / "broken-1").touch()
    file = a_job(tmp_path, group={"backoffLimit": 0})
    with live_run(file, tmp_path / "run") as run:
        run.wait_until(is_lost(run, 1), "that client 1 is lost")
        (tmp_path / "hold-1").touch()
        (tmp_path / "broken-1").unlink()
        call(run, "DELETE", "/v1/clients/1")
        run.wait_until(lambda: run.folder.committed() >= 0, "the initial model")
        run.programs()["aggregator"].kill()
        run.wait_until(lambda: run.folder.status().current_round.attempt == 2, "the round's second attempt")
        assert call(run, "DELETE", "/v1/clients/1") == {"client": 1, "generation": 1}
        run.process.kill()
        run.process.wait()
    with live_run(file, tmp_path / "run", "--resume") as again:
        (tmp_path / "hold-1").unlink()
        assert again.finish() == 0, again.output
    assert [entry.first_ordinal for entry in again.folder.status().clients.replaced] == [1]
    assert again.folder.digests() == undisturbed
