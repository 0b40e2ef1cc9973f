"""The one thread in which trainers run. It is a daemon: a process that is told to end does not wait for it."""

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from fedjob_protocol.errors import Refusal, Word

Result = TypeVar("Result")


class Worker:
    """Runs one function at a time, in the order in which they came; its thread starts with the first."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[asyncio.Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._waiting: set[asyncio.Future[Any]] = set()

    async def run(self, function: Callable[[], Result]) -> Result:
        """Return what a function returns, or raise what it raises.

        A function that waits in the queue when its caller is cancelled is never called; one that runs goes on, and its
        result is dropped.

        Raises:
            Refusal: ``unavailable``: the process ends.
        """
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._jobs.put((future, function))
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="worker", daemon=True)
            self._thread.start()
        self._waiting.add(future)
        try:
            return await future
        finally:
            self._waiting.discard(future)

    def stop_waiting(self) -> None:
        """Let everybody who waits for a result go: the process ends, and a function may run much longer."""
        for future in self._waiting:
            _settle(future, None, Refusal(Word.UNAVAILABLE, "this client is stopping"))

    def _serve(self) -> None:
        while True:
            future, function = self._jobs.get()
            if future.cancelled():
                continue
            result, error = None, None
            try:
                result = function()
            except BaseException as raised:  # noqa: BLE001 - also sys.exit() in a trainer; it belongs to the caller
                error = raised
            try:
                future.get_loop().call_soon_threadsafe(_settle, future, result, error)
            except RuntimeError:  # the loop is closed: the process ends
                return
            # Nothing of a training is kept while waiting for the next one.
            del future, function, result, error


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():  # cancelled meanwhile
        return
    if error is None:
        future.set_result(result)
    elif isinstance(error, Exception):
        future.set_exception(error)
    else:  # an event loop treats these as its own end
        future.set_exception(RuntimeError(f"{type(error).__name__}: {error}"))
