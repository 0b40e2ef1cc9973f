"""Which resources of a container are GPUs: a device plugin's whole ones, shares and slices of them, by any vendor."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

GPU_RESOURCE: Final = "nvidia.com/gpu"
"""The extended resource that ``gpus`` is short for."""
_VENDOR: Final = "nvidia.com"
"""All its extended resources are GPUs: ``gpu``, ``gpu.shared``, ``mig-1g.5gb``."""
_NAME: Final = re.compile(r"[\w.-]+/[\w.-]*\w")


def is_gpu(resource: str) -> bool:
    """Whether an extended resource, such as ``amd.com/gpu``, is a GPU or a part of one."""
    domain, _, name = resource.partition("/")
    return bool(name) and (domain == _VENDOR or "gpu" in re.split(r"[.-]", domain) or "gpu" in re.split(r"[.-]", name))


def names_gpu(words: str) -> bool:
    """Whether what a scheduler or a kubelet says is about a GPU."""
    return any(is_gpu(found) for found in _NAME.findall(words))


def gpus_of(pod: object) -> int:
    """GPUs that a pod, or a template, sets as limits of its containers; what is no number counts as none.

    Args:
        pod: A JSON object with a ``spec``; whatever else people wrote has no GPUs.
    """
    return sum(_count(value) for limits in _limits(pod) for name, value in limits.items() if is_gpu(str(name)))


def gpu_limits(pod: object) -> Mapping[str, str]:
    """The GPUs among the limits and requests of a pod's containers, by resource name."""
    found = [*_limits(pod), *_limits(pod, "requests")]
    return {str(name): str(value) for values in found for name, value in values.items() if is_gpu(str(name))}


def _limits(pod: object, kind: str = "limits") -> Iterable[Mapping[Any, Any]]:
    containers = _map(_map(pod).get("spec")).get("containers")
    for container in containers if isinstance(containers, list) else []:
        yield _map(_map(_map(container).get("resources")).get(kind))


def _map(value: object) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}


def _count(value: object) -> int:
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
