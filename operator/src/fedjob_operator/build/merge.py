"""Lays a template over a pod, as the API server does with a strategic merge patch.

Maps are merged key by key, and so are lists whose entries have a name, entry by entry; other lists and values are
replaced; an explicit ``null`` takes away what was there.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

MERGE_KEYS: Final = MappingProxyType(
    {
        "containers": ("name",),
        "initContainers": ("name",),
        "ephemeralContainers": ("name",),
        "env": ("name",),
        "volumes": ("name",),
        "volumeMounts": ("mountPath",),
        "volumeDevices": ("devicePath",),
        "ports": ("containerPort", "protocol"),
        "imagePullSecrets": ("name",),
        "hostAliases": ("ip",),
        "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
        "resourceClaims": ("name",),
        "schedulingGates": ("name",),
    }
)
"""Lists of a PodTemplateSpec that are merged, with the fields that identify an entry, as Kubernetes has them."""


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `over` laid on top; neither is changed.

    Args:
        base: A JSON object.
        over: A JSON object of the same kind; what it says wins.
    """
    result = dict(base)
    for key, value in over.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged_value(key, result.get(key), value)
    return result


def _merged_value(key: str, below: Any, above: Any) -> Any:
    if isinstance(below, Mapping) and isinstance(above, Mapping):
        return merged(below, above)
    if key in MERGE_KEYS and isinstance(below, list) and isinstance(above, list):
        return _merged_list(MERGE_KEYS[key], below, above)
    return above


def _merged_list(keys: tuple[str, ...], below: list[Any], above: list[Any]) -> list[Any]:
    """Entries of `below` in their order, merged with their namesakes, then the new ones of `above`."""
    result = list(below)
    places = {identity: place for place, entry in enumerate(below) if (identity := _identity(keys, entry)) is not None}
    for entry in above:
        identity = _identity(keys, entry)
        place = places.get(identity) if identity is not None else None
        if place is None:
            result.append(entry)
        else:
            result[place] = merged(result[place], entry)
    return result


def _identity(keys: tuple[str, ...], entry: Any) -> tuple[str, ...] | None:
    """What identifies an entry of a list; ``None`` for one that the API server will refuse anyway."""
    if not isinstance(entry, Mapping) or entry.get(keys[0]) is None:
        return None
    return tuple(str(entry.get(key, "")) for key in keys)
