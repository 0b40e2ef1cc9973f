"""One body on its way in: the event loop fills, a worker thread verifies and stores, both at the same time."""

import asyncio
from concurrent.futures import Executor
from typing import Protocol

from fedjob_aggregator.staging import Sink
from fedjob_aggregator.verification import Verifier
from fedjob_protocol.errors import Refusal, Word


class Body(Protocol):
    """Where the bytes of a request come from."""

    async def into(self, reception: "Reception", length: int) -> None:
        """Move the whole body, which has this length.

        Raises:
            Refusal: ``truncated``: the connection ended before the body did.
        """


class Reception:
    """Moves a body through a sink and a verifier.

    Args:
        sink: Where the body is kept.
        verifier: Who looks at it.
        workers: Threads to verify in.
    """

    def __init__(self, sink: Sink, verifier: Verifier, workers: Executor) -> None:
        self.received_bytes = 0
        self._sink = sink
        self._verifier = verifier
        self._workers = workers
        self._working: asyncio.Future[None] | None = None
        self._room = asyncio.Event()
        self._error: BaseException | None = None

    def space(self) -> memoryview:
        """Where the next bytes go; empty while there is no room (see `room`)."""
        return self._sink.space()

    def advance(self, count: int) -> None:
        """The next ``count`` bytes were written to `space`."""
        self.received_bytes += count
        self._sink.advance(count)
        self._work()

    async def room(self) -> None:
        """Wait until `space` is not empty.

        Raises:
            Refusal: ``storage-full``: the disk does not take what is there.
        """
        while not self._sink.space():
            self._room.clear()
            await self._room.wait()
            self._check()

    async def finish(self) -> None:
        """Wait until everything that was received is verified and stored.

        Raises:
            Refusal: ``storage-full``: the disk did not take it.
        """
        await self.settle()
        self._check()

    async def settle(self) -> None:
        """Wait until no thread works for this body; never raises."""
        while self._working is not None:
            await asyncio.wait([self._working])

    def _work(self) -> None:
        if self._working is None and self._error is None and (block := self._sink.take()) is not None:
            self._working = asyncio.get_running_loop().run_in_executor(self._workers, self._take, block)
            self._working.add_done_callback(self._worked)

    def _take(self, block: memoryview) -> None:
        """In a worker thread."""
        self._verifier.feed(block)
        self._sink.store(block)

    def _worked(self, working: "asyncio.Future[None]") -> None:
        self._working = None
        self._error = self._error or working.exception()
        self._sink.release()
        self._room.set()
        self._work()

    def _check(self) -> None:
        if isinstance(self._error, OSError):
            raise Refusal(Word.STORAGE_FULL, f"the upload cannot be staged: {self._error}") from self._error
        if self._error is not None:
            raise self._error
