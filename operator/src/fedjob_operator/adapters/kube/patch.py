"""What to send so that a status becomes another one: a JSON merge patch, as small as it can be. Pure."""

import math
from typing import Any

from fedjob_operator.adapters.kube.documents import Document


def status_patch(held: Document, before: Document, after: Document) -> Document:
    """Return the merge patch that turns the status that the API server holds into another.

    Args:
        held: The status as the API server holds it. What an operator of another release wrote there, and we do not
            know, stays.
        before: The same as we read it.
        after: What it shall be.

    Returns:
        Keys that change; those that end are ``null``. Empty when nothing changes.
    """
    patch: Document = {key: None for key in before if key not in after and key in held}
    for key, value in after.items():
        was = held.get(key)
        if isinstance(value, dict) and isinstance(was, dict):
            inner = before.get(key)
            part = status_patch(was, inner if isinstance(inner, dict) else {}, value)
            if part:
                patch[key] = part
        elif key not in held or not _is_same(value, was):
            patch[key] = value
    return patch


def finite(value: Any) -> tuple[Any, int]:
    """Return a JSON value without numbers that are not finite, which no API server takes, and how many there were.

    A key whose value is none goes; an entry of a list that has none, or that lost a key, goes whole: a metric without
    its value says nothing.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return None, 1
    if isinstance(value, dict):
        parts = {key: finite(item) for key, item in value.items()}
        kept = {key: item for key, (item, _) in parts.items() if not _is_infinite(value[key])}
        return kept, sum(count for _, count in parts.values())
    if isinstance(value, list | tuple):
        items = [finite(item) for item in value]
        return [item for item, count in items if not count], sum(count for _, count in items)
    return value, 0


def _is_infinite(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _is_same(one: object, other: object) -> bool:
    """Compare as JSON: unlike for Python, ``true`` is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_is_same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_same, one, other))
    return one == other
