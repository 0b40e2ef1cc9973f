"""An API server with a fake node, and what tests of the operator do with them again and again."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tests.support.cluster.access import Access, Api, ApiError, path
from tests.support.cluster.apiserver import ApiServer
from tests.support.cluster.background import Background
from tests.support.cluster.kubelet import Kubelet, Pod
from tests.support.cluster.programs import Launch, start
from tests.support.cluster.proxy import Proxy

T = TypeVar("T")

Document = dict[str, Any]

CHANGE_SECONDS = 60.0
"""Deadline for something that is about to happen, generous: the machine may be busy."""
LOOK_SECONDS = 0.05
JOB_UID = "fedjob.dev/job-uid"
ROLE = "fedjob.dev/role"
OWNED = ("pods", "services", "secrets", "networkpolicies")
"""What goes when its job goes."""


def eventually(look: Callable[[], T], what: str, seconds: float = CHANGE_SECONDS) -> T:
    """Look again and again until what comes back counts as true, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(LOOK_SECONDS)
    return found


class Cluster:
    """The API server, the fake node, and calls as the administrator.

    Args:
        server: The API server.
        folder: Where the node keeps its pods and volumes.
        launch: How the node starts the programs of containers.
    """

    def __init__(self, server: ApiServer, folder: Path, *, launch: Launch = start) -> None:
        self.server = server
        self.folder = folder
        self.access = Access(url=server.url, token=server.admin_token, ca=server.ca)
        self.api = Api(self.access)
        self._background = Background()
        self._kubelet = Kubelet(self.access, folder / "node", launch=launch)
        self._background.run(self._kubelet.start())

    def close(self) -> None:
        """Stop the node and all programs on it."""
        self._background.run(self._kubelet.stop())
        self._background.close()
        self.api.close()

    @contextmanager
    def proxy(self) -> Iterator["ProxyHandle"]:
        """A proxy before the API server."""
        proxy = Proxy(self.access)
        self._background.run(proxy.start())
        try:
            yield ProxyHandle(proxy, self._background)
        finally:
            self._background.run(proxy.stop())

    # Jobs

    def submit(self, namespace: str, manifest: Document) -> Document:
        """Create a job."""
        return self.api.create("federatedjobs", namespace, manifest, fieldValidation="Strict")

    def apply(self, namespace: str, manifest: Document) -> None:
        """`kubectl apply` a manifest."""
        done = self.server.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(manifest))
        assert done.returncode == 0, done.stderr

    def job(self, namespace: str, name: str) -> Document:
        """The job as it is now."""
        return self.api.get("federatedjobs", namespace, name)

    def status(self, namespace: str, name: str) -> Document:
        """Its status; empty before the operator wrote any."""
        status: Document = self.job(namespace, name).get("status", {})
        return status

    def change(self, namespace: str, name: str, **spec: Any) -> Document:
        """Merge something into a job's spec."""
        return self.api.patch("federatedjobs", namespace, name, {"spec": spec})

    def mend(self, namespace: str, name: str, **group: Any) -> None:
        """Suspend a job, change what describes its clients' pods, resume it."""
        self.change(namespace, name, suspend=True)
        self.until_phase(namespace, name, "Suspended")
        (before,) = self.job(namespace, name)["spec"]["clientGroups"]
        changed = {key: value for key, value in {**before, **group}.items() if value is not None}
        self.change(namespace, name, suspend=False, clientGroups=[changed])

    def committed(self, namespace: str, name: str) -> int:
        """The last committed round that the status knows."""
        return int(self.status(namespace, name).get("rounds", {}).get("committed", -1))

    def until_committed(self, namespace: str, name: str, round_number: int, seconds: float = CHANGE_SECONDS) -> None:
        """Wait for the commit of a round."""
        what = f"commit of round {round_number} of {name}"
        self._watching(namespace, name, lambda: self.committed(namespace, name) >= round_number, what, seconds)

    def until_phase(self, namespace: str, name: str, *phases: str, seconds: float = CHANGE_SECONDS) -> Document:
        """Wait for a phase; return the status then."""

        def look() -> Document | None:
            status = self.status(namespace, name)
            return status if status.get("phase") in phases else None

        return self._watching(namespace, name, look, f"phase {' or '.join(phases)} of {name}", seconds)

    def until_reason(self, namespace: str, name: str, reason: str, seconds: float = CHANGE_SECONDS) -> Document:
        """Wait for a reason, of the phase or of a condition; return the condition, or the status."""

        def look() -> Document | None:
            status = self.status(namespace, name)
            found = [item for item in status.get("conditions", []) if item.get("reason") == reason]
            if found:
                return dict(found[0])
            return status if status.get("reason") == reason else None

        return self._watching(namespace, name, look, f"reason {reason} of {name}", seconds)

    def until(self, namespace: str, name: str, holds: Callable[[Document], object], what: str) -> Document:
        """Wait until something holds of the status; return the status then."""

        def look() -> Document | None:
            status = self.status(namespace, name)
            return status if holds(status) else None

        return self._watching(namespace, name, look, f"{what} of {name}", CHANGE_SECONDS)

    def condition(self, namespace: str, name: str, kind: str) -> Document:
        """A condition of a job; empty where it has none of that type."""
        conditions = self.status(namespace, name).get("conditions", [])
        return next((item for item in conditions if item["type"] == kind), {})

    def _watching(self, namespace: str, name: str, look: Callable[[], T], what: str, seconds: float) -> T:
        try:
            return eventually(look, what, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.describe(namespace, name)}") from None

    def delete(self, namespace: str, name: str) -> None:
        """Delete a job as kubectl does."""
        self.api.delete("federatedjobs", namespace, name, propagationPolicy="Background")

    def clear(self, namespace: str) -> None:
        """Delete all jobs and pods of a namespace, without waiting for anything."""
        self.api.call("DELETE", path("federatedjobs", namespace))
        self.api.call("DELETE", path("pods", namespace), gracePeriodSeconds="0")

    def clear_all(self) -> None:
        """Delete the jobs of all namespaces, and wait until they are gone."""
        for job in self.api.list("federatedjobs"):
            self.delete(job["metadata"]["namespace"], job["metadata"]["name"])
        eventually(lambda: not self.api.list("federatedjobs"), "the end of all jobs")

    def describe(self, namespace: str, name: str) -> str:
        """What is known of a job: for failures."""
        try:
            status = self.status(namespace, name)
        except ApiError as error:
            status = {"error": str(error)}
        pods = [
            {
                "name": pod["metadata"]["name"],
                "deleted": pod["metadata"].get("deletionTimestamp"),
                "phase": pod["status"].get("phase"),
                "containers": pod["status"].get("containerStatuses"),
            }
            for pod in self.api.list("pods", namespace)
        ]
        return f"status: {json.dumps(status, indent=1)}\npods: {json.dumps(pods, indent=1)}"

    # What belongs to jobs

    def pods(self, namespace: str, name: str, role: str | None = None) -> list[Document]:
        """Pods of a job, by name."""
        selector = f"fedjob.dev/job={name}" + (f",{ROLE}={role}" if role else "")
        found = self.api.list("pods", namespace, labelSelector=selector)
        return sorted(found, key=lambda pod: str(pod["metadata"]["name"]))

    def pod_names(self, namespace: str, name: str, role: str | None = None) -> list[str]:
        """Names of a job's pods."""
        return [pod["metadata"]["name"] for pod in self.pods(namespace, name, role)]

    def leftovers(self, namespace: str, kinds: Sequence[str] = OWNED) -> list[str]:
        """What there is of some kinds in a namespace."""
        return [f"{kind}/{item['metadata']['name']}" for kind in kinds for item in self.api.list(kind, namespace)]

    def events(self, namespace: str) -> list[Document]:
        """The Events in a namespace, oldest first."""
        found = self.api.list("events", namespace)
        return sorted(found, key=lambda event: int(event["metadata"]["resourceVersion"]))

    # The node

    def set_gpus(self, count: int) -> None:
        """Let the node have so many GPUs."""
        self._background.run(self._kubelet.set_gpus(count))

    def refuse_gpus(self, count: int) -> None:
        """Refuse the next pods that ask for GPUs when they arrive at the node."""
        self._background.run(self._kubelet.refuse_gpus(count))

    def most_gpus_held(self) -> int:
        """Most GPUs that were held at a time since the last call."""
        most, self._kubelet.most_held = self._kubelet.most_held, 0
        return most

    def volume(self, namespace: str, claim: str) -> Path:
        """The folder of a claim."""
        uid: str = self.api.get("persistentvolumeclaims", namespace, claim)["metadata"]["uid"]
        return self.folder / "node" / "volumes" / uid

    def crash(self, pod: Pod) -> None:
        """Kill a pod's program."""
        self._background.run(self._kubelet.crash(pod))

    def run_out_of_memory(self, pod: Pod) -> None:
        """Kill a pod's program for using too much memory."""
        self._background.run(self._kubelet.run_out_of_memory(pod))

    def evict(self, pod: Pod, message: str) -> None:
        """Remove a pod from the node, which is short of something."""
        self._background.run(self._kubelet.evict(pod, message))

    def lose_node_of(self, pod: Pod) -> None:
        """Let the node of a pod be gone."""
        self._background.run(self._kubelet.lose_node_of(pod))

    def collect(self, pod: Pod) -> None:
        """Remove a pod of a lost node."""
        self._background.run(self._kubelet.collect(pod))

    def pid(self, pod: Pod) -> int | None:
        """The process of a pod."""
        return self._kubelet.pid(pod)

    def log(self, pod: Pod) -> str:
        """What a pod's program wrote."""
        return self._kubelet.log(pod)

    def programs(self) -> dict[Pod, int]:
        """All processes on the node."""
        return self._kubelet.programs()

    def node_errors(self) -> list[BaseException]:
        """What went wrong in the fake node itself."""
        return self._kubelet.errors


class ProxyHandle:
    """A proxy, from outside of its event loop.

    Args:
        proxy: The proxy.
        background: The loop that it runs in.
    """

    def __init__(self, proxy: Proxy, background: Background) -> None:
        self.plain = proxy
        """For what needs no loop: counts, delays, what is spoilt."""
        self._background = background

    @property
    def url(self) -> str:
        """Where it listens."""
        return self.plain.url

    def refuse(self) -> None:
        """Be unreachable."""
        self._background.run(self.plain.refuse())

    def accept(self) -> None:
        """Be reachable again."""
        self._background.run(self.plain.accept())

    def go_stale(self) -> None:
        """Answer as of now from here on."""
        self._background.run(self.plain.go_stale())

    def catch_up(self) -> None:
        """Answer what is true."""

        async def work() -> None:
            self.plain.catch_up()

        self._background.run(work())

    def drop_watches(self) -> int:
        """Cut all watches off; return how many there were."""
        return self._background.run(self.plain.drop_watches())
