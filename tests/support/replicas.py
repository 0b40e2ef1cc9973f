"""Several real aggregator processes of one job, and a test in the place of their operator."""

import http.client
import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from fedjob_protocol.digests import xxh3_of
from fedjob_protocol.weights import encode

JOB = "job-uid"
TOKEN = "the token"
WAIT_SECONDS = 60.0
LOOK_SECONDS = 0.01


class Replica:
    """One aggregator as a child process; it may be killed and started again on its folder."""

    def __init__(self, folder: Path, name: str, **environment) -> None:
        self.folder, self.name, self._environment = folder / name, name, environment
        self.start()

    def start(self, *, stderr=subprocess.DEVNULL) -> None:
        command = [sys.executable, "-P", "-m", "fedjob_aggregator", "--port", "0", "--dir", str(self.folder)]
        self.process = subprocess.Popen(
            [*command, "--job-uid", JOB, "--replica", self.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={**os.environ, "FEDJOB_LIFELINE": "stdin", "FEDJOB_TOKEN": TOKEN, **self._environment},
        )
        announcement = json.loads(self.process.stdout.readline())
        self.url, self.boot_id = announcement["url"], announcement["bootId"]

    def call(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=30)
        try:
            data = body if isinstance(body, bytes | None) else json.dumps(body)
            connection.request(method, path, data, {"Fedjob-Token": TOKEN, **(headers or {})})
            response = connection.getresponse()
            content = response.read()
            is_json = "json" in response.headers["Content-Type"]
            return response.status, json.loads(content) if is_json else content
        finally:
            connection.close()

    def get(self, path):
        return self.call("GET", path)[1]

    def state(self):
        return self.get("/v1/state")

    def newest(self):
        return self.state()["replica"]["newest"]

    def appoint(self, body):
        return self.call("PUT", "/v1/leadership", body)

    def open(self, number, *, term=1, attempt=1, clients=1, **changes):
        committed = self.state()["committed"]
        base = committed and {"round": committed["round"], "digest": committed["digest"]}
        spec = {
            "jobUid": JOB,
            "term": term,
            "attempt": attempt,
            "base": base,
            "participants": [{"client": client, "name": f"client-{client}"} for client in range(clients)],
            "clientsPerRound": clients,
            "minReports": 1,
            "deadlineSeconds": 600,
        }
        return self.call("PUT", f"/v1/rounds/{number}", spec | changes)

    def upload(self, number, body, *, client=0, term=1, attempt=1):
        headers = {
            "Fedjob-Job-Uid": JOB,
            "Fedjob-Term": str(term),
            "Fedjob-Attempt": str(attempt),
            "Fedjob-Boot-Id": self.boot_id,
            "Fedjob-Examples": "10",
            "Fedjob-Digest": xxh3_of(body),
        }
        return self.call("PUT", f"/v1/rounds/{number}/updates/{client}", body, headers)

    def wait(self, number, seconds=30):
        return self.get(f"/v1/rounds/{number}?wait={seconds}")

    def round(self, number, body, *, term=1, attempt=1, wait=30, **changes):
        """Open a round, report, and wait for its end."""
        status, answer = self.open(number, term=term, attempt=attempt, **changes)
        assert status == 200, answer
        status, answer = self.upload(number, body, term=term, attempt=attempt)
        assert status == 200, answer
        return self.wait(number, wait)

    def log(self):
        path = self.folder / "rounds.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def kill(self) -> None:
        """SIGKILL; also of one that is dead already."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            with suppress(OSError):
                stream.close()


class Replicas(list):
    """All aggregators of a job."""

    def leadership(self, leader=None, *, term=1, ack="Majority", committed=None):
        body = {"jobUid": JOB, "term": term, "acknowledgement": ack, "committed": committed}
        body["replicas"] = [replica.name for replica in self]
        if leader is not None:
            body |= {"leader": leader.name, "leaderBootId": leader.boot_id, "leaderUrl": leader.url}
        return body

    def appoint(self, leader, *, term=1, ack="Majority", committed=None, told=None):
        """Say to all, or to those who are named, who leads."""
        body = self.leadership(leader, term=term, ack=ack, committed=committed)
        for replica in self if told is None else told:
            status, answer = replica.appoint(body)
            assert status == 200, answer


@contextmanager
def replicas(folder: Path, count: int = 3, **environment):
    """Some aggregators, none of which leads."""
    running = Replicas()
    try:
        for index in range(count):
            running.append(Replica(folder, f"aggregator-{index}", **environment))
        yield running
    finally:
        for replica in running:
            replica.kill()


def wait_until(condition, what, seconds=WAIT_SECONDS):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(LOOK_SECONDS)


def model(size=1000):
    return encode({"a": np.zeros(size, np.float32), "b": np.zeros(3)})


def delta(value, size=1000):
    return encode({"a": np.full(size, value, np.float32), "b": np.full(3, value, np.float32)})


def base_of(commit):
    return commit and {"round": commit["round"], "digest": commit["digest"]}
