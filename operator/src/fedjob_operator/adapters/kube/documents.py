"""Kubernetes objects as plain JSON, read without trusting that they look as expected."""

from datetime import UTC, datetime
from typing import Any

Document = dict[str, Any]
"""A Kubernetes object as JSON."""


def mapping(value: object) -> Document:
    """Return a JSON object; whatever else is there counts as an empty one."""
    return value if isinstance(value, dict) else {}


def entries(value: object) -> list[Document]:
    """Return the JSON objects of a list; whatever else is there counts as nothing."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def text(value: object) -> str:
    """Return a string; whatever else is there counts as an empty one."""
    return value if isinstance(value, str) else ""


def integer(value: object) -> int | None:
    """Return an integer; whatever else is there counts as absent."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def time(value: object) -> datetime | None:
    """Read a time in RFC 3339; ``None`` where there is none that can be read."""
    if not isinstance(value, str):
        return None
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError:
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def meta(document: Document) -> Document:
    """Return an object's metadata."""
    return mapping(document.get("metadata"))


def name_of(document: Document) -> str:
    """Return an object's name; empty where there is none."""
    return text(meta(document).get("name"))


def uid_of(document: Document) -> str:
    """Return an object's unique id; empty where there is none."""
    return text(meta(document).get("uid"))


def version_of(document: Document) -> str:
    """Return an object's resource version; empty where there is none."""
    return text(meta(document).get("resourceVersion"))


def label(document: Document, name: str) -> str:
    """Return the value of a label; empty where there is none."""
    return text(mapping(meta(document).get("labels")).get(name))


def is_owned_by(document: Document, uid: str) -> bool:
    """Whether an object names the owner with this unique id."""
    return any(owner.get("uid") == uid for owner in entries(meta(document).get("ownerReferences")))
