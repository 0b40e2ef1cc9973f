"""Volumes of pods on the fake node: which claims a pod names, and what the kubelet says while one cannot be mounted."""

import asyncio
from typing import Any, Protocol

from tests.support.cluster.access import path
from tests.support.cluster.podstatus import now

Document = dict[str, Any]

RETRY_SECONDS = 1.0
"""Between tries; a real kubelet waits longer and longer, up to two minutes."""
_SOURCES = {"configMap": ("configmap", "configmaps", "name"), "secret": ("secret", "secrets", "secretName")}
"""Kinds of volumes that are objects: the kubelet's word, the resource, the field with the name."""


class ApiServer(Protocol):
    """What the kubelet asks."""

    async def call(self, method: str, where: str, body: Any = None, *, fine: int | None = None) -> Document:
        """Call the API server."""
        ...


def claims(pod: Document) -> dict[str, str]:
    """Names of a pod's claims by volume."""
    return {
        volume["name"]: volume["persistentVolumeClaim"]["claimName"]
        for volume in pod["spec"].get("volumes", [])
        if "persistentVolumeClaim" in volume
    }


async def mount(api: ApiServer, pod: Document) -> None:
    """Wait until all volumes can be mounted; say in an Event what is missing, and in nothing else."""
    count = 0
    while problem := await _problem(api, pod):
        count += 1
        await _tell(api, pod, problem, count)
        await asyncio.sleep(RETRY_SECONDS)


async def _problem(api: ApiServer, pod: Document) -> str | None:
    for volume in pod["spec"].get("volumes", []):
        for key, (word, resource, field) in _SOURCES.items():
            if key not in volume or volume[key].get("optional"):
                continue
            name = volume[key][field]
            found = await api.call("GET", path(resource, pod["metadata"]["namespace"], name), fine=404)
            if found["kind"] == "Status":
                return f'MountVolume.SetUp failed for volume "{volume["name"]}" : {word} "{name}" not found'
    return None


async def _tell(api: ApiServer, pod: Document, message: str, count: int) -> None:
    """Write an Event, or count it up."""
    metadata = pod["metadata"]
    namespace, name = metadata["namespace"], f"{metadata['name']}.{metadata['uid'][:8]}"
    if count > 1:
        await api.call("PATCH", path("events", namespace, name), {"count": count, "lastTimestamp": now()})
        return
    involved = {key: metadata[key] for key in ("name", "namespace", "uid", "resourceVersion")}
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": {"apiVersion": "v1", "kind": "Pod", **involved},
        "type": "Warning",
        "reason": "FailedMount",
        "message": message,
        "count": 1,
        "firstTimestamp": now(),
        "lastTimestamp": now(),
        "source": {"component": "kubelet", "host": pod["spec"].get("nodeName", "")},
    }
    await api.call("POST", path("events", namespace), event)
