"""The bare loop's two programs: the exchange of a round without checks, arithmetic or disk.

``bare_programs.py server BYTES`` and ``bare_programs.py client`` use the same web server, settings and HTTP client as
the real programs, so that what the real ones take longer is what they do beyond moving the bytes.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from typing import Any, Final

import aiohttp
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from fedjob_protocol.lifeline import hold_lifeline
from fedjob_protocol.process import announce, base_url, listen

BLOCK_BYTES: Final = 1 << 20
WAIT_SECONDS: Final = 60.0


def server_app(model_bytes: int) -> FastAPI:
    """Aggregator: opens a round, serves a model, takes updates and drops them, answers when all are there."""
    app = FastAPI(openapi_url=None)
    model = memoryview(bytes(model_bytes))
    done = asyncio.Event()
    wanted = 0
    reports = 0

    async def _blocks() -> AsyncIterator[memoryview]:
        for begin in range(0, len(model), BLOCK_BYTES):
            yield model[begin : begin + BLOCK_BYTES]

    @app.put("/rounds/{number}")
    async def open_round(number: int, request: Request) -> dict[str, Any]:
        nonlocal wanted, reports
        wanted, reports = (await request.json())["clients"], 0
        done.clear()
        return {"round": number}

    @app.get("/model")
    async def get_model() -> Response:
        return StreamingResponse(_blocks(), headers={"Content-Length": str(len(model))})

    @app.put("/updates/{client}")
    async def put_update(client: int, request: Request) -> dict[str, Any]:
        nonlocal reports
        async for _ in request.stream():
            pass
        reports += 1
        if reports == wanted:
            done.set()
        return {"client": client}

    @app.get("/rounds/{number}")
    async def wait_for_round(number: int) -> dict[str, Any]:
        async with asyncio.timeout(WAIT_SECONDS):
            await done.wait()
        return {"round": number, "reports": reports}

    @app.put("/rounds/{number}/evaluation")
    async def put_evaluation(number: int, request: Request) -> dict[str, Any]:
        return {"round": number, **await request.json()}

    return app


def client_app() -> FastAPI:
    """Client: takes a task and answers at once, then fetches the model and uploads it again."""
    app = FastAPI(openapi_url=None)
    tasks: set[asyncio.Task[None]] = set()
    sessions: list[aiohttp.ClientSession] = []

    def _session() -> aiohttp.ClientSession:
        if not sessions:
            sessions.append(aiohttp.ClientSession(read_bufsize=BLOCK_BYTES))
        return sessions[0]

    async def _fetch(url: str) -> bytes:
        async with _session().get(url) as response:
            return await response.read()

    async def _work(task: dict[str, Any]) -> None:
        update = await _fetch(task["model"])
        async with _session().put(task["upload"], data=update) as response:
            await response.read()

    @app.post("/train")
    async def train(request: Request) -> dict[str, Any]:
        job = asyncio.create_task(_work(await request.json()))
        tasks.add(job)
        job.add_done_callback(tasks.discard)
        return {"state": "Training"}

    @app.post("/evaluate")
    async def evaluate(request: Request) -> dict[str, Any]:
        model = await _fetch((await request.json())["model"])
        return {"bytes": len(model), "accuracy": 0.5}

    return app


def main(arguments: list[str]) -> None:
    """Serve until the parent is gone."""
    app = server_app(int(arguments[1])) if arguments[0] == "server" else client_app()
    hold_lifeline(os.environ)
    listening = listen("127.0.0.1", 0)
    config = uvicorn.Config(app, http="httptools", loop="uvloop", log_level="warning", access_log=False)
    announce(f"bare-{arguments[0]}", base_url(listening), "bare")
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(uvicorn.Server(config).serve(sockets=[listening]))


if __name__ == "__main__":
    main(sys.argv[1:])
