"""The nodes of a kind cluster, which are containers: what can be done to them from outside."""

import os
import shlex
import subprocess
from dataclasses import dataclass
from typing import Any, Final

from tests.support.kubectl import Kubectl, command, wait_until

NODE_SECONDS: Final = 180.0
"""How long a node may take to be ready again, or to be missed."""
NETWORK_COMMAND: Final = "FEDJOB_E2E_NETWORK_COMMAND"
"""Environment variable: repairs the network after a node was started, where no DaemonSet of the cluster does that."""
ROLE: Final = "node-role.kubernetes.io/control-plane"

_KILL: Final = """\
for folder in /proc/[0-9]*; do
  grep -qs "$1" "$folder/cgroup" || continue
  tr '\\0' ' ' <"$folder/cmdline" | grep -q "$2" && kill -9 "${folder#/proc/}" && exit 0
done
exit 1
"""
"""Run on a node: kill the program of a container, by its id and a word of its command line."""


@dataclass(frozen=True, slots=True)
class Nodes:
    """All nodes of a cluster."""

    kubectl: Kubectl

    def workers(self) -> list[str]:
        """Names of the nodes that take pods."""
        nodes = self.kubectl.list("nodes")
        return sorted(node["metadata"]["name"] for node in nodes if ROLE not in node["metadata"]["labels"])

    def kill(self, pod: dict[str, Any], word: str) -> None:
        """End the program of a pod by SIGKILL; its container is started again in the same pod.

        Args:
            pod: The pod as the API server holds it.
            word: What the command line of the program contains.
        """
        (container,) = pod["status"]["containerStatuses"]
        identity = container["containerID"].partition("://")[2]
        command("docker", "exec", pod["spec"]["nodeName"], "bash", "-c", _KILL, "kill", identity, word)

    def restart_service(self, node: str, unit: str) -> None:
        """Restart the kubelet or containerd of a node."""
        command("docker", "exec", node, "systemctl", "restart", unit)

    def drain(self, node: str) -> None:
        """Evict all pods of a node and keep new ones away."""
        self.kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=120s")

    def uncordon(self, node: str) -> None:
        """Let a node take pods again."""
        self.kubectl("uncordon", node)

    def stop(self, node: str) -> None:
        """Stop a node, with everything that runs on it, at once."""
        command("docker", "kill", node)
        wait_until(lambda: not self.is_ready(node), f"{node} is missed", NODE_SECONDS)

    def start(self, node: str) -> None:
        """Start a stopped node, and wait until it is ready."""
        command("docker", "start", node)
        if repair := os.environ.get(NETWORK_COMMAND):
            subprocess.run(shlex.split(repair), check=True, timeout=NODE_SECONDS, stdout=subprocess.DEVNULL)
        wait_until(lambda: self.is_ready(node), f"{node} is ready", NODE_SECONDS)

    def is_ready(self, node: str) -> bool:
        """Whether a node reports that it is ready."""
        conditions = self.kubectl.get("node", node)["status"]["conditions"]
        return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)
