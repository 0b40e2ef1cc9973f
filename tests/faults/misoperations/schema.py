"""Every field of the definition's schema, and what somebody may put there: generated, so that no field is forgotten."""

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import yaml

from tests.support.repository import ROOT

Document = dict[str, Any]
Place = tuple[str | int, ...]

CANDIDATES: Final = ("a", "a.b:C", "50%", "1Gi")
"""Strings of which each pattern of the schema takes one."""
WRONG: Final = {
    "integer": "many",
    "number": "much",
    "string": 5,
    "boolean": "yes",
    "array": {"a": 1},
    "object": "text",
    "count": [],
}
"""What is of another type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of the spec."""

    path: Place
    """From the spec; 0 stands for the entries of a list."""
    node: Document
    """Its schema."""
    is_required: bool

    def __str__(self) -> str:
        return text_of(self.path)

    @property
    def kind(self) -> str:
        """Its type; ``count`` is a number or a percentage."""
        return "count" if self.node.get("x-kubernetes-int-or-string") else str(self.node["type"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A value that somebody may put into a field."""

    field: Field
    what: str
    """What it is: minimum, too much …"""
    value: Any
    is_valid: bool
    """By the field's own schema; rules between fields may still refuse it."""

    def __str__(self) -> str:
        return f"{self.field} {self.what}"

    def put_into(self, spec: Document) -> Document:
        """Return the spec with this value; what has to be around the field is made where it is not there."""
        return placed(spec, self.field.path, self.value)


def text_of(path: Place) -> str:
    """A path as errors write it: ``spec.clientGroups[0].name``."""
    return "spec" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)


@cache
def all_fields() -> tuple[Field, ...]:
    """All fields of the spec, in the order of the reference."""
    crd = yaml.safe_load((ROOT / "crds/federatedjobs.fedjob.dev.yaml").read_text(encoding="utf-8"))
    return tuple(_fields(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"], ()))


def _fields(node: Document, above: Place) -> Iterator[Field]:
    for name, inner in node.get("properties", {}).items():
        path = (*above, name)
        yield Field(path=path, node=inner, is_required=name in node.get("required", []))
        yield from _fields(inner, path)
        yield from _fields(inner.get("items", {}), (*path, 0))


def variants(field: Field) -> Iterator[Variant]:
    """Yield what is tried in a field: the ends of what it takes, what is beyond them, and what is of another type."""

    def variant(what: str, value: Any, *, is_valid: bool) -> Variant:
        return Variant(field=field, what=what, value=value, is_valid=is_valid)

    yield variant("of a wrong type", WRONG[field.kind], is_valid=False)
    for what, value, is_valid in _ends(field.kind, field.node):
        yield variant(what, value, is_valid=is_valid)


def _ends(kind: str, node: Document) -> Iterator[tuple[str, Any, bool]]:
    match kind:
        case "integer" | "count":
            yield "at its minimum", node["minimum"], True
            yield "below its minimum", node["minimum"] - 1, False
            yield "at its maximum", node["maximum"], True
            yield "above its maximum", node["maximum"] + 1, False
        case "number":
            yield from _ends_of_number(node)
        case "boolean":
            yield "true", True, True
        case "string" if "enum" in node:
            yield from ((f"{word}", word, True) for word in node["enum"])
            yield "of an unknown word", "Nonsense", False
        case "string":
            yield "a text", example(node), True
            yield "empty", "", False
            yield "too long", "a" * (node["maxLength"] + 1), False
        case "array":
            items = node.get("items", {})
            yield "too long", [_numbered(example(items), number) for number in range(node["maxItems"] + 1)], False
            yield ("empty", [], not node.get("minItems"))
        case "object":
            yield "the smallest", example(node), True
            if not node.get("x-kubernetes-preserve-unknown-fields"):
                yield "with an unknown field", {**example(node), "nosuch": 1}, False
    if kind == "count":
        yield "100%", "100%", True
        yield "101%", "101%", False


def _ends_of_number(node: Document) -> Iterator[tuple[str, Any, bool]]:
    yield "tiny", 1e-300, True
    if "minimum" in node:
        yield "at its minimum", node["minimum"], not node.get("exclusiveMinimum")
        yield "below its minimum", node["minimum"] - 1, False
    if "maximum" in node:
        yield "at its maximum", node["maximum"], True
        yield "above its maximum", node["maximum"] + 1, False


def _numbered(value: Any, number: int) -> Any:
    return {**value, "name": f"n{number}"} if isinstance(value, dict) else value


def example(node: Document) -> Any:
    """The smallest value that a schema takes."""
    if "enum" in node:
        return node["enum"][0]
    if node.get("x-kubernetes-int-or-string"):
        return 1
    match node["type"]:
        case "integer":
            return node.get("minimum", 0)
        case "number":
            return 0.5
        case "boolean":
            return False
        case "string":
            return next(word for word in CANDIDATES if re.search(node.get("pattern", ""), word))
        case "array":
            return []
        case _:
            return {name: example(node["properties"][name]) for name in node.get("required", [])}


def placed(spec: Document, path: Place, value: Any) -> Document:
    """Return a spec with a value at a path; what has to be around it is made where it is not there."""
    changed = copy.deepcopy(spec)
    holder: Any = changed
    nodes = {field.path: field.node for field in all_fields()}
    for place, part in enumerate(path[:-1], start=1):
        if isinstance(part, int):
            if part >= len(holder):
                holder.append(example(nodes[path[: place - 1]]["items"]))
        elif holder.get(part) is None:
            holder[part] = example(nodes[path[:place]])
        holder = holder[part]
    holder[path[-1]] = value
    return changed


def removed(spec: Document, path: Place) -> Document | None:
    """Return a spec without what is at a path; ``None`` where nothing is."""
    changed = copy.deepcopy(spec)
    holder: Any = changed
    for part in path[:-1]:
        if isinstance(part, int) and part >= len(holder):
            return None
        if isinstance(part, str) and not isinstance(holder.get(part), dict | list):
            return None
        holder = holder[part]
    if path[-1] not in holder:
        return None
    del holder[path[-1]]
    return changed
