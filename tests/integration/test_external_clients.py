"""Clients that register themselves take part in a real `fedjob run`, vanish, come back, and lie."""

import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from fedjob_aggregator.registry import DEFAULT_MOST_PER_HOST
from fedjob_protocol.registration import client_token
from tests.support.outside import HandStarted, hand_started
from tests.support.runs import live_run, manifest, write_manifest
from tests.support.tcp_ports import free_port

TRAINER = """
import pathlib

import numpy as np

from fedjob_client.trainer import Update

HERE = pathlib.Path(__file__).parent

class Own:
    num_examples = 10

    def __init__(self, context):
        self.index = context.index

    def init(self, seed):
        return {"w": np.zeros(4, dtype=np.float32)}

    def train(self, params, config):
        while (HERE / f"hold-{config.round}-{self.index}").exists():
            config.check_cancelled()
        params["w"] += np.float32(2.0 ** -config.round)
        config.on_epoch(1, {"accuracy": 0.5})
        return Update(params=params, num_examples=10)
"""


def a_job(folder: Path, *, replicas: int = 0, outside: int = 2, **spec: object) -> Path:
    (folder / "own_outside.py").write_text(TRAINER, encoding="utf-8")
    own = {"trainer": "own_outside:Own"}
    groups = [{"name": "outside", "external": {"minClients": outside}, **own}]
    if replicas:
        groups = [{"name": "here", "replicas": replicas, **own}, *groups]
    defaults = {"rounds": 2, "model": {"name": "own"}, "clientGroups": groups, "evaluation": {"modes": []}}
    return write_manifest(folder, manifest("outside", **{**defaults, **spec}))


@pytest.fixture
def server() -> str:
    return f"http://127.0.0.1:{free_port()}"


def listen(server: str) -> tuple[str, str]:
    return "--listen", server.removeprefix("http://")


def call(url: str, body: object = None, *, method: str | None = None, **headers: str) -> tuple[int, dict]:
    data = None if body is None else json.dumps(body).encode()
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, data=data, method=method, headers=given)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def started(folder: Path, server: str, count: int, **variables: str):
    return hand_started(folder, server, count, PYTHONPATH=str(folder), **variables)


def test_clients_that_register_take_part_next_to_those_that_were_started_here(tmp_path: Path, server: str):
    file = a_job(tmp_path, replicas=1)
    settings = {"FEDJOB_REGISTRATION_TOKEN": "let-me-in"}
    with (
        live_run(file, tmp_path / "run", *listen(server), settings=settings) as run,
        started(tmp_path, server, 1) as (refused,),
        started(tmp_path, server, 2, FEDJOB_REGISTRATION_TOKEN="let-me-in") as clients,
    ):
        refused.says("to register here takes a token")
        assert run.finish() == 0, run.output
        for client in clients:
            client.says("201: registered with the aggregator at")
            assert "round 1: epoch 1 of 1: accuracy 0.5" in client.log()
    records = run.folder.rounds()
    assert [[c.client for c in record.contributors] for record in records] == [[0], [0, 1, 2], [0, 1, 2]]


def test_a_client_that_vanishes_is_skipped_and_takes_part_again_when_it_is_back(tmp_path: Path, server: str):
    file = a_job(tmp_path, rounds=4, minClients=1, roundPolicy={"minReports": 1})
    for round_number, index in ((1, 1), (2, 0), (3, 0)):
        (tmp_path / f"hold-{round_number}-{index}").touch()
    with (
        live_run(file, tmp_path / "run", *listen(server)) as run,
        started(tmp_path, server, 1) as (first,),
    ):
        first.says("client 0")
        with started(tmp_path, server, 1) as (second,):
            run.wait_until(lambda: run.folder.committed() >= 0, "the initial model")
            second.says("round 1: training begins")
            second.kill()
            run.wait_until(lambda: run.folder.committed() >= 1, "round 1 without the client that vanished", 90)
            assert run.folder.status().clients.lost_indices == (1,)
            run.wait_until(lambda: run.folder.status().current_round.selected == (0,), "a choice without it")
            (tmp_path / "hold-1-1").unlink()
            again = HandStarted(tmp_path, server, port=second.port, PYTHONPATH=str(tmp_path))
            try:
                run.wait_until(lambda: run.folder.status().clients.ready == 2, "that it is ready again")
                (tmp_path / "hold-2-0").unlink()
                run.wait_until(lambda: run.folder.committed() >= 2, "round 2")
                (tmp_path / "hold-3-0").unlink()
                assert run.finish() == 0, run.output
            finally:
                again.kill()
    records = run.folder.rounds()
    assert [[c.client for c in record.contributors] for record in records] == [[0], [0], [0], [0, 1], [0, 1]]
    assert [failure.reason for failure in records[1].failed] == ["ClientLost"]


def test_who_lies_about_its_url_is_given_nothing_and_harms_nobody(tmp_path: Path, server: str):
    """It claims the address of a client that lives there, and one where another program answers."""
    file = a_job(tmp_path, outside=2, minClients=1, joinWaitSeconds=0, roundPolicy={"minReports": 1})
    with live_run(file, tmp_path / "run", *listen(server)) as run:
        run.wait_until((run.folder.path / "run" / "aggregator.json").exists, "the aggregator")
        access = json.loads((run.folder.path / "run" / "aggregator.json").read_bytes())
        status, liar = call(f"{server}/clients", {"client_url": server, "boot_id": "liar"})
        assert (status, liar["client"]) == (201, 0)
        run.wait_until(lambda: "client 0" in (run.folder.status().message or ""), "what is said of the liar")
        with started(tmp_path, server, 1) as (honest,):
            status, liar = call(f"{server}/clients", {"client_url": honest.url, "boot_id": "liar"})
            token = {"Fedjob_Token": liar["token"]}
            assert liar["token"] == client_token(access["token"], "liar") != access["token"]
            assert call(f"{server}/v1/state", **token)[0] == 401
            assert call(f"{server}/v1/rounds/1/updates/1", "x", method="PUT", **token)[0] in {401, 404, 409, 415, 422}
            honest.says("201: registered")
            assert run.finish() == 0, run.output
            assert access["token"] not in honest.log()
    assert all(record.participants == [1] or record.round == 0 for record in run.folder.rounds())


def test_late_joiners_that_are_refused_say_why(tmp_path: Path, server: str):
    file = a_job(
        tmp_path, rounds=2, minClients=1, joinWaitSeconds=0, lateJoiners="Refuse", roundPolicy={"minReports": 1}
    )
    (tmp_path / "hold-1-0").touch()
    with live_run(file, tmp_path / "run", *listen(server)) as run, started(tmp_path, server, 1) as (first,):
        first.says("round 1: training begins")
        with started(tmp_path, server, 1) as (late,):
            late.says("LateJoiner")
            assert "outside has begun without it" in late.log()
            (tmp_path / "hold-1-0").unlink()
            assert run.finish() == 0, run.output
    assert run.folder.status().clients.late_indices == (1,)
    assert all(record.participants == [0] for record in run.folder.rounds())


def test_clients_register_again_when_the_aggregator_was_started_again(tmp_path: Path, server: str):
    file = a_job(tmp_path, rounds=3)
    (tmp_path / "hold-2-0").touch()
    with live_run(file, tmp_path / "run", *listen(server)) as run, started(tmp_path, server, 2) as clients:
        run.wait_until(lambda: run.folder.committed() >= 1, "round 1")
        run.programs()["aggregator"].kill()
        run.wait_until(lambda: run.folder.status().current_round.attempt > 1, "another attempt")
        (tmp_path / "hold-2-0").unlink()
        assert run.finish() == 0, run.output
    assert [len(record.contributors) for record in run.folder.rounds()] == [1, 2, 2, 2]
    assert len(clients) == 2


def test_a_run_with_such_clients_has_to_know_where_it_listens(tmp_path: Path):
    with live_run(a_job(tmp_path), tmp_path / "run") as run:
        assert run.finish() == 2
        assert "--listen" in run.output


def test_a_flood_of_registrations_is_bounded_and_harms_no_job(tmp_path: Path, server: str):
    places = DEFAULT_MOST_PER_HOST + 16
    policy = {"joinWaitSeconds": 0, "minClients": 2, "roundPolicy": {"minReports": 2}}
    file = a_job(tmp_path, replicas=1, outside=places, **policy)
    (tmp_path / "hold-1-0").touch()
    with (
        live_run(file, tmp_path / "run", *listen(server)) as run,
        started(tmp_path, server, 1) as (honest,),
    ):
        honest.says("round 1: training begins")
        answers = [
            call(f"{server}/clients", {"client_url": f"http://127.0.0.1:{port}", "boot_id": f"flood-{port}"})
            for port in range(1, 301)
        ]
        taken = [status for status, _ in answers].count(201)
        assert taken == DEFAULT_MOST_PER_HOST - 1, "the honest client lives at this host, too"
        assert {status for status, _ in answers} == {201, 503}
        assert "that is the limit" in answers[-1][1]["detail"]
        (tmp_path / "hold-1-0").unlink()
        assert run.finish() == 0, run.output
    records = run.folder.rounds()
    assert [[c.client for c in record.contributors] for record in records] == [[0], [0, 1], [0, 1]]


def test_a_client_at_whose_url_nobody_answers_is_told(tmp_path: Path, server: str):
    file = a_job(tmp_path, replicas=1, outside=1, minClients=1, joinWaitSeconds=0, roundPolicy={"minReports": 1})
    (tmp_path / "hold-1-0").touch()
    nowhere = f"http://127.0.0.1:{free_port()}"
    with (
        live_run(file, tmp_path / "run", *listen(server)) as run,
        started(tmp_path, server, 1, CLIENT_URL=nowhere) as (lost,),
    ):
        lost.says("201: registered with")
        lost.says(f"nobody answers at CLIENT_URL, {nowhere}, as seen from here")
        (tmp_path / "hold-1-0").unlink()
        assert run.finish() == 0, run.output


def test_who_starts_the_job_is_told_of_a_client_that_cannot_be_reached(tmp_path: Path, server: str):
    nowhere = f"http://127.0.0.1:{free_port()}"
    with (
        live_run(a_job(tmp_path), tmp_path / "run", *listen(server)) as run,
        started(tmp_path, server, 1, CLIENT_URL=nowhere) as (lost,),
    ):
        lost.says("201: registered with")
        run.wait_until(lambda: f"client 0: at {nowhere}: " in run.output, "that it is printed")
        assert run.is_alive
    assert "client 1: has not registered" in run.output
