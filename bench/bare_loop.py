"""Drives the bare loop: the floor that the round overhead is compared with."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final, TypeAlias

import aiohttp
import uvloop
from children import HERE, Child, server

PROGRAMS: Final = str(HERE / "bare_programs.py")

Call: TypeAlias = Callable[..., Awaitable[None]]
"""Method, URL and JSON body of a request."""


def bare_rounds(clients: int, rounds: int, folder: Path, *, evaluate: bool, model_bytes: int) -> list[float]:
    """Run the bare loop and return the seconds between the ends of consecutive rounds.

    One PUT opens the round; each client gets one POST, one GET of the model and one PUT of as many bytes; one long poll
    waits for all. With evaluation: one POST to an evaluator, which gets the model, and one PUT of its answer.
    """
    with ExitStack() as stack:
        log = folder / "bare.log"
        aggregator = stack.enter_context(server([PROGRAMS, "server", str(model_bytes)], log))
        workers = [stack.enter_context(server([PROGRAMS, "client"], log)) for _ in range(clients)]
        evaluator = stack.enter_context(server([PROGRAMS, "client"], log)) if evaluate else None
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_drive(aggregator, workers, evaluator, rounds))


async def _drive(aggregator: Child, workers: list[Child], evaluator: Child | None, rounds: int) -> list[float]:
    seconds = []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def call(method: str, url: str, body: object = None) -> None:
            async with session.request(method, url, json=body) as response:
                response.raise_for_status()
                await response.read()

        last = time.perf_counter()
        for number in range(1, rounds + 1):
            base = f"{aggregator.url}/rounds/{number}"
            await call("PUT", base, {"clients": len(workers)})
            tasks = [_task(call, worker, aggregator, index) for index, worker in enumerate(workers)]
            await asyncio.gather(call("GET", base), *tasks)
            if evaluator is not None:
                await call("POST", f"{evaluator.url}/evaluate", {"model": f"{aggregator.url}/model"})
                await call("PUT", f"{base}/evaluation", {"accuracy": 0.5})
            now = time.perf_counter()
            seconds.append(now - last)
            last = now
    return seconds


async def _task(call: Call, worker: Child, aggregator: Child, index: int) -> None:
    task = {"model": f"{aggregator.url}/model", "upload": f"{aggregator.url}/updates/{index}"}
    await call("POST", f"{worker.url}/train", task)
