"""The life of one pod on the fake node, from the scheduler to its removal."""

import asyncio
import re
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import aiohttp

from tests.support.cluster.access import path
from tests.support.cluster.addresses import Addresses
from tests.support.cluster.mounts import claims, mount
from tests.support.cluster.podstatus import (
    NO_SUCH_NODE,
    OOM_EXIT,
    PodStatus,
    claim_not_found,
    crash_looping,
    no_device,
    no_such_program,
    now,
    pull_backed_off,
    pull_failed,
    running,
    short_of_gpus,
    terminated,
    waiting,
)
from tests.support.cluster.programs import (
    Launch,
    MissingReferenceError,
    Place,
    Process,
    answers,
    environment,
    exit_code,
    last_words,
    secret_names,
    send,
)

Document = dict[str, Any]

START_DELAY = "kubelet.test/start-delay"
"""Annotation: seconds between the pod's binding and the start of its program, as for a large image."""
NODE = "fake-node"
NODE_ADDRESS = "127.0.0.1"
GPU = "nvidia.com/gpu"
LOOK_SECONDS = 0.2
"""Between looks at what a pod waits for, and between probes until it is ready the first time."""
PULL_SECONDS = 1.0
_SERVICE = re.compile(r"//([a-z0-9-]+\.[a-z0-9-]+\.svc):")
"""Name of a Service in a URL: there is no DNS here."""
MAX_BACK_OFF_SECONDS = 8.0


class Removed(Exception):  # noqa: N818 - no error
    """The object is gone."""


class Node(Protocol):
    """What a pod's life needs of its node."""

    folder: Path
    numba_cache: Path
    addresses: Addresses
    gpus: int
    launch: Launch

    def hold_gpus(self, uid: str, count: int) -> bool:
        """Take GPUs; ``False`` if they are not there."""
        ...

    def release_gpus(self, uid: str) -> None:
        """Give them back."""
        ...

    def refuses_gpus(self) -> bool:
        """Whether there are none, after all."""
        ...

    async def call(self, method: str, where: str, body: Any = None, *, fine: int | None = None) -> Document:
        """Call the API server."""
        ...


class PodLife:
    """One pod.

    Args:
        node: Its node.
        pod: The object as first seen.
    """

    def __init__(self, node: Node, pod: Document) -> None:
        metadata = pod["metadata"]
        self.key = (metadata["namespace"], metadata["name"])
        self._uid: str = metadata["uid"]
        self._node = node
        self._pod = pod
        self._status = PodStatus(containers=pod["spec"]["containers"])
        self._deleting = asyncio.Event()
        self._process: Process | None = None
        self._place: Place | None = None
        self._oom = False
        self._lost = False
        self._life: asyncio.Task[None] | None = None
        self.update(pod)

    @property
    def pid(self) -> int | None:
        """Of the process, while it lives."""
        alive = self._process is not None and self._process.returncode is None
        return self._process.pid if alive and self._process else None

    def log(self) -> str:
        """What the program wrote."""
        place = self._place
        return place.log.read_text(errors="replace") if place and place.log.exists() else ""

    def update(self, pod: Document) -> None:
        """Take in what the API server says now."""
        self._pod = pod
        if pod["metadata"].get("deletionTimestamp"):
            self._deleting.set()

    async def run(self) -> None:
        """Live until the object is gone."""
        self._life = asyncio.create_task(self._live())
        deleting = asyncio.create_task(self._deleting.wait())
        try:
            await asyncio.wait({self._life, deleting}, return_when=asyncio.FIRST_COMPLETED)
            if self._life.done() and not self._life.cancelled():
                self._life.result()
            await deleting
            if not self._lost:
                await _cancelled(self._life)
                await self._end()
        finally:
            deleting.cancel()
            await _cancelled(self._life)

    # What can be provoked

    async def crash(self, *, oom: bool = False) -> None:
        """Kill the program."""
        self._oom = oom
        assert self._process is not None
        send(self._process, signal.SIGKILL)

    async def evict(self, message: str) -> None:
        """End as a pod that the kubelet removes from a node under pressure."""
        await _cancelled(self._life)
        await self.kill()
        self._node.release_gpus(self._uid)
        self._ended(137, "Error", "The container was killed by the kubelet")
        self._status.phase, self._status.reason, self._status.message = "Failed", "Evicted", message
        self._status.condition("DisruptionTarget", holds=True, reason="TerminationByKubelet", message=message)
        await self._report()

    async def vanish(self) -> None:
        """End without a word, as with the node; the node controller then says that the pod is not ready."""
        self._lost = True
        await _cancelled(self._life)
        await self.kill()
        self._status.node_is_lost = True
        await self._report()

    async def collect(self) -> None:
        """Go for good, as the pod garbage collector removes pods of nodes that are gone."""
        message = "PodGC: node no longer exists"
        self._status.condition("DisruptionTarget", holds=True, reason="DeletionByPodGC", message=message)
        self._status.phase = "Failed"
        await self._report()
        await self._remove()

    def kill_now(self) -> None:
        """Kill the program without waiting."""
        if self._process is not None:
            send(self._process, signal.SIGKILL)

    async def kill(self) -> None:
        """Kill the program and wait until it is gone."""
        if self._process is not None:
            send(self._process, signal.SIGKILL)
            await self._process.wait()

    # From the scheduler to the end

    async def _live(self) -> None:
        await self._schedule()
        await self._bind()
        if self._gpus() and self._node.refuses_gpus():
            await self._refuse()
            return
        await mount(self._node, self._pod)
        self._status.condition("PodReadyToStartContainers", holds=True)
        await self._report()
        delay = float(self._pod["metadata"].get("annotations", {}).get(START_DELAY, 0))
        await asyncio.sleep(delay)
        container = self._status.containers[0]
        await self._pull(container["image"])
        if container["image"].startswith("wrong/"):
            await self._report_end(no_such_program(f"fedjob-{container['name']}", now()), succeeded=False)
            return
        while await self._run_once(container):
            await self._back_off(container)

    async def _schedule(self) -> None:
        """Wait for a node, saying what is missing."""
        said = None
        while problem := await self._unschedulable():
            if problem != said:
                self._status.condition("PodScheduled", holds=False, reason="Unschedulable", message=problem)
                await self._report()
                said = problem
            await asyncio.sleep(LOOK_SECONDS)

    async def _unschedulable(self) -> str | None:
        if self._pod["spec"].get("nodeSelector"):  # the node has no labels to select it by
            return NO_SUCH_NODE
        for name in claims(self._pod).values():
            if await self._claim(name) is None:
                return claim_not_found(name)
        gpus = self._gpus()
        if not self._node.hold_gpus(self._uid, gpus):
            return short_of_gpus(total_is_enough=gpus <= self._node.gpus)
        return None

    def _gpus(self) -> int:
        limits = (item.get("resources", {}).get("limits", {}) for item in self._status.containers)
        return sum(int(limit.get(GPU, 0)) for limit in limits)

    async def _refuse(self) -> None:
        """End as a pod that the kubelet does not admit."""
        self._node.release_gpus(self._uid)
        status = self._status
        status.phase, status.reason, status.message = "Failed", "UnexpectedAdmissionError", no_device(GPU)
        await self._report()

    async def _claim(self, name: str) -> Document | None:
        try:
            return await self._node.call("GET", path("persistentvolumeclaims", self.key[0], name))
        except Removed:
            return None

    async def _bind(self) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": self.key[1], "uid": self._uid},
            "target": {"kind": "Node", "name": NODE},
        }
        await self._node.call("POST", path("pods", *self.key, "binding"), body, fine=409)  # bound by a try before
        status = self._status
        status.condition("PodScheduled", holds=True)
        status.condition("Initialized", holds=True)
        status.condition("PodReadyToStartContainers", holds=False)
        status.ip, status.started = self._node.addresses.next(), now()
        self._place = await self._make_place(status.ip)
        await self._report()

    async def _make_place(self, address: str) -> Place:
        """A folder for the pod, and one for each claim that outlives it."""
        folder = self._node.folder / "pods" / f"{self.key[0]}-{self.key[1]}-{self._uid[:8]}"
        folder.mkdir(parents=True)
        volumes: dict[str, Path] = {}
        for volume, name in claims(self._pod).items():
            claim = await self._node.call("GET", path("persistentvolumeclaims", self.key[0], name))
            volumes[volume] = self._node.folder / "volumes" / claim["metadata"]["uid"]
            volumes[volume].mkdir(parents=True, exist_ok=True)
            if claim.get("status", {}).get("phase") != "Bound":
                bound = {"status": {"phase": "Bound"}}
                await self._node.call("PATCH", path("persistentvolumeclaims", self.key[0], name, "status"), bound)
        mounts = self._status.containers[0].get("volumeMounts", [])
        return Place(
            folder=folder,
            address=address,
            numba_cache=self._node.numba_cache,
            mounts={mount["mountPath"]: volumes[mount["name"]] for mount in mounts if mount["name"] in volumes},
        )

    async def _pull(self, image: str) -> None:
        if not image.startswith("missing/"):
            return
        while True:
            for state in (pull_failed(image), pull_backed_off(image)):
                if self._status.state != state:
                    self._status.state = state
                    await self._report()
                await asyncio.sleep(PULL_SECONDS)

    async def _run_once(self, container: Document) -> bool:
        """Run the program to its end; say whether it is to be started again."""
        place = self._place
        assert place is not None
        self._process = await self._node.launch(container, await self._environment(container, place), place)
        began = now()
        self._status.state = running(began)
        self._status.phase = "Running"
        await self._report()
        probing = asyncio.create_task(self._probe(container))
        try:
            code = exit_code(await self._process.wait())
        finally:
            await _cancelled(probing)
        reason = "OOMKilled" if self._oom else "Completed" if code == 0 else "Error"
        end = terminated(OOM_EXIT if self._oom else code, reason, last_words(container, place, code), began)
        self._oom = False
        if self._restarts(code):
            self._status.ready = False
            self._status.last = end
            return True
        await self._report_end(end, succeeded=code == 0)
        return False

    async def _environment(self, container: Document, place: Place) -> dict[str, str]:
        while True:
            secrets = {}
            for name in secret_names(container):
                with suppress(Removed):
                    secrets[name] = await self._node.call("GET", path("secrets", self.key[0], name))
            try:
                values = environment(container, secrets, place)
                return {name: await self._resolved(value) for name, value in values.items()}
            except MissingReferenceError as error:
                self._status.state = waiting("CreateContainerConfigError", str(error))
                await self._report()
                await asyncio.sleep(LOOK_SECONDS)

    async def _resolved(self, value: str) -> str:
        """A value of the environment with the names of Services replaced by the address of one of their pods."""
        for host in set(_SERVICE.findall(value)):
            name, namespace = host.split(".")[:2]
            service = await self._node.call("GET", path("services", namespace, name))
            wanted = ",".join(f"{key}={text}" for key, text in service["spec"]["selector"].items())
            pods = await self._node.call("GET", path("pods", namespace) + f"?labelSelector={quote(wanted)}")
            addresses = [pod["status"]["podIP"] for pod in pods["items"] if pod.get("status", {}).get("podIP")]
            value = value.replace(f"//{host}:", f"//{addresses[0]}:") if addresses else value
        return value

    def _restarts(self, code: int) -> bool:
        policy = self._pod["spec"]["restartPolicy"]
        return policy == "Always" or (policy == "OnFailure" and code != 0)

    async def _back_off(self, container: Document) -> None:
        """Start again: the first time at once, then after 1 s, 2 s, 4 s …"""
        seconds = 2.0 ** (self._status.restarts - 1) if self._status.restarts else 0.0
        self._status.restarts += 1
        if seconds:
            seconds = min(seconds, MAX_BACK_OFF_SECONDS)
            self._status.state = crash_looping(f"{self.key[1]}_{self.key[0]}({self._uid})", container["name"], seconds)
            await self._report()
            await asyncio.sleep(seconds)

    async def _probe(self, container: Document) -> None:
        """Follow the readiness probe, more often until it succeeds the first time."""
        probe = container.get("readinessProbe")
        if not probe:
            await self._set_ready(ready=True)
            return
        ports = {port["name"]: port["containerPort"] for port in container.get("ports", []) if "name" in port}
        get = probe["httpGet"]
        url = f"http://{self._status.ip}:{ports.get(get['port'], get['port'])}{get['path']}"
        timeout = aiohttp.ClientTimeout(total=probe.get("timeoutSeconds", 1))
        failures = 0
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                failures = 0 if await answers(session, url) else failures + 1
                if failures == 0:
                    await self._set_ready(ready=True)
                elif failures >= probe.get("failureThreshold", 3):
                    await self._set_ready(ready=False)
                await asyncio.sleep(probe.get("periodSeconds", 10) if self._status.ready else LOOK_SECONDS)

    async def _set_ready(self, *, ready: bool) -> None:
        if self._status.ready is not ready:
            self._status.ready = ready
            await self._report()

    async def _end(self) -> None:
        """Honour a deletion: ask the program to end, kill it after the grace period, remove the object."""
        grace = self._pod["metadata"].get("deletionGracePeriodSeconds", 30)
        process = self._process
        if process is not None and process.returncode is None:
            send(process, signal.SIGTERM)
            try:
                async with asyncio.timeout(grace):
                    await process.wait()
            except TimeoutError:
                await self.kill()
        await self._remove()

    async def _remove(self) -> None:
        self._node.release_gpus(self._uid)
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": self._uid}}
        with suppress(Removed):
            await self._node.call("DELETE", path("pods", *self.key), body, fine=409)

    def _ended(self, code: int, reason: str, message: str) -> None:
        if self._status.ip is not None:
            self._status.state = terminated(code, reason, message, self._status.started or now())
        self._status.ready = False

    async def _report_end(self, state: Document, *, succeeded: bool) -> None:
        self._node.release_gpus(self._uid)
        self._status.state = state
        self._status.ready = False
        self._status.phase = "Succeeded" if succeeded else "Failed"
        await self._report()

    async def _report(self) -> None:
        """Write the status; nobody else writes it."""
        document = {"status": self._status.document(NODE_ADDRESS)}
        await self._node.call("PATCH", path("pods", *self.key, "status"), document)


async def _cancelled(task: "asyncio.Task[None] | None") -> None:
    """Cancel a task and wait for its end; what it failed with does not matter any more."""
    if task is None:
        return
    task.cancel()
    with suppress(asyncio.CancelledError, Removed):
        await task
