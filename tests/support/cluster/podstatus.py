"""The status of a pod in the words of the real scheduler and kubelet: plain documents, no I/O.

The wordings were taken from Kubernetes 1.35 with containerd.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

Document = dict[str, Any]

OOM_EXIT = 137
START_ERROR_EXIT = 128
NO_SUCH_NODE = (
    "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. no new claims to deallocate, "
    "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
)
"""What the scheduler says when no node is selected."""


def now() -> str:
    """The time as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def no_device(resource: str) -> str:
    """What a kubelet says when the device plugin has no device for a pod that was bound to the node."""
    return (
        "Pod was rejected: Allocate failed due to requested number of devices unavailable for "
        f"{resource}. Requested: 1, Available: 0, which is unexpected"
    )


def short_of_gpus(*, total_is_enough: bool) -> str:
    """What the scheduler says when no node has the GPUs."""
    victims = (
        "No preemption victims found for incoming pod"
        if total_is_enough
        else "Preemption is not helpful for scheduling"
    )
    return (
        "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. no new claims to deallocate, preemption: "
        f"0/1 nodes are available: 1 {victims}."
    )


def claim_not_found(name: str) -> str:
    """What the scheduler says of a claim that is not there."""
    return f'0/1 nodes are available: persistentvolumeclaim "{name}" not found. not found'


def waiting(reason: str, message: str | None = None) -> Document:
    """A container that has not started."""
    return {"waiting": {"reason": reason} | ({"message": message} if message else {})}


def pull_failed(image: str) -> Document:
    """After the first try to pull an image."""
    return waiting("ErrImagePull", _pull_error(image))


def pull_backed_off(image: str) -> Document:
    """Between further tries to pull an image."""
    return waiting("ImagePullBackOff", f'Back-off pulling image "{image}": ErrImagePull: {_pull_error(image)}')


def _pull_error(image: str) -> str:
    return (
        f'failed to pull and unpack image "docker.io/{image}": failed to resolve reference "docker.io/{image}": '
        "pull access denied, repository does not exist or may require authorization: server message: "
        "insufficient_scope: authorization failed"
    )


def no_such_program(program: str, started: str) -> Document:
    """A container whose image lacks the program."""
    return terminated(
        START_ERROR_EXIT,
        "StartError",
        "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: "
        f'unable to start container process: error during container init: exec: "{program}": '
        "executable file not found in $PATH: unknown",
        started,
    )


def crash_looping(pod: str, container: str, seconds: float) -> Document:
    """A container between two starts in place."""
    return waiting("CrashLoopBackOff", f"back-off {seconds:g}s restarting failed container={container} pod={pod}")


def running(started: str) -> Document:
    """A container that runs."""
    return {"running": {"startedAt": started}}


def terminated(code: int, reason: str, message: str, started: str) -> Document:
    """A container that ended."""
    return {
        "terminated": {
            "exitCode": code,
            "reason": reason,
            "startedAt": started,
            "finishedAt": now(),
        }
        | ({"message": message} if message else {})
    }


@dataclass(slots=True)
class PodStatus:
    """The status of one pod, as its kubelet knows it."""

    containers: list[Document]
    """The containers of the spec; the first is the one that a program stands for."""
    phase: str = "Pending"
    reason: str | None = None
    message: str | None = None
    ip: str | None = None
    started: str | None = None
    state: Document = field(default_factory=lambda: waiting("ContainerCreating"))
    last: Document = field(default_factory=dict)
    ready: bool = False
    node_is_lost: bool = False
    """The node controller wrote, in its kubelet's place, that the pod is not ready, and nothing of its containers."""
    restarts: int = 0
    conditions: dict[str, Document] = field(default_factory=dict)

    def condition(self, kind: str, *, holds: bool, reason: str | None = None, message: str | None = None) -> None:
        """Set a condition; its time changes only with its truth."""
        status = "True" if holds else "False"
        before = self.conditions.get(kind)
        since = before["lastTransitionTime"] if before and before["status"] == status else now()
        extra = {key: value for key, value in (("reason", reason), ("message", message)) if value}
        self.conditions[kind] = {"type": kind, "status": status, "lastTransitionTime": since, **extra}

    def document(self, host: str) -> Document:
        """The whole status."""
        self._readiness()
        document: Document = {
            "phase": self.phase,
            "reason": self.reason,
            "message": self.message,
            "conditions": list(self.conditions.values()),
        }
        if self.ip is not None:
            document |= {
                "podIP": self.ip,
                "podIPs": [{"ip": self.ip}],
                "hostIP": host,
                "hostIPs": [{"ip": host}],
                "startTime": self.started,
                "containerStatuses": [self._container(position) for position in range(len(self.containers))],
            }
        return document

    def _readiness(self) -> None:
        if self.ip is None:
            return
        if self.node_is_lost:
            self.condition("Ready", holds=False)
            return
        names = ", ".join(container["name"] for container in self.containers)
        if self.phase == "Succeeded":
            why = {"reason": "PodCompleted"}
        else:
            why = {"reason": "ContainersNotReady", "message": f"containers with unready status: [{names}]"}
        for kind in ("Ready", "ContainersReady"):
            self.condition(kind, holds=self.ready, **({} if self.ready else why))

    def _container(self, position: int) -> Document:
        container = self.containers[position]
        is_main = position == 0
        return {
            "name": container["name"],
            "image": container["image"],
            "imageID": "",
            "ready": self.ready,
            "restartCount": self.restarts if is_main else 0,
            "started": "running" in self.state,
            "state": self.state,
            "lastState": self.last if is_main else {},
        }
