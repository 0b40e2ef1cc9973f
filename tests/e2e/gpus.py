"""GPUs that are not there, advertised on a node by a device plugin that tests can steer."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tests.e2e.installation import build_and_load
from tests.support.device_plugin.fake_gpus.devices import Devices
from tests.support.kubectl import Kubectl, wait_until
from tests.support.repository import ROOT

GPU: Final = "nvidia.com/gpu"
NODE_LABEL: Final = "fedjob.dev/fake-gpus"
NAMESPACE: Final = "fake-gpus"
NAME: Final = "fake-gpus"
IMAGE: Final = "fedjob/fake-gpus:e2e"
FOLDER: Final = ROOT / "tests" / "support" / "device_plugin"
FOLDER_OF_KUBELET: Final = "/var/lib/kubelet"
PLUGIN_FOLDER: Final = f"{FOLDER_OF_KUBELET}/device-plugins"
SECONDS: Final = 90.0


def load_plugin(cluster: str) -> None:
    """Build the plugin's image and put it on the nodes."""
    base = os.environ.get("PYTHON_BASE")
    build_and_load(cluster, IMAGE, FOLDER, **({"BASE": base} if base else {}))


@dataclass(frozen=True, slots=True)
class Gpus:
    """The GPUs of a cluster: all are on one of its nodes that take pods."""

    kubectl: Kubectl

    def start(self) -> None:
        """Put the plugin on the cluster; there is no GPU yet."""
        labels = {"pod-security.kubernetes.io/enforce": "privileged"}
        self.kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}})
        node = min(item["metadata"]["name"] for item in self.kubectl.list("nodes") if not item["spec"].get("taints"))
        self.kubectl("label", "node", node, f"{NODE_LABEL}=true", "--overwrite")
        self.kubectl.apply(_daemon_set())
        self.kubectl("rollout", "status", f"daemonset/{NAME}", f"--timeout={SECONDS:.0f}s")

    def stop(self) -> None:
        """Take the plugin away if it is there, as when its DaemonSet is deleted; wait until the scheduler knows."""
        self.kubectl("delete", "daemonset", NAME, "--ignore-not-found", "--cascade=foreground")
        self.await_allocatable(0)

    def set(self, count: int, *, unhealthy: Sequence[str] = (), refuses: bool = False) -> None:
        """Change what there is, and wait until the scheduler knows."""
        words = ["--count", str(count)]
        words += ["--unhealthy", *unhealthy] if unhealthy else []
        words += ["--refuses"] if refuses else []
        (pod,) = self.kubectl.list("pods", f"app={NAME}")
        self.kubectl("exec", pod["metadata"]["name"], "--", "python", "-m", "fake_gpus", "set", *words)
        self.await_allocatable(count - len(unhealthy))

    def await_allocatable(self, count: int) -> None:
        """Wait until the node offers so many."""
        wait_until(
            lambda: self.allocatable() == count, lambda: f"{count} GPUs; there are {self.allocatable()}", SECONDS
        )

    def allocatable(self) -> int:
        """How many GPUs the scheduler may give away, those in use included."""
        nodes = self.kubectl.list("nodes")
        return sum(int(node["status"]["allocatable"].get(GPU, 0)) for node in nodes)


def devices_of(kubectl: Kubectl, pod: str) -> str:
    """Which devices the program of a pod sees, as the NVIDIA driver's runtime would read it."""
    return kubectl("exec", pod, "--", "printenv", "NVIDIA_VISIBLE_DEVICES").strip()


def all_names(count: int) -> set[str]:
    """Names of devices."""
    return set(Devices(count).names())


def _daemon_set() -> dict[str, object]:
    container = {
        "name": "plugin",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "args": ["run", "--count", "0"],
        "volumeMounts": [{"name": "sockets", "mountPath": PLUGIN_FOLDER}],
    }
    pod = {
        "metadata": {"labels": {"app": NAME}},
        "spec": {
            "terminationGracePeriodSeconds": 5,
            "nodeSelector": {NODE_LABEL: "true"},
            "containers": [container],
            "volumes": [{"name": "sockets", "hostPath": {"path": PLUGIN_FOLDER, "type": "Directory"}}],
        },
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {"selector": {"matchLabels": {"app": NAME}}, "template": pod},
    }
