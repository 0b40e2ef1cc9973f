"""An event loop in a thread of its own, so that tests can be plain functions while servers of theirs go on."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

CALL_SECONDS = 60.0
"""Longest that a call into the loop may take; more is a bug in it."""


CLOSE_SECONDS = 10.0
"""How long the peers of connections that are closed may take to agree."""


class Background:
    """A running event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.SelectorEventLoop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cluster", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop and return what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_SECONDS)

    def close(self) -> None:
        """End the loop; whatever still runs in it is cancelled."""
        self.run(_cancel_all())
        self.run(self._until_closed())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _until_closed(self) -> None:
        """Wait for connections that are being closed: one with TLS waits for the word of its peer."""
        deadline = self._loop.time() + CLOSE_SECONDS
        sockets = self._loop._selector.get_map()  # type: ignore[attr-defined] - nobody else knows them
        while len(sockets) > 1 and self._loop.time() < deadline:  # noqa: ASYNC110 - one of them wakes the loop itself
            await asyncio.sleep(0.01)


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
