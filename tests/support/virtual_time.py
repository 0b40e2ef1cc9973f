"""An event loop without real time: where it would wait, its clock jumps to the next timer."""

import asyncio
import selectors
from collections.abc import Coroutine
from datetime import datetime, timedelta
from typing import Any, TypeVar

from tests.support.builders import EPOCH

T = TypeVar("T")


class StuckError(AssertionError):
    """Everybody waits for somebody, and no timer is set: this would hang for ever."""


class _Clock(selectors.DefaultSelector):
    """Tells the time, and passes it when it is asked to wait."""

    seconds = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise StuckError("all tasks wait and no timer is set")
        if not ready and timeout is not None:
            self.seconds += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs tasks as any event loop does, in no time. Nothing outside the process may be waited for."""

    def __init__(self) -> None:
        self._virtual_clock = _Clock()
        super().__init__(self._virtual_clock)

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self._virtual_clock.seconds


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run to the end."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(coroutine)


def now() -> datetime:
    """The wall clock of the running loop."""
    return EPOCH + timedelta(seconds=asyncio.get_running_loop().time())


async def settle() -> None:
    """Let everything happen that does not wait for time."""
    for _ in range(20):
        await asyncio.sleep(0)
