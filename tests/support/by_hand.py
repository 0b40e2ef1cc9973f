"""A real aggregator process, with an operator and clients made by hand: they send what no program of ours would."""

import http.client
import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from pydantic import BaseModel

from fedjob_protocol import PROTOCOL_VERSION, routes
from fedjob_protocol.digests import xxh3_of
from fedjob_protocol.lifeline import LIFELINE_VARIABLE
from fedjob_protocol.messages import (
    AggregatorState,
    Announcement,
    Base,
    FailureReport,
    Participant,
    RoundRecord,
    RoundSpec,
    RoundView,
)
from fedjob_protocol.reasons import Reason
from fedjob_protocol.round import RoundState
from fedjob_protocol.weights import Array, encode
from tests.support.runs import CHANGE_SECONDS, environment, wait_until

JOB = "by-hand"
CALL_SECONDS = 30.0


class AggregatorByHand:
    """The operator's side of an aggregator process."""

    def __init__(self, process: subprocess.Popen[bytes], announcement: Announcement) -> None:
        self.process = psutil.Process(process.pid)
        self.url = announcement.url
        self.boot_id = announcement.boot_id
        self.base: Base | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port

    def call(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Status and JSON of an answer."""
        connection = http.client.HTTPConnection(*self.address, timeout=CALL_SECONDS)
        try:
            given = {routes.PROTOCOL_HEADER: str(PROTOCOL_VERSION), **(headers or {})}
            connection.request(method, path, body=body, headers=given)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def state(self) -> AggregatorState:
        """What it says of itself."""
        return AggregatorState.model_validate(self._good("GET", routes.STATE_PATH))

    def open(
        self,
        number: int,
        clients: tuple[int, ...],
        *,
        min_reports: int | None = None,
        attempt: int = 1,
        deadline_seconds: float = 60,
        announced: int | None = None,
    ) -> RoundView:
        """Open a round on top of the last committed one."""
        spec = RoundSpec(
            job_uid=JOB,
            term=1,
            attempt=attempt,
            base=self.base,
            participants=tuple(Participant(client=i, name=f"client-{i}", max_examples=announced) for i in clients),
            clients_per_round=len(clients),
            min_reports=min_reports or len(clients),
            deadline_seconds=deadline_seconds,
        )
        return RoundView.model_validate(self._good("PUT", routes.round_path(number), spec))

    def view(self, number: int) -> RoundView:
        """Where a round is."""
        return RoundView.model_validate(self._good("GET", routes.round_path(number)))

    def committed(self, number: int, seconds: float = CHANGE_SECONDS) -> RoundRecord:
        """Wait for the commit of a round."""
        durable = (RoundState.COMMITTED, RoundState.EVALUATED)
        wait_until(lambda: self.view(number).state in durable, f"the commit of round {number}", seconds)
        record = self.view(number).record
        assert record is not None
        self.base = Base(round=number, digest=record.digest)
        return record

    def start_with(self, model: Mapping[str, Array]) -> RoundRecord:
        """Make a model round 0."""
        self.open(0, (0,))
        assert self.upload(0, 0, encode(model))[0] == 200
        return self.committed(0)

    def upload(self, number: int, client: int, body: bytes, **changes: str) -> tuple[int, dict[str, Any]]:
        """Upload a body with honest headers, or with changed ones."""
        return self.call("PUT", routes.update_path(number, client), body, self.headers(body, **changes))

    def headers(self, body: bytes, *, attempt: int = 1, **changes: str) -> dict[str, str]:
        """Honest headers of an upload, changed by their constants' names: ``examples="-1"``."""
        honest = {
            "media": ("Content-Type", routes.SAFETENSORS_MEDIA_TYPE),
            "job": (routes.JOB_HEADER, JOB),
            "term": (routes.TERM_HEADER, "1"),
            "attempt": (routes.ATTEMPT_HEADER, str(attempt)),
            "boot": (routes.BOOT_HEADER, self.boot_id),
            "examples": (routes.EXAMPLES_HEADER, "10"),
            "digest": (routes.DIGEST_HEADER, xxh3_of(body)),
        }
        return {header: changes.get(name, value) for name, (header, value) in honest.items()}

    def upload_partly(self, number: int, client: int, body: bytes, sent: int) -> None:
        """Announce a body, send the beginning of it, and go away."""
        headers = {
            **self.headers(body),
            routes.PROTOCOL_HEADER: str(PROTOCOL_VERSION),
            "Content-Length": str(len(body)),
        }
        lines = [f"PUT {routes.update_path(number, client)} HTTP/1.1", "Host: aggregator"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        with socket.create_connection(self.address, timeout=CALL_SECONDS) as connection:
            connection.sendall("\r\n".join([*lines, "", ""]).encode() + body[:sent])

    def report_failure(self, number: int, client: int, *, attempt: int = 1) -> None:
        """Say for a client that it will not report."""
        report = FailureReport(
            job_uid=JOB, term=1, attempt=attempt, boot_id=self.boot_id, reason=Reason.CLIENT_LOST, message="by hand"
        )
        self._good("PUT", routes.failure_path(number, client), report)

    def _good(self, method: str, path: str, body: BaseModel | None = None) -> dict[str, Any]:
        data = body.model_dump_json(by_alias=True).encode() if body else b""
        status, answer = self.call(method, path, data, {"Content-Type": "application/json"})
        assert status < 400, answer
        return answer


@contextmanager
def aggregator(folder: Path, *arguments: str) -> Iterator[AggregatorByHand]:
    """Start a real aggregator on a folder, and end it."""
    folder.mkdir(exist_ok=True)
    with (folder / "stderr.log").open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "fedjob_aggregator", "--port", "0", "--dir", str(folder / "data"), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment(**{LIFELINE_VARIABLE: "stdin"}),
        )
    with process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, (folder / "stderr.log").read_text(encoding="utf-8")
            yield AggregatorByHand(process, Announcement.model_validate_json(line))
        finally:
            process.terminate()
            try:
                process.wait(CALL_SECONDS)
            finally:
                process.kill()
