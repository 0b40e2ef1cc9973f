"""Remembers every version of the status of every job, by a watch of its own on the API server."""

import asyncio
import json
from contextlib import suppress

import aiohttp

from tests.faults.evidence import StatusSeen
from tests.support.cluster.access import Access, Document, path
from tests.support.cluster.background import Background
from tests.support.cluster.cluster import eventually

BUFFER_BYTES = 1 << 22


class Recorder:
    """The watch.

    Args:
        access: An identity that may watch all jobs.
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        self._histories: dict[str, list[StatusSeen]] = {}
        self._versions: dict[str, int] = {}
        self._background = Background()
        self._watching = self._background.run(self._begin())

    def history(self, namespace: str, *, until: str) -> tuple[StatusSeen, ...]:
        """The statuses of the job of a namespace in the order in which they were written.

        Args:
            namespace: Has one job.
            until: The ``resourceVersion`` that must have been seen.
        """
        eventually(lambda: self._versions.get(namespace, 0) >= int(until), f"version {until} on the recorder's watch")
        return tuple(self._histories[namespace])

    def close(self) -> None:
        """End the watch."""
        self._background.close()

    async def _begin(self) -> "asyncio.Task[None]":
        return asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        tls = self._access.tls()
        connector = aiohttp.TCPConnector(ssl=tls if tls is not None else True)
        headers = {"Authorization": f"Bearer {self._access.token}"}
        url = f"{self._access.url}{path('federatedjobs')}?watch=1&timeoutSeconds=3600"
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout) as session:
            with suppress(aiohttp.ClientError):
                async with session.get(url, read_bufsize=BUFFER_BYTES) as stream:
                    async for line in stream.content:
                        self._take(json.loads(line))

    def _take(self, event: Document) -> None:
        metadata = event["object"]["metadata"]
        if event["type"] in ("ADDED", "MODIFIED"):
            status = event["object"].get("status", {})
            seen = StatusSeen(
                term=status.get("term", 0),
                committed=status.get("rounds", {}).get("committed", -1),
                size=len(json.dumps(status, separators=(",", ":"))),
            )
            self._histories.setdefault(metadata["namespace"], []).append(seen)
            self._versions[metadata["namespace"]] = int(metadata["resourceVersion"])
