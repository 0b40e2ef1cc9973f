"""Devices that pods claim, where nobody has one: what a driver of dynamic resource allocation puts on a cluster."""

from dataclasses import dataclass
from typing import Any, Final

from tests.e2e.gpus import FOLDER_OF_KUBELET, IMAGE, NAMESPACE, NODE_LABEL, SECONDS
from tests.support.kubectl import Kubectl, wait_until

DRIVER: Final = "gpu.fedjob.dev"
NAME: Final = "fake-claims"
CLASS: Final = "fake-gpu"
TEMPLATE: Final = "one-gpu"
DRA: Final = "resource.k8s.io/v1"


@dataclass(frozen=True, slots=True)
class ClaimedGpus:
    """The driver, on the node of the other fake GPUs."""

    kubectl: Kubectl
    """In the namespace of the fake GPUs, which is there."""

    def start(self) -> None:
        """Put the driver on the cluster; nothing can be claimed yet."""
        for document in (*_account(), _device_class(), _daemon_set()):
            self.kubectl.apply(document)
        self.kubectl("rollout", "status", f"daemonset/{NAME}", f"--timeout={SECONDS:.0f}s")
        wait_until(
            lambda: "registered: True" in self.kubectl("logs", f"daemonset/{NAME}"), "the kubelet's answer", SECONDS
        )

    def set(self, count: int, *, generation: int) -> None:
        """Say how many devices there are; each change takes a higher generation."""
        (node,) = self.kubectl.names("nodes", f"{NODE_LABEL}=true")
        spec = {
            "driver": DRIVER,
            "nodeName": node,
            "pool": {"name": node, "generation": generation, "resourceSliceCount": 1},
            "devices": [{"name": f"claimed-{number}"} for number in range(count)],
        }
        self.kubectl.apply({"apiVersion": DRA, "kind": "ResourceSlice", "metadata": {"name": NAME}, "spec": spec})

    def stop(self) -> None:
        """Take all of it away."""
        for kind in ("resourceslice", "deviceclass", "clusterrolebinding", "clusterrole"):
            self.kubectl("delete", kind, CLASS if kind == "deviceclass" else NAME, "--ignore-not-found")
        self.kubectl("delete", "daemonset", NAME, "--ignore-not-found", "--cascade=foreground")


def prepared_for(kubectl: Kubectl, pod: str) -> list[str]:
    """Names of the devices that a pod's claims were given, and that the driver prepared for them."""
    log = Kubectl(NAMESPACE, kubectl.kubeconfig)("logs", f"daemonset/{NAME}")
    return [
        result["device"]
        for claim in kubectl.list("resourceclaims")
        if any(user["name"] == pod for user in claim.get("status", {}).get("reservedFor", ()))
        for result in claim["status"]["allocation"]["devices"]["results"]
        if f"prepared {result['device']} for {claim['metadata']['name']}" in log
    ]


def claim_template() -> dict[str, Any]:
    """What a pod names to get one device of its own."""
    requests = [{"name": "gpu", "exactly": {"deviceClassName": CLASS}}]
    return {
        "apiVersion": DRA,
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": TEMPLATE},
        "spec": {"spec": {"devices": {"requests": requests}}},
    }


def _device_class() -> dict[str, Any]:
    selectors = [{"cel": {"expression": f'device.driver == "{DRIVER}"'}}]
    return {"apiVersion": DRA, "kind": "DeviceClass", "metadata": {"name": CLASS}, "spec": {"selectors": selectors}}


def _account() -> list[dict[str, Any]]:
    rbac = "rbac.authorization.k8s.io"
    rules = [{"apiGroups": ["resource.k8s.io"], "resources": ["resourceclaims"], "verbs": ["get"]}]
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": NAME}},
        {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": {"name": NAME}, "rules": rules},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": NAME},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": NAME},
            "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}],
        },
    ]


def _daemon_set() -> dict[str, Any]:
    folders = {"plugins": f"{FOLDER_OF_KUBELET}/plugins", "registry": f"{FOLDER_OF_KUBELET}/plugins_registry"}
    container = {
        "name": "driver",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "args": ["claims"],
        "volumeMounts": [{"name": name, "mountPath": path} for name, path in folders.items()],
    }
    pod = {
        "metadata": {"labels": {"app": NAME}},
        "spec": {
            "serviceAccountName": NAME,
            "terminationGracePeriodSeconds": 5,
            "nodeSelector": {NODE_LABEL: "true"},
            "containers": [container],
            "volumes": [
                {"name": name, "hostPath": {"path": path, "type": "DirectoryOrCreate"}}
                for name, path in folders.items()
            ],
        },
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {"selector": {"matchLabels": {"app": NAME}}, "template": pod},
    }
