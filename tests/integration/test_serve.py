"""`fedjob serve`: clients register, sessions are started by curl and by the page, and go on after it was killed."""

import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.integration.test_external_clients import a_job as a_held_job
from tests.support.outside import hand_started
from tests.support.runs import FEDJOB, Folder, assert_gone, environment, fedjob, wait_until
from tests.support.tcp_ports import free_port


class Server:
    """A `fedjob serve` in the background."""

    def __init__(self, folder: Path, *arguments: str, port: int = 0) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._output = folder.parent / f"serve-{self.port}.log"
        with self._output.open("ab") as output:
            self.process = subprocess.Popen(
                [FEDJOB, "serve", "--port", str(self.port), "--dir", str(folder), *arguments],
                cwd=folder.parent,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        wait_until(self.is_up, f"that it serves:\n{self.output()}")

    def kill(self) -> None:
        """SIGKILL, and wait for the end of its children: until then they serve at its port."""
        children = psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []
        self.process.kill()
        self.process.wait()
        assert_gone(children)

    def output(self) -> str:
        return self._output.read_text(encoding="utf-8")

    def is_up(self) -> bool:
        assert self.process.poll() is None, self.output()
        try:
            return self.status() != ""
        except OSError:
            return False

    def status(self) -> str:
        return self.get("/", Accept="text/plain")[1]

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        return self.call("GET", path, None, **headers)

    def call(self, method: str, path: str, body: bytes | None, **headers: str) -> tuple[int, str]:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.url + path, data=body, method=method, headers=given)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def train(self, **fields: object) -> tuple[int, dict]:
        status, text = self.call("POST", "/training", json.dumps(fields).encode())
        return status, json.loads(text)

    def sessions(self) -> list[dict]:
        try:
            return json.loads((self.folder / "sessions.json").read_bytes())["sessions"]
        except FileNotFoundError:
            return []

    def wait_for_session(self, number: int) -> dict:
        def is_over() -> bool:
            assert self.process.poll() is None, self.output()
            found = self.sessions()
            return len(found) >= number and found[number - 1]["ended"] is not None and self.status().endswith("IDLE")

        wait_until(is_over, f"the end of session {number}; it printed:\n{self.output()}", 90)
        return self.sessions()[number - 1]


@contextmanager
def serving(folder: Path, *arguments: str, port: int = 0) -> Iterator[Server]:
    server = Server(folder, *arguments, port=port)
    try:
        yield server
    finally:
        server.kill()


IDLE = "Federated Learning server running. Status: IDLE"


def test_sessions_continue_from_the_last_model_and_history_shows_it(tmp_path: Path):
    with serving(tmp_path / "served") as server:
        assert server.status() == IDLE
        status, refused = server.train()
        assert (status, refused["word"]) == (503, "unavailable")
        assert "0 clients are registered" in refused["detail"]
        with hand_started(tmp_path, server.url, 2) as clients:
            for client in clients:
                client.says("201: registered with")
            status, answer = server.train(rounds=2, epochs=3, learning_rate=0.05, num_train_samples=400,
                                          num_validation_samples=50)  # fmt: skip
            assert (status, answer) == (202, {"session": 1, "status": "CLIENTS_TRAINING", "clients": 2})
            assert server.status().endswith("Status: CLIENTS_TRAINING")
            status, refused = server.train()
            assert (status, refused["word"]) == (409, "training-in-progress")
            first = server.wait_for_session(1)
            assert (first["first_round"], first["state"]) == (1, "Complete")
            assert first["after"] * 50 == pytest.approx(round(first["after"] * 50)), "a share of 50 examples"
            for client in clients:
                client.says("round 1: training begins: 3 epochs, batches of 32, learning rate 0.05")
                client.says("round 2: epoch 3 of 3: ")
                client.says("200 training examples")
                client.says("the job is over: 'Complete'")
            form = urllib.parse.urlencode({"rounds": "2", "batch_size": "16", "epochs": ""}).encode()
            status, _ = server.call(
                "POST", "/training", form, Content_Type="application/x-www-form-urlencoded", Origin=server.url,
                Accept="text/html",
            )  # fmt: skip
            assert status == 200, "redirected to the page"
            second = server.wait_for_session(2)
        page = server.get("/", Accept="text/html")[1]
    assert (second["first_round"], second["last_round"], second["batch_size"]) == (3, 4, 16)
    assert second["before"] == first["after"]
    assert second["after"] > second["before"] > 0.3
    assert "<td>3 to 4</td>" in page
    assert "<script" not in page
    records = Folder(tmp_path / "served").rounds()
    assert [record.round for record in records] == [0, 1, 2, 3, 4]
    assert "round" in fedjob("rounds", tmp_path / "served", cwd=tmp_path).stdout
    assert " of 8 right" in fedjob("predict", tmp_path / "served", cwd=tmp_path).stdout


def test_a_session_that_no_client_can_work_for_fails_with_their_reason_and_the_next_one_runs(tmp_path: Path):
    with serving(tmp_path / "served") as server, hand_started(tmp_path, server.url, 2) as clients:
        for client in clients:
            client.says("201: registered with")
        assert server.train(num_train_samples=1)[0] == 202
        ended = server.wait_for_session(1)
        assert ended["state"].startswith("Failed: 2 clients cannot take part; client 0: DataError: "), ended
        assert "1 examples cannot be divided among 2 clients" in ended["state"]
        assert "Failed" in server.output()
        assert server.train(rounds=1)[0] == 202
        assert server.wait_for_session(2)["state"] == "Complete"


def test_a_folder_that_cannot_be_written_refuses_a_session_and_ends_none(tmp_path: Path):
    served = tmp_path / "served"
    with serving(served) as server, hand_started(tmp_path, server.url, 1) as (client,):
        client.says("201: registered with")
        in_the_way = served / "job.json.new"
        in_the_way.mkdir()
        status, refused = server.train(rounds=1)
        assert (status, refused["word"]) == (503, "unavailable")
        assert refused["detail"] == f"the session cannot begin: {in_the_way}: Is a directory"
        assert server.status() == IDLE
        in_the_way.rmdir()
        assert server.train(rounds=50)[0] == 202
        (served / "sessions.json.new").mkdir()
        wait_until(lambda: "Complete" in server.get("/", Accept="text/html")[1], "the end of the session")
        assert "sessions.json cannot be written: Is a directory" in server.output()
        assert server.status() == IDLE


def test_a_folder_of_another_model_is_not_served(tmp_path: Path):
    served = tmp_path / "served"
    with serving(served) as server, hand_started(tmp_path, server.url, 1) as (client,):
        client.says("201: registered with")
        assert server.train(rounds=1)[0] == 202
        server.wait_for_session(1)
    (tmp_path / "job.yaml").write_text(
        "apiVersion: fedjob.dev/v1alpha1\nkind: FederatedJob\nmetadata: {name: other}\nspec: {rounds: 1, model: "
        "{name: softmax}, data: {name: digits}, clientGroups: [{name: clients, replicas: 1}]}\n",
        encoding="utf-8",
    )
    done = fedjob("serve", "job.yaml", "--dir", served, "--port", free_port(), cwd=tmp_path)
    assert done.returncode == 2
    assert f'{served} holds sessions of another model: mlp {{"hiddenSizes": [64]}}' in done.stderr


def test_a_session_goes_on_after_the_server_was_killed_and_the_next_continues_from_its_model(tmp_path: Path):
    port = free_port()
    with serving(tmp_path / "served", port=port) as server, hand_started(tmp_path, server.url, 2) as clients:
        for client in clients:
            client.says("201: registered with")
        assert server.train(rounds=60, epochs=5)[0] == 202
        folder = Folder(tmp_path / "served")
        wait_until(lambda: folder.committed() >= 2, "round 2")
        server.kill()
        before = folder.rounds()
        with serving(tmp_path / "served", port=port) as again:
            wait_until(lambda: again.status().endswith("CLIENTS_TRAINING"), "that the session goes on")
            assert again.train()[1]["word"] == "training-in-progress"
            assert again.wait_for_session(1)["last_round"] == 60
            assert again.train(rounds=1)[0] == 202
            assert again.wait_for_session(2)["last_round"] == 61
    records = folder.rounds()
    assert [record.round for record in records] == list(range(62))
    assert [record.digest for record in records[: len(before)]] == [record.digest for record in before]


def test_a_plain_get_starts_nothing_and_neither_does_the_page_of_somebody_else(tmp_path: Path):
    with serving(tmp_path / "served") as server, hand_started(tmp_path, server.url, 1) as (client,):
        client.says("201: registered with")
        status, page = server.get("/training")
        assert status == 200
        assert '<form method="post" action="/training">' in page
        form = urllib.parse.urlencode({"rounds": "1"}).encode()
        for headers in (
            {"Origin": "http://evil.example"},
            {"Sec_Fetch_Site": "cross-site"},
            {"Origin": "null"},
            {"Referer": "http://evil.example/page"},
        ):
            assert server.call("POST", "/training", form, **headers)[0] == 403
            assert server.get("/training?start=1", **headers)[0] == 403
        for wrong in ({"rounds": 0}, {"epochs": "x"}, {"learning_rate": -1}, {"learningrate": 1}):
            assert server.train(**wrong)[0] == 422
        assert server.get("/training?start=1&rounds=x")[0] == 422
        assert server.status() == IDLE
        assert server.get("/training?start=1&rounds=1")[0] == 202
        assert server.wait_for_session(1)["state"] == "Complete"


def test_an_aggregator_that_died_between_sessions_is_started_again_and_its_clients_register_again(tmp_path: Path):
    with serving(tmp_path / "served") as server, hand_started(tmp_path, server.url, 1) as (client,):
        client.says("201: registered with")
        (aggregator,) = psutil.Process(server.process.pid).children()
        aggregator.kill()
        wait_until(lambda: aggregator not in psutil.Process(server.process.pid).children(), "the end of the aggregator")
        wait_until(server.is_up, "its successor")
        assert server.train(rounds=1)[0] == 202
        assert server.wait_for_session(1)["state"] == "Complete"


def test_who_comes_after_the_start_of_a_session_is_turned_away_and_takes_part_in_the_next(tmp_path: Path):
    file = a_held_job(tmp_path, outside=1)
    hold = tmp_path / "hold-1-0"
    hold.touch()
    environment = {"PYTHONPATH": str(tmp_path)}
    with (
        serving(tmp_path / "served", str(file), "--late-joiners", "refuse", "--rounds", "1") as server,
        hand_started(tmp_path, server.url, 1, **environment) as (first,),
    ):
        first.says("201: registered with")
        assert server.train()[1]["clients"] == 1
        with hand_started(tmp_path, server.url, 1, **environment) as (late,):
            late.says("turned away: LateJoiner: 'outside has begun without it, and refuses late joiners'")
            hold.unlink()
            assert server.wait_for_session(1)["last_round"] == 1
            assert server.train()[1]["clients"] == 2
            assert server.wait_for_session(2)["last_round"] == 2
            late.says("round 2: trained on")
