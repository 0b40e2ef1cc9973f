"""A small fake node: scheduler and kubelet in one, whose containers are processes of this machine.

It takes the pods that the operator makes, gives each an address of its own in 127/8, starts the program that the
container's name stands for, and reports what a real kubelet would. What goes wrong in a cluster can be provoked: by the
image (`missing/…` cannot be pulled, `wrong/…` lacks the program), by the annotation `START_DELAY`, and by the methods
of `Kubelet`.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.cluster.access import MERGE, Access, path
from tests.support.cluster.addresses import Addresses
from tests.support.cluster.pod import PodLife, Removed
from tests.support.cluster.programs import Launch, start

log = logging.getLogger(__name__)

Document = dict[str, Any]

SELECTOR = "app.kubernetes.io/managed-by=fedjob-operator"
NODE = "fake-node"
GPU = "nvidia.com/gpu"
RELIST_SECONDS = 0.2
MOST_TRIES = 10
"""Of one call to the API server, which a busy machine may keep from answering."""
RETRY_SECONDS = 0.5
Pod = tuple[str, str]
"""Namespace and name."""


class Kubelet:
    """The node and its pods.

    Args:
        access: An identity that may do everything.
        folder: Where pods and volumes live.
        gpus: GPUs of the node.
        launch: Starts the programs of containers.
    """

    def __init__(self, access: Access, folder: Path, *, gpus: int = 0, launch: Launch = start) -> None:
        self.folder = folder
        self.numba_cache = folder / "numba"
        self.addresses = Addresses()
        self.gpus = gpus
        self.most_held = 0
        """Most GPUs that were held at a time since they were counted."""
        self._refusals = 0
        self.launch = launch
        self.errors: list[BaseException] = []
        """What went wrong in here: a bug of this file or of the API server's set-up."""
        self._access = access
        self._lives: dict[str, tuple[PodLife, asyncio.Task[None]]] = {}
        self._held: dict[str, int] = {}
        self._session: aiohttp.ClientSession | None = None
        self._watcher: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Create the node and begin to take pods."""
        self.numba_cache.mkdir(parents=True, exist_ok=True)
        tls = self._access.tls()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls if tls is not None else True, limit=0),
            headers={"Authorization": f"Bearer {self._access.token}"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
        )
        await self.call(
            "POST", path("nodes"), {"kind": "Node", "apiVersion": "v1", "metadata": {"name": NODE}}, fine=409
        )
        await self.set_gpus(self.gpus)
        self._watcher = asyncio.create_task(self._watch_forever())

    async def stop(self) -> None:
        """Kill all programs and go."""
        if self._watcher:
            self._watcher.cancel()
        tasks = [task for _, task in self._lives.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for life, _ in self._lives.values():
            await life.kill()
        if self._session:
            await self._session.close()
        self.addresses.close()

    # What can be provoked

    async def set_gpus(self, count: int) -> None:
        """Let the node have so many GPUs."""
        self.gpus = count
        resources = {"cpu": "64", "memory": "256Gi", "pods": "500", GPU: str(count)}
        status = {
            "capacity": resources,
            "allocatable": resources,
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
        }
        await self.call("PATCH", path("nodes", None, NODE, "status"), {"status": status})

    async def refuse_gpus(self, count: int) -> None:
        """Refuse the next pods that ask for GPUs when they arrive, as where a device plugin went away."""
        self._refusals = count

    async def crash(self, pod: Pod) -> None:
        """Kill a pod's program."""
        await self._life(pod).crash()

    async def run_out_of_memory(self, pod: Pod) -> None:
        """Kill a pod's program for using more memory than its limit."""
        await self._life(pod).crash(oom=True)

    async def evict(self, pod: Pod, message: str) -> None:
        """Remove a pod from the node because the node is short of something."""
        await self._life(pod).evict(message)

    async def lose_node_of(self, pod: Pod) -> None:
        """Let the node of a pod be gone: nothing answers, nothing is reported, deletion is not honoured."""
        await self._life(pod).vanish()

    async def collect(self, pod: Pod) -> None:
        """Remove a pod of a lost node, as the pod garbage collector does."""
        await self._life(pod).collect()

    def pid(self, pod: Pod) -> int | None:
        """The process of a pod; ``None`` while there is none."""
        return self._life(pod).pid

    def log(self, pod: Pod) -> str:
        """What a pod's program wrote."""
        return self._life(pod).log()

    def programs(self) -> dict[Pod, int]:
        """All processes that live, by pod."""
        lives = (life for life, _ in self._lives.values())
        return {life.key: life.pid for life in lives if life.pid is not None}

    def _life(self, pod: Pod) -> PodLife:
        for life, _ in self._lives.values():
            if life.key == pod:
                return life
        raise LookupError(f"no pod {pod} on the node; there are {sorted(life.key for life, _ in self._lives.values())}")

    # What a pod's life needs of its node

    def hold_gpus(self, uid: str, count: int) -> bool:
        """Take GPUs for a pod; ``False`` if they are not there."""
        if sum(self._held.values()) + count > self.gpus:
            return False
        if count:
            self._held[uid] = count
            self.most_held = max(self.most_held, sum(self._held.values()))
        return True

    def refuses_gpus(self) -> bool:
        """Whether the device plugin has nothing to give to a pod that was promised GPUs."""
        self._refusals -= 1
        return self._refusals >= 0

    def release_gpus(self, uid: str) -> None:
        """Give a pod's GPUs back."""
        self._held.pop(uid, None)

    async def call(self, method: str, where: str, body: Any = None, *, fine: int | None = None) -> Document:
        """Call the API server.

        Args:
            method: HTTP method; a PATCH is a merge patch.
            where: Path and query.
            body: JSON.
            fine: A status that counts as success besides the usual ones.

        Raises:
            Removed: What was called for is gone.
            RuntimeError: Any other refusal.
        """
        for _ in range(MOST_TRIES - 1):
            try:
                return await self._call(method, where, body, fine)
            except (aiohttp.ClientError, TimeoutError) as error:
                log.info("%s %s: %s; trying again", method, where, error)
                await asyncio.sleep(RETRY_SECONDS)
        return await self._call(method, where, body, fine)

    async def _call(self, method: str, where: str, body: Any, fine: int | None) -> Document:
        assert self._session is not None
        kind = MERGE if method == "PATCH" else "application/json"
        data = None if body is None else json.dumps(body)
        async with self._session.request(
            method, self._access.url + where, data=data, headers={"Content-Type": kind}
        ) as answer:
            text = await answer.text()
            if answer.status == 404 and fine != 404:
                raise Removed(where)
            if answer.status >= 400 and answer.status != fine:
                raise RuntimeError(f"{method} {where}: {answer.status} {text[:500]}")
            document: Document = json.loads(text)
            return document

    # Watching

    async def _watch_forever(self) -> None:
        where = f"{path('pods')}?labelSelector={SELECTOR}"
        while True:
            try:
                listed = await self.call("GET", where)
                pods = {pod["metadata"]["uid"]: pod for pod in listed["items"]}
                for uid in self._lives.keys() - pods.keys():
                    self._forget(uid)
                for pod in pods.values():
                    self._see(pod)
                async for event in self._events(where, listed["metadata"]["resourceVersion"]):
                    self._take(event)
            except (aiohttp.ClientError, TimeoutError, RuntimeError) as error:
                log.info("the watch of pods ended: %s", error)
            await asyncio.sleep(RELIST_SECONDS)

    async def _events(self, where: str, version: str) -> AsyncIterator[Document]:
        assert self._session is not None
        url = f"{self._access.url}{where}&watch=1&allowWatchBookmarks=true&resourceVersion={version}"
        async with self._session.get(url, read_bufsize=1 << 22) as stream:
            async for line in stream.content:
                event: Document = json.loads(line)
                if event["type"] == "ERROR":
                    return
                yield event

    def _take(self, event: Document) -> None:
        if event["type"] in ("ADDED", "MODIFIED"):
            self._see(event["object"])
        elif event["type"] == "DELETED":
            self._forget(event["object"]["metadata"]["uid"])

    def _see(self, pod: Document) -> None:
        uid = pod["metadata"]["uid"]
        if uid in self._lives:
            self._lives[uid][0].update(pod)
            return
        life = PodLife(self, pod)
        task = asyncio.create_task(life.run(), name=pod["metadata"]["name"])
        task.add_done_callback(self._ended)
        self._lives[uid] = (life, task)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        with suppress(asyncio.CancelledError):
            error = task.exception()
            if error is not None and not isinstance(error, Removed):
                log.error("a pod's life failed", exc_info=error)
                self.errors.append(error)

    def _forget(self, uid: str) -> None:
        """The object is gone: whatever is left of the pod goes, too."""
        found = self._lives.pop(uid, None)
        self.release_gpus(uid)
        if found:
            life, task = found
            task.cancel()
            life.kill_now()
