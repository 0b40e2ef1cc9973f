"""The real program: killed at any moment it goes on from what was committed, and it dies as its parent wants it to."""

import http.client
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest

from fedjob_protocol.config import Termination
from fedjob_protocol.digests import xxh3_of
from fedjob_protocol.lifeline import EXIT_LIFELINE
from fedjob_protocol.process import EXIT_FATAL, EXIT_USAGE
from fedjob_protocol.weights import encode

pytestmark = pytest.mark.integration

JOB = "job-uid"
SIZE = 100_000  # large enough to be staged, small enough that nothing is compiled
KILLS = 8
ROUNDS = 8
MODEL = {"a": np.zeros(SIZE, np.float32), "b": np.zeros(3)}


def delta(value):
    return encode({"a": np.full(SIZE, value, np.float32), "b": np.full(3, value, np.float32)})


class Aggregator:
    """The program as a child process."""

    def __init__(self, folder, *arguments, environment=()):
        command = [sys.executable, "-P", "-m", "fedjob_aggregator", "--port", "0", "--dir", str(folder), *arguments]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "FEDJOB_LIFELINE": "stdin", **dict(environment)},
        )
        self.errors = []
        self._reader = threading.Thread(target=self._read_errors, daemon=True)
        self._reader.start()
        line = self.process.stdout.readline()
        self.announcement = json.loads(line) if line else None
        self.address = self.announcement and self.announcement["url"].removeprefix("http://")

    def _read_errors(self):
        for line in self.process.stderr:
            self.errors.append(line.decode())

    def call(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection(self.address, timeout=30)
        try:
            connection.request(method, path, body if isinstance(body, bytes) else json.dumps(body), headers or {})
            response = connection.getresponse()
            content = response.read()
            is_json = "json" in response.headers["Content-Type"]
            return response.status, json.loads(content) if is_json else content
        finally:
            connection.close()

    def get(self, path):
        return self.call("GET", path)[1]

    def open(self, number, *, clients=3, attempt=1, term=1, **changes):
        committed = self.get("/v1/state")["committed"]
        base = committed and {"round": committed["round"], "digest": committed["digest"]}
        spec = {
            "jobUid": JOB,
            "term": term,
            "attempt": attempt,
            "base": base,
            "participants": [{"client": client, "name": f"client-{client}"} for client in range(clients)],
            "clientsPerRound": clients,
            "minReports": 1,
            "deadlineSeconds": 60,
        }
        status, view = self.call("PUT", f"/v1/rounds/{number}", spec | changes)
        assert status == 200, view
        return view

    def headers(self, body, *, attempt=1):
        return {
            "Fedjob-Job-Uid": JOB,
            "Fedjob-Term": "1",
            "Fedjob-Attempt": str(attempt),
            "Fedjob-Boot-Id": self.announcement["bootId"],
            "Fedjob-Examples": "10",
            "Fedjob-Digest": xxh3_of(body),
        }

    def upload(self, number, client, body, *, attempt=1):
        return self.call("PUT", f"/v1/rounds/{number}/updates/{client}", body, self.headers(body, attempt=attempt))

    def half_upload(self, number, client, body, *, attempt=1):
        host, port = self.address.split(":")
        connection = socket.create_connection((host, int(port)))
        fields = self.headers(body, attempt=attempt) | {"Host": "x", "Content-Length": str(len(body))}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        request = f"PUT /v1/rounds/{number}/updates/{client} HTTP/1.1\r\n{head}\r\n".encode()
        connection.sendall(request + body[: len(body) // 2])
        return connection

    def wait(self, number):
        return self.get(f"/v1/rounds/{number}?wait=30")

    def initialise(self, model=None):
        self.open(0, clients=1)
        assert self.upload(0, 0, encode(MODEL if model is None else model))[0] == 200
        return self.wait(0)["record"]

    def kill(self):
        self.process.kill()
        self.close()

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            stream.close()


@contextmanager
def aggregator(folder, *arguments, environment=()):
    program = Aggregator(folder, *arguments, environment=environment)
    try:
        assert program.announcement is not None, program.errors
        yield program
    finally:
        program.close()


def whole_round(program, number, *, attempt=1):
    program.open(number, attempt=attempt)
    for client in range(3):
        assert program.upload(number, client, delta(number + client / 8), attempt=attempt)[0] == 200
    return program.wait(number)["record"]["digest"]


@pytest.fixture(scope="module")
def undisturbed(undisturbed_run):
    """Digests of rounds that nothing happened to."""
    return undisturbed_run[0]


@pytest.fixture(scope="module")
def undisturbed_run(tmp_path_factory):
    """Digests of rounds that nothing happened to, and how many seconds they took."""
    with aggregator(tmp_path_factory.mktemp("undisturbed")) as program:
        program.initialise()
        began = time.monotonic()
        digests = [whole_round(program, number) for number in range(1, ROUNDS + 1)]
        return digests, time.monotonic() - began


@pytest.mark.parametrize("moment", ["before the first upload", "in an upload", "after an upload", "after the last"])
@pytest.mark.parametrize("victim", [1, 3])
def test_a_job_that_is_killed_ends_with_the_model_of_one_that_was_not(tmp_path, undisturbed, moment, victim):
    digests = []
    with aggregator(tmp_path) as program:
        program.initialise()
        digests += [whole_round(program, number) for number in range(1, victim)]
        program.open(victim)
        if moment in {"after an upload", "in an upload", "after the last"}:
            program.upload(victim, 0, delta(victim))
        if moment == "in an upload":
            program.half_upload(victim, 1, delta(victim + 1 / 8)).close()
        if moment == "after the last":
            for client in (1, 2):
                program.upload(victim, client, delta(victim + client / 8))
        program.kill()
    with aggregator(tmp_path) as program:
        state = program.get("/v1/state")
        assert state["committed"]["round"] in {victim - 1, victim}
        if state["committed"]["round"] == victim:
            digests.append(program.get(f"/v1/rounds/{victim}")["record"]["digest"])
        for number in range(state["committed"]["round"] + 1, 4):
            digests.append(whole_round(program, number, attempt=2))
        rounds = program.get("/v1/rounds")["rounds"]
        assert [record["round"] for record in rounds] == [0, 1, 2, 3]
    assert digests == undisturbed[:3]


def test_kills_at_any_time_repeat_and_lose_no_round(tmp_path, undisturbed_run):
    undisturbed, seconds = undisturbed_run
    rng = np.random.default_rng(20)
    kills = attempt = 0
    digests = []
    while len(digests) < ROUNDS:
        attempt += 1
        with aggregator(tmp_path) as program:
            killer = threading.Timer(float(rng.uniform(0.0, seconds / KILLS)), program.process.kill)
            if kills < KILLS:
                killer.start()
            try:
                digests = finish_job(program, attempt)
            except (OSError, http.client.HTTPException, ValueError, TypeError):
                kills += 1  # in the middle of a call
            killer.cancel()
    assert kills >= 2, "however fast the machine is, no life is long enough for the whole job"
    with aggregator(tmp_path):  # the last kill may have come before the last line was in the log
        lines = (tmp_path / "rounds.jsonl").read_text().splitlines()
    assert [json.loads(line)["round"] for line in lines] == list(range(ROUNDS + 1))
    assert digests == undisturbed


def finish_job(program, attempt):
    """Go on from wherever the aggregator is; return the digests of all rounds."""
    if program.get("/v1/state")["committed"] is None:
        program.open(0, clients=1, attempt=attempt)
        program.upload(0, 0, encode(MODEL), attempt=attempt)
        program.wait(0)
    digests = []
    for number in range(1, ROUNDS + 1):
        status, view = program.call("GET", f"/v1/rounds/{number}")
        record = view["record"] if status == 200 else None
        digests.append(record["digest"] if record else whole_round(program, number, attempt=attempt))
    return digests


def test_an_evaluation_that_is_posted_again_after_a_kill_counts_once(tmp_path):
    with aggregator(tmp_path) as program:
        program.initialise()
        program.open(1, clients=1, expectsEvaluation=True)
        program.upload(1, 0, delta(1))
        record = program.wait(1)["record"]
        program.kill()
    evaluation = {"jobUid": JOB, "term": 1, "digest": record["digest"], "metrics": {"accuracy": 0.5}, "best": True}
    for _ in range(2):
        with aggregator(tmp_path) as program:
            status, view = program.call("PUT", "/v1/rounds/1/evaluation", evaluation)
            assert (status, view["record"]["metrics"], view["record"]["best"]) == (200, {"accuracy": 0.5}, True)
            assert program.get("/v1/state")["best"]["digest"] == record["digest"]
            program.kill()
    assert len((tmp_path / "rounds.jsonl").read_text().splitlines()) == 2


def test_a_disk_that_the_kernel_says_is_full_delays_the_commit(tmp_path):
    with aggregator(tmp_path) as program:
        first = program.initialise()
        program.open(1, clients=1)
        limits = resource.prlimit(program.process.pid, resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        assert program.upload(1, 0, delta(1))[0] == 200
        view = program.get("/v1/rounds/1")
        until = time.monotonic() + 20
        while view["storage"] is None and time.monotonic() < until:
            view = program.get("/v1/rounds/1")
        assert (view["state"], "File too large" in view["storage"]["message"]) == ("Committing", True)
        assert program.get("/v1/state")["committed"]["digest"] == first["digest"]
        assert not list(tmp_path.glob("**/*.tmp"))
        resource.prlimit(program.process.pid, resource.RLIMIT_FSIZE, limits)
        assert program.wait(1)["record"]["parent"] == first["digest"]


def test_sigterm_ends_it_cleanly_though_a_poll_and_an_upload_are_under_way(tmp_path):
    with aggregator(tmp_path) as program:
        program.initialise()
        program.open(1)
        connection = program.half_upload(1, 0, delta(1))
        poll = threading.Thread(target=program.wait, args=(1,))
        poll.start()
        started = time.monotonic()
        program.process.send_signal(signal.SIGTERM)
        assert program.process.wait(timeout=10) == 0
        assert time.monotonic() - started < 2
        poll.join()
        connection.close()


def test_it_dies_with_its_parent_even_while_it_compiles(tmp_path):
    with aggregator(tmp_path) as program:
        program.initialise({"a": np.zeros(300_000, np.float32)})
        program.process.stdin.close()
        assert program.process.wait(timeout=5) == EXIT_LIFELINE


def test_a_port_in_use_is_one_clear_line(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        program = Aggregator(tmp_path, "--port", str(port))
        assert program.process.wait(timeout=20) == EXIT_USAGE
        program.close()
    assert len(program.errors) == 1
    assert f"cannot listen on 127.0.0.1:{port}" in program.errors[0]


def test_another_jobs_folder_is_refused_with_its_reason(tmp_path):
    with aggregator(tmp_path / "data") as program:
        program.initialise()
    log = tmp_path / "termination"
    program = Aggregator(
        tmp_path / "data", "--job-uid", "other", environment={"FEDJOB_TERMINATION_LOG": str(log)}.items()
    )
    assert program.process.wait(timeout=20) == EXIT_FATAL
    program.close()
    termination = Termination.model_validate_json(log.read_text())
    assert (termination.reason, JOB in termination.message) == ("ForeignVolume", True)


def test_a_successor_waits_until_its_predecessor_has_let_the_folder_go(tmp_path):
    with aggregator(tmp_path) as first:
        first.initialise()
        killer = threading.Timer(1.0, first.process.kill)
        killer.start()
        with aggregator(tmp_path) as second:
            assert second.get("/v1/state")["committed"]["round"] == 0
        killer.join()


def test_settings_come_from_the_environment_and_the_token_is_asked_for(tmp_path):
    environment = {"FEDJOB_TOKEN": "secret", "FEDJOB_STAGING_BYTES": "0", "FEDJOB_LOG_LEVEL": "error"}.items()
    with aggregator(tmp_path, environment=environment) as program:
        assert program.call("GET", "/v1/state")[0] == 401
        assert program.call("GET", "/v1/state", headers={"Fedjob-Token": "secret"})[0] == 200
        assert program.get("/health")["status"] == "ok"
        program.process.send_signal(signal.SIGTERM)
        assert program.process.wait(timeout=10) == 0
    assert program.errors == []
