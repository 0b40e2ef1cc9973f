"""A standby's calls of its leader: bounded answers and waits, checkpoints in blocks. Blocking; used by one thread."""

import http.client
import socket
from collections.abc import Iterator
from contextlib import suppress
from http import HTTPStatus
from typing import Final, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from fedjob_protocol.digests import Sha256
from fedjob_protocol.errors import FedJobError, Problem, Word
from fedjob_protocol.messages import RoundLog
from fedjob_protocol.replication import Holdings, Progress
from fedjob_protocol.routes import PROTOCOL_HEADER, ROUNDS_PATH, TOKEN_HEADER, copy_path, copy_state_path, standby_path
from fedjob_protocol.version import PROTOCOL_VERSION

CONNECT_SECONDS: Final = 3.0
IDLE_SECONDS: Final = 10.0
"""Longest time without a byte of an answer, beyond what was asked to wait."""
MAX_ANSWER_BYTES: Final = 64 << 20
"""Largest message that is read."""
BLOCK_BYTES: Final = 1 << 20
"""Read and written at a time."""
PAGE_ROUNDS: Final = 100
"""Records asked for at a time."""

Answer = TypeVar("Answer", bound=BaseModel)


class PeerError(FedJobError):
    """The leader gave no answer that can be used.

    Args:
        message: What was asked and what came back.
        word: The machine word of the answer, if it was a problem.
    """

    def __init__(self, message: str, *, word: str | None = None) -> None:
        super().__init__(message)
        self.word = word


class Peer:
    """One leader.

    Args:
        url: Where it answers.
        token: The job's; ``None`` sends none.
    """

    def __init__(self, url: str, token: str | None) -> None:
        parts = urlsplit(url)
        self._url = url
        self._host, self._port = parts.hostname or "", parts.port
        self._headers = {PROTOCOL_HEADER: str(PROTOCOL_VERSION), "Accept-Encoding": "identity"}
        if token is not None:
            self._headers[TOKEN_HEADER] = token
        self._connection: http.client.HTTPConnection | None = None
        self._is_closed = False

    def report(self, name: str, progress: Progress, wait_seconds: float) -> Holdings:
        """Say what is held here; answered as soon as the leader holds something else, or when the time is over.

        Raises:
            PeerError: There was no answer that can be used.
        """
        path = f"{standby_path(name)}?wait={wait_seconds:g}"
        body = progress.model_dump_json(by_alias=True).encode()
        return self._message(Holdings, "PUT", path, body, wait_seconds=wait_seconds)

    def records(self, since: int) -> RoundLog:
        """Complete records from a round on.

        Raises:
            PeerError: There was no answer that can be used.
        """
        return self._message(RoundLog, "GET", f"{ROUNDS_PATH}?since={since}&limit={PAGE_ROUNDS}", None)

    def checkpoint(self, round_number: int, *, total_bytes: int, digest: str) -> Iterator[memoryview]:
        """The blocks of a checkpoint; each is valid until the next one is taken.

        Raises:
            PeerError: It is not there, or it is not what it has to be; after the last block at the latest.
        """
        yield from self._file(copy_path(round_number), total_bytes=total_bytes, digest=digest)

    def state(self, round_number: int, *, total_bytes: int, digest: str) -> Iterator[memoryview]:
        """The blocks of what a strategy remembers after a round; as `checkpoint`.

        Raises:
            PeerError: It is not there, or it is not what it has to be; after the last block at the latest.
        """
        yield from self._file(copy_state_path(round_number), total_bytes=total_bytes, digest=digest)

    def _file(self, path: str, *, total_bytes: int, digest: str) -> Iterator[memoryview]:
        response = self._request("GET", path, None, IDLE_SECONDS)
        self._check(response, "GET", path)
        if response.length != total_bytes:
            raise self._failed("GET", path, f"{response.length} bytes are announced, {total_bytes} are expected")
        hasher, block, left = Sha256(), memoryview(bytearray(min(BLOCK_BYTES, max(total_bytes, 1)))), total_bytes
        while left:
            count = self._read_into(response, block[: min(left, len(block))], path)
            hasher.update(block[:count])
            left -= count
            yield block[:count]
        response.close()
        if hasher.digest() != digest:
            raise self._failed("GET", path, f"{hasher.digest()} arrived, {digest} is expected")

    def close(self) -> None:
        """End what is under way; may be called in another thread."""
        self._is_closed = True
        connection = self._connection
        if connection is not None and connection.sock is not None:
            with suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    def _message(
        self, kind: type[Answer], method: str, path: str, body: bytes | None, *, wait_seconds: float = 0.0
    ) -> Answer:
        response = self._request(method, path, body, wait_seconds + IDLE_SECONDS)
        self._check(response, method, path)
        content = self._content(response, method, path)
        try:
            return kind.model_validate_json(content)
        except ValidationError as error:
            raise self._failed(method, path, f"the answer is no {kind.__name__}: {str(error)[:200]}") from error

    def _request(self, method: str, path: str, body: bytes | None, timeout: float) -> http.client.HTTPResponse:
        try:
            connection = self._connect()
            if connection.sock is not None:
                connection.sock.settimeout(timeout)
            connection.request(method, path, body, self._headers)
            return connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise self._failed(method, path, f"{type(error).__name__}: {error}") from error

    def _connect(self) -> http.client.HTTPConnection:
        if self._connection is None:
            self._connection = http.client.HTTPConnection(self._host, self._port, timeout=CONNECT_SECONDS)
            self._connection.connect()
        if self._is_closed:
            raise OSError("it is not followed any more")
        return self._connection

    def _check(self, response: http.client.HTTPResponse, method: str, path: str) -> None:
        if response.length is None or response.getheader("Content-Encoding", "identity") != "identity":
            raise self._failed(method, path, "the answer does not announce its length, or is encoded")
        if response.status == HTTPStatus.OK:
            return
        content = self._content(response, method, path)
        try:
            problem = Problem.model_validate_json(content)
        except ValidationError:
            raise self._failed(method, path, f"status {response.status}") from None
        raise PeerError(f"{method} {self._url}{path}: {problem.word}: {problem.detail}", word=problem.word)

    def _content(self, response: http.client.HTTPResponse, method: str, path: str) -> bytes:
        length = response.length or 0
        if length > MAX_ANSWER_BYTES:
            raise self._failed(method, path, f"the answer has {length} bytes, more than {MAX_ANSWER_BYTES}")
        try:
            return response.read()
        except (OSError, http.client.HTTPException) as error:
            raise self._failed(method, path, f"{type(error).__name__}: {error}") from error

    def _read_into(self, response: http.client.HTTPResponse, block: memoryview, path: str) -> int:
        try:
            count = response.readinto(block)
        except (OSError, http.client.HTTPException) as error:
            raise self._failed("GET", path, f"{type(error).__name__}: {error}") from error
        if not count:
            raise self._failed("GET", path, "the connection ended before the checkpoint did")
        return count

    def _failed(self, method: str, path: str, why: str) -> PeerError:
        """An error after which nobody knows what comes next on the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        return PeerError(f"{method} {self._url}{path}: {why}")


def is_gone(error: PeerError) -> bool:
    """Whether the leader does not have what it was asked for any more."""
    return error.word == Word.NOT_FOUND
