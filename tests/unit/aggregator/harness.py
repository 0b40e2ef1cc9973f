"""The real application on a loopback port in the test's own event loop, and the calls of operator and clients."""

import asyncio
import io
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import aiohttp
import numpy as np
from uvicorn.server import ServerState

from fedjob_aggregator.app import create_app, create_registrations, create_service
from fedjob_aggregator.server import AggregatorProtocol, server_config
from fedjob_aggregator.settings import Settings
from fedjob_protocol.digests import xxh3_of
from fedjob_protocol.process import base_url, listen
from fedjob_protocol.weights import encode

JOB = "job-uid"
MODEL = {"bias": np.zeros(3), "weight": np.arange(10, dtype=np.float32).reshape(2, 5)}


def delta(value=1.0):
    return {"bias": np.full(3, value, np.float32), "weight": np.full((2, 5), value / 2, np.float32)}


def spec(base, *, clients=3, **changes):
    participants = [{"client": client, "name": f"client-{client}"} for client in range(clients)]
    body = {
        "jobUid": JOB,
        "term": 1,
        "attempt": 1,
        "base": base,
        "participants": participants,
        "clientsPerRound": clients,
        "minReports": 1,
        "deadlineSeconds": 60,
    }
    return body | changes


class Api:
    """Calls of one aggregator."""

    def __init__(self, url, service, session):
        self.url, self.service, self._session = url, service, session

    async def call(self, method, path, **arguments):
        if isinstance(arguments.get("data"), bytes):
            arguments["data"] = io.BytesIO(arguments["data"])  # aiohttp warns of large bytes
        async with self._session.request(method, self.url + path, **arguments) as response:
            is_json = "json" in response.headers.get("Content-Type", "")
            return response.status, await (response.json() if is_json else response.read()), response.headers

    async def get(self, path, **arguments):
        return (await self.call("GET", path, **arguments))[1]

    def headers(self, body, *, examples=10, attempt=1, term=1, digest=None, **changes):
        headers = {
            "Fedjob-Job-Uid": JOB,
            "Fedjob-Term": str(term),
            "Fedjob-Attempt": str(attempt),
            "Fedjob-Boot-Id": self.service.state.boot_id,
            "Fedjob-Examples": str(examples),
            "Fedjob-Digest": digest or xxh3_of(body),
        }
        return {name: value for name, value in (headers | changes).items() if value is not None}

    async def open(self, round_number, **changes):
        base = changes.pop("base", ...)
        if base is ...:
            base = await self.base()
        return await self.call("PUT", f"/v1/rounds/{round_number}", json=spec(base, **changes))

    async def base(self):
        committed = (await self.get("/v1/state"))["committed"]
        return committed and {"round": committed["round"], "digest": committed["digest"]}

    async def upload(self, round_number, client=0, body=None, **changes):
        body = encode(delta()) if body is None else body
        path = f"/v1/rounds/{round_number}/updates/{client}"
        return await self.call("PUT", path, data=body, headers=self.headers(body, **changes))

    async def wait(self, round_number):
        return await self.get(f"/v1/rounds/{round_number}?wait=20")

    async def initialise(self, model=MODEL):
        """Commit round 0."""
        await self.open(0, clients=1, maxModelBytes=1 << 30)
        status, answer, _ = await self.upload(0, body=encode(model))
        assert status == 200, answer
        return (await self.wait(0))["record"]


@asynccontextmanager
async def running(folder, *, disk=None, boot_id="boot", **settings):
    """A running aggregator."""
    options = Settings(folder=folder, **settings)
    service = create_service(options, boot_id=boot_id, wall_clock=lambda: datetime.now(UTC), disk=disk)
    registrations = create_registrations(options, wall_clock=lambda: datetime.now(UTC), disk=disk)
    config, state = server_config(create_app(options, service, registrations)), ServerState()
    loop = asyncio.get_running_loop()
    listening = listen("127.0.0.1", 0)
    url = base_url(listening)
    server = await loop.create_server(lambda: AggregatorProtocol(config, state, {}, loop), sock=listening)
    try:
        async with aiohttp.ClientSession() as session:
            yield Api(url, service, session)
    finally:
        server.close()
        service.stop()
        for connection in list(state.connections):
            connection.transport.abort()
        while state.tasks:
            await asyncio.wait(state.tasks)
        service.store.close()
