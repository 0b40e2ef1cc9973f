"""What may become of the events of a watch on their way."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

Document = dict[str, Any]

EXPIRED = {
    "kind": "Status",
    "apiVersion": "v1",
    "metadata": {},
    "status": "Failure",
    "message": "too old resource version: 1 (2)",
    "reason": "Expired",
    "code": 410,
}


class Streams:
    """Passes the events of all watches on, or not; what is set counts for those that are open, too."""

    def __init__(self) -> None:
        self.is_frozen = False
        """The streams are open and nothing comes; what happens meanwhile is never told."""
        self.repeats = 1
        """How often each event comes."""
        self.lose_every = 0
        """Every so many-th event of each kind of objects that changes or deletes something is lost; 0 loses none."""
        self.lost = 0
        """How many events were lost."""
        self._open = asyncio.Event()
        self._open.set()
        self._changes: dict[str, int] = {}

    def hold(self) -> None:
        """Tell nothing for now."""
        self._open.clear()

    def proceed(self) -> None:
        """Tell what was held, in its order, and go on."""
        self._open.set()

    async def passed_on(self, lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """What comes of the lines of a watch."""
        async for line in lines:
            await self._open.wait()
            if self.is_frozen or self._is_lost(line):
                self.lost += 1
                continue
            for _ in range(self.repeats):
                yield line

    def _is_lost(self, line: bytes) -> bool:
        if not self.lose_every:
            return False
        event = json.loads(line)
        if event["type"] not in ("MODIFIED", "DELETED"):
            return False
        kind = event["object"]["kind"]
        self._changes[kind] = self._changes.get(kind, 0) + 1
        return self._changes[kind] % self.lose_every == 0
