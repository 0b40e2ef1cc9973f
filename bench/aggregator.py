"""A real aggregator process, and the calls that an operator and clients make, without what they would compute."""

import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np
from children import Child, server

from fedjob_protocol import PROTOCOL_VERSION, routes
from fedjob_protocol.digests import xxh3_of
from fedjob_protocol.messages import Base, Participant, RoundRecord, RoundSpec, RoundView
from fedjob_protocol.round import RoundState
from fedjob_protocol.weights import encode

JOB: Final = "bench"
TENSORS: Final = 50
ELEMENTS: Final = 500_000
"""Of each tensor; together 25 million float32, 100 MB."""
MODEL_BYTES: Final = TENSORS * ELEMENTS * 4
CALL_SECONDS: Final = 120.0
COMMIT_WAIT_SECONDS: Final = 25


def model_and_update(seed: int = 1) -> tuple[memoryview, memoryview]:
    """The bytes of a model of 100 MB and of an update of it: normal numbers, the update's with deviation 0.01."""
    generator = np.random.default_rng(seed)
    names = [f"layer{number:02d}" for number in range(TENSORS)]
    values = generator.standard_normal((2, TENSORS, ELEMENTS), dtype=np.float32)
    values[1] *= np.float32(0.01)
    return tuple(memoryview(encode(dict(zip(names, part, strict=True)))) for part in values)  # type: ignore[return-value]


class Connection:
    """A kept-alive HTTP connection that sends bodies from memory as they are."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._http = http.client.HTTPConnection(parts.hostname, parts.port, timeout=CALL_SECONDS)
        self._http.connect()
        self._http.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def call(self, method: str, path: str, body: bytes | memoryview = b"", **headers: str) -> bytes:
        """Make a call and return the answer's body; an answer that is an error ends the measurement."""
        self._http.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers.items():
            self._http.putheader(name.replace("_", "-"), value)
        self._http.putheader(routes.PROTOCOL_HEADER, str(PROTOCOL_VERSION))
        self._http.putheader("Content-Length", str(len(body)))
        self._http.endheaders()
        if body:
            self._http.sock.sendall(body)
        answer = self._http.getresponse()
        text = answer.read()
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status}: {text[:2000].decode(errors='replace')}")
        return text

    def close(self) -> None:
        """Close it."""
        self._http.close()


class Rounds:
    """The operator's calls for one job on one aggregator."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self._connection = Connection(child.url)
        self._base: Base | None = None

    def open(self, number: int, clients: int) -> None:
        """Open a round that closes when all its clients have reported."""
        spec = RoundSpec(
            job_uid=JOB,
            term=1,
            attempt=1,
            base=self._base,
            participants=tuple(Participant(client=index, name=f"client-{index}") for index in range(clients)),
            clients_per_round=clients,
            min_reports=clients,
            deadline_seconds=600,
        )
        self._json("PUT", routes.round_path(number), spec.model_dump_json(by_alias=True).encode())

    def wait_committed(self, number: int) -> RoundRecord:
        """Wait until the round is committed."""
        deadline = time.monotonic() + CALL_SECONDS
        while time.monotonic() < deadline:
            view = self._json("GET", f"{routes.round_path(number)}?wait={COMMIT_WAIT_SECONDS}")
            if view.state in (RoundState.COMMITTED, RoundState.EVALUATED):
                assert view.record is not None
                self._base = Base(round=number, digest=view.record.digest)
                return view.record
            if view.state is not RoundState.OPEN and view.state is not RoundState.COMMITTING:
                raise RuntimeError(f"round {number} is {view.state}: {view.refused} {view.failed}")
        raise RuntimeError(f"round {number} was not committed within {CALL_SECONDS} s")

    def start_with(self, model: memoryview) -> None:
        """Make the initial model round 0."""
        self.open(0, 1)
        self.upload(self._connection, 0, 0, model, xxh3_of(model))
        self.wait_committed(0)

    def upload(self, connection: Connection, number: int, client: int, body: memoryview, digest: str) -> float:
        """Upload an update whose digest is known; return the seconds until it was verified and folded."""
        headers: dict[str, Any] = {
            "Content_Type": routes.SAFETENSORS_MEDIA_TYPE,
            routes.JOB_HEADER: JOB,
            routes.TERM_HEADER: "1",
            routes.ATTEMPT_HEADER: "1",
            routes.BOOT_HEADER: self.child.boot_id,
            routes.EXAMPLES_HEADER: "100",
            routes.DIGEST_HEADER: digest,
        }
        began = time.perf_counter()
        connection.call("PUT", routes.update_path(number, client), body, **headers)
        return time.perf_counter() - began

    def close(self) -> None:
        """Close the operator's connection."""
        self._connection.close()

    def _json(self, method: str, path: str, body: bytes = b"") -> RoundView:
        raw = self._connection.call(method, path, body, Content_Type="application/json")
        return RoundView.model_validate(json.loads(raw))


@contextmanager
def aggregator(folder: Path, *, staging_bytes: int | None = None, replica: str | None = None) -> Iterator[Child]:
    """Start the real aggregator on an empty folder, and end it.

    Args:
        folder: Its folder; the log lies beside it.
        staging_bytes: Memory that uploads may wait in; ``None`` leaves the default, one model.
        replica: Its name where it is one of several.
    """
    arguments = ["-P", "-m", "fedjob_aggregator", "--host", "127.0.0.1", "--port", "0", "--dir", str(folder)]
    if staging_bytes is not None:
        arguments += ["--staging-bytes", str(staging_bytes)]
    if replica is not None:
        arguments += ["--replica", replica]
    with server(arguments, folder.with_suffix(".log")) as child:
        yield child
