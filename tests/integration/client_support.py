"""A real client process, and a small aggregator that does what a test tells it."""

import asyncio
import json
import os
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from aiohttp import web

from fedjob_protocol.config import ClientConfig
from fedjob_protocol.digests import sha256_of
from fedjob_protocol.weights import decode, encode
from tests.integration.client_trainers import FOLDER

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "a token"
SECONDS = 20.0
"""Longest that a test waits for something that should come at once."""


@dataclass
class Client:
    """A client process under test."""

    process: subprocess.Popen[bytes]
    url: str
    folder: Path

    def notes(self) -> list[str]:
        """What the trainer did."""
        path = self.folder / "notes"
        return path.read_text().splitlines() if path.exists() else []

    def hold(self) -> None:
        """Make trainings wait."""
        (self.folder / "hold").touch()

    def release(self) -> None:
        """Let trainings go on."""
        (self.folder / "hold").unlink()


def a_config(**values: Any) -> ClientConfig:
    """A job's client with the trainer that tests steer."""
    plain = {
        "job_uid": "job-1",
        "job_name": "digits",
        "index": 2,
        "name": "clients-2",
        "model": {"name": "own"},
        "data": {"name": "own"},
        "trainer": "tests.integration.client_trainers:Gated",
        "trainer_path": str(ROOT),
    }
    return ClientConfig.model_validate(plain | values)


def environment(folder: Path, config: ClientConfig | None, *, token: str | None = TOKEN, **more: str) -> dict[str, str]:
    """The environment of a client process."""
    values = {**os.environ, FOLDER: str(folder), "FEDJOB_LIFELINE": "stdin", **more}
    if config is not None:
        values["FEDJOB_CONFIG"] = config.model_dump_json(by_alias=True, exclude_none=True)
    if token is not None:
        values["FEDJOB_TOKEN"] = token
    return values


COMMAND = [sys.executable, "-P", "-m", "fedjob_client", "--port", "0"]


@contextmanager
def a_client(folder: Path, config: ClientConfig | None, *arguments: str, token: str | None = TOKEN) -> Iterator[Client]:
    """Start a client, wait until it serves, and end it."""
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment(folder, config, token=token),
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, (folder / "log").read_text()
        yield Client(process, json.loads(line)["url"], folder)
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


@dataclass
class Received:
    """One upload or failure report."""

    label: str
    headers: dict[str, str]
    body: bytes

    def arrays(self) -> dict[str, np.ndarray]:
        """The tensors of an upload."""
        return {name: np.array(array) for name, array in decode(self.body)[0].items()}


Behaviour = Callable[[web.Request], Any]


@dataclass
class FakeAggregator:
    """Serves one model, takes uploads and failure reports; misbehaves as often as it is told."""

    url: str = ""
    model: bytes = b""
    uploads: list[Received] = field(default_factory=list)
    failures: list[Received] = field(default_factory=list)
    fetches: int = 0
    tokens: list[str | None] = field(default_factory=list)
    """That the model was fetched with."""
    on_fetch: deque[Behaviour] = field(default_factory=deque)
    on_upload: deque[Behaviour] = field(default_factory=deque)
    on_expect: deque[Behaviour] = field(default_factory=deque)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def digest(self) -> str:
        """Of the model."""
        return sha256_of(self.model)

    def serve(self, **arrays: np.ndarray) -> None:
        """Have a model."""
        self.model = encode(arrays)

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait until something is so."""
        async with asyncio.timeout(SECONDS), self.changed:
            await self.changed.wait_for(condition)

    async def note(self) -> None:
        """Something changed."""
        async with self.changed:
            self.changed.notify_all()

    async def get_model(self, request: web.Request) -> web.StreamResponse:
        self.fetches += 1
        self.tokens.append(request.headers.get("Fedjob-Token"))
        behaviour = self.on_fetch.popleft() if self.on_fetch else None
        await self.note()
        return web.Response(body=self.model) if behaviour is None else await behaviour(request)

    async def put_update(self, request: web.Request) -> web.StreamResponse:
        if self.on_upload:
            try:
                return await self.on_upload.popleft()(request)
            finally:
                await self.note()
        self.uploads.append(Received(request.match_info["label"], dict(request.headers), await request.read()))
        await self.note()
        return web.Response(status=201)

    async def put_failure(self, request: web.Request) -> web.StreamResponse:
        self.failures.append(Received(request.match_info["label"], dict(request.headers), await request.read()))
        await self.note()
        return web.json_response({})

    async def expect(self, request: web.Request) -> web.StreamResponse | None:
        if self.on_expect:
            return await self.on_expect.popleft()(request)
        assert request.transport is not None
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return None

    def destination(
        self, label: str = "a", *, term: int = 1, attempt: int = 1, seconds: float = 30.0
    ) -> dict[str, Any]:
        """Where a task's result goes; the label tells uploads apart."""
        return {
            "term": term,
            "attempt": attempt,
            "bootId": f"boot-{label}",
            "uploadUrl": f"{self.url}/up/{label}",
            "failureUrl": f"{self.url}/fail/{label}",
            "deadlineSeconds": seconds,
        }

    def task(self, round_number: int, destination: dict[str, Any] | None = None, **parameters: Any) -> dict[str, Any]:
        """A training task that starts from the model."""
        return {
            "jobUid": "job-1",
            "base": {"round": round_number - 1, "digest": self.digest},
            "config": {"seed": 5, "epochs": 2, "parameters": parameters},
            "modelUrl": f"{self.url}/model",
            "destination": destination or self.destination(),
        }


@asynccontextmanager
async def an_aggregator() -> AsyncIterator[FakeAggregator]:
    """Start the small aggregator in the test's own event loop."""
    fake = FakeAggregator()
    fake.serve(w=np.arange(4, dtype=np.float32))
    app = web.Application(client_max_size=1 << 30)
    app.router.add_get("/model", fake.get_model)
    app.router.add_put("/up/{label}", fake.put_update, expect_handler=fake.expect)
    app.router.add_put("/fail/{label}", fake.put_failure)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield fake
    finally:
        await runner.cleanup()


class Api:
    """Calls to a client, as the operator makes them."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, Any]]:
        """Status and JSON of an answer."""
        sent = {"Fedjob-Token": TOKEN} | {name.replace("_", "-"): value for name, value in headers.items()}
        async with self._session.request(method, self._url + path, json=body, headers=sent) as response:
            return response.status, await response.json(content_type=None)

    async def train(self, round_number: int, task: dict[str, Any]) -> dict[str, Any]:
        """Post a training task that has to be accepted."""
        status, view = await self.call("POST", f"/v1/rounds/{round_number}/train", task)
        assert status == 200, view
        return view

    async def view(self, round_number: int) -> dict[str, Any]:
        """Where a round's task is."""
        return (await self.call("GET", f"/v1/rounds/{round_number}"))[1]

    async def until(self, round_number: int, *states: str) -> dict[str, Any]:
        """Wait for a state of a task."""
        async with asyncio.timeout(SECONDS):
            while (view := await self.view(round_number))["state"] not in states:  # noqa: ASYNC110 - across processes
                await asyncio.sleep(0.01)
        return view


@asynccontextmanager
async def an_api(url: str) -> AsyncIterator[Api]:
    """Talk to a client."""
    async with aiohttp.ClientSession() as session:
        yield Api(session, url)
