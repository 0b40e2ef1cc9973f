"""The reference of the resource: every field with its type, default and bounds, from the schema of its models."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from fedjob_operator.api.base import (
    DNS_1035,
    DNS_1123_SUBDOMAIN,
    MAX_SAFE_INTEGER,
    TRAINER_PATTERN,
    WORD_PATTERN,
)
from fedjob_operator.api.quantity import QUANTITY_PATTERN
from fedjob_operator.api.v1alpha1 import API_VERSION, KIND, FederatedJob
from fedjob_protocol.builtin import DATA_PARAMETERS, MODEL_PARAMETERS
from generator.markdown import code, page, table

Schema: TypeAlias = Mapping[str, Any]

PATTERN_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        DNS_1035: "lower-case letters, digits and dashes, beginning with a letter",
        DNS_1123_SUBDOMAIN: "name of a Kubernetes object",
        QUANTITY_PATTERN: "Kubernetes quantity",
        TRAINER_PATTERN: "`package.module:Class`",
        WORD_PATTERN: "letters, digits, `-`, `_` and `.`",
    }
)
"""Patterns that have a name of their own; others are shown as they are."""


@dataclass(frozen=True, slots=True)
class Reference:
    """Walks the schema and collects one section per object.

    Args:
        definitions: ``$defs`` of the schema.
    """

    definitions: Mapping[str, Schema]
    seen: dict[str, str] = field(default_factory=dict)
    """Path at which each definition was described first."""

    def sections(self, path: str, name: str) -> Iterator[str]:
        """Yield the section of a definition and, after it, those of the objects in its fields."""
        self.seen[name] = path
        schema = self.definitions[name]
        required = frozenset(schema.get("required", ()))
        yield f"## {path}"
        yield _text(schema["description"])
        nested: list[tuple[str, str]] = []
        rows = []
        for field_name, raw in schema["properties"].items():
            shape = _without_null(raw)
            below = f"{path}.{field_name}"
            target = _target(shape)
            is_object = target is not None and "properties" in self.definitions[target]
            if target is not None and is_object:
                # Two fields of the same kind share the section of the first.
                place = below + ("[]" if "items" in shape else "")
                self.seen.setdefault(target, place)
                nested.append((place, target))
            rows.append(
                (
                    code(field_name),
                    self._type(shape, below),
                    _default(raw, is_required=field_name in required, is_object=is_object),
                    _bounds(shape),
                    _text(raw.get("description") or self._description(target)),
                )
            )
        yield table(("field", "type", "default", "bounds", "meaning"), rows)
        for below, target in nested:
            if self.seen[target] == below:
                yield from self.sections(below, target)

    def _type(self, shape: Schema, path: str) -> str:
        if "items" in shape:
            return f"list of {self._type(shape['items'], path + '[]')}"
        name = shape["$ref"].rsplit("/", 1)[1] if "$ref" in shape else None
        if name is None:
            return _plain_type(shape)
        definition = self.definitions[name]
        if "enum" in definition:
            return " or ".join(code(value) for value in definition["enum"])
        where = self.seen.get(name, path)
        return f"[object](#{_anchor(where)})"

    def _description(self, target: str | None) -> str:
        return self.definitions[target]["description"] if target else ""


def federated_job() -> str:
    """The page of all fields."""
    definitions = FederatedJob.model_json_schema(by_alias=True)["$defs"]
    reference = Reference(definitions)
    return page(
        KIND,
        f"`apiVersion: {API_VERSION}`, `kind: {KIND}`. Durations are whole seconds. A field of `spec` that is not "
        "listed here is an error. In the column *default*, a dash means that the field is absent unless it is given; "
        "what that means is in the last column.",
        f"This release has the models {_names(MODEL_PARAMETERS)}, and the data sets {_names(DATA_PARAMETERS)}; with a "
        "trainer of your own, any other name is yours to define. Fields about pods and volumes are for Kubernetes: "
        "`fedjob run` says which of them it ignores, and refuses what it cannot do.",
        *reference.sections("spec", "FederatedJobSpec"),
        "Everything below `status` is written by programs, never by people.",
        *reference.sections("status", "FederatedJobStatus"),
    )


def _names(names: Iterable[str]) -> str:
    return ", ".join(code(name) for name in sorted(names))


def _without_null(raw: Schema) -> Schema:
    """The schema of an optional field's value."""
    options = [option for option in raw.get("anyOf", ()) if option != {"type": "null"}]
    return options[0] if len(options) == 1 else raw


def _target(shape: Schema) -> str | None:
    reference = shape.get("$ref") or shape.get("items", {}).get("$ref")
    return reference.rsplit("/", 1)[1] if reference else None


def _plain_type(shape: Schema) -> str:
    if shape.get("x-kubernetes-int-or-string"):
        return "integer or percentage"
    if shape.get("x-kubernetes-preserve-unknown-fields"):
        return "mapping"
    if shape.get("format") == "date-time":
        return "time"
    return str(shape["type"])


def _default(raw: Schema, *, is_required: bool, is_object: bool) -> str:
    if is_required:
        return "**required**"
    value = raw.get("default", {} if "default" not in raw else None)
    if value is None:
        return "-"
    if is_object and value != []:
        return "its fields' own"
    return code(json.dumps(value) if not isinstance(value, str) else value or '""')


def _bounds(shape: Schema) -> str:
    parts = []
    if "minimum" in shape or "maximum" in shape:
        parts.append(f"{_number(shape, 'minimum')} … {_number(shape, 'maximum')}".strip())
    if "exclusiveMinimum" in shape:
        upper = f", at most {shape['maximum']:,}" if "maximum" in shape else ""
        parts = [f"more than {shape['exclusiveMinimum']:g}{upper}"]
    if shape.get("x-kubernetes-int-or-string"):
        parts.append("or 1% … 100%")
    elif "pattern" in shape:
        parts.append(PATTERN_NAMES.get(shape["pattern"], code(shape["pattern"])))
    if "maxLength" in shape and not shape.get("x-kubernetes-int-or-string"):
        parts.append(f"at most {shape['maxLength']:,} characters")
    if "maxItems" in shape:
        parts.append(f"{shape.get('minItems', 0)} … {shape['maxItems']:,} entries")
    return "; ".join(parts)


def _number(shape: Schema, key: str) -> str:
    if key not in shape:
        return ""
    return "2^53 - 1" if shape[key] == MAX_SAFE_INTEGER else f"{shape[key]:,}"


def _anchor(path: str) -> str:
    """The fragment that hosts of Markdown give a heading: lower case, without what is no letter, digit or dash."""
    return "".join(character for character in path.lower() if character.isalnum() or character in "-_")


def _text(description: str) -> str:
    return " ".join(description.split())
