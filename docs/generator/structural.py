"""Turns the JSON schema of the models into the structural schema that a CRD must have.

No references, no unions with null, no defaults that are null; lists say how they merge. A keyword that is not known
here is an error, so that nothing a model says gets lost.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from generator.cel import Validation
from generator.cel_changes import fixed_fields, fixed_unless_suspended
from generator.cel_rules import RULES

Schema: TypeAlias = Mapping[str, Any]

LIST_KEYS: Final[Mapping[str, str]] = MappingProxyType({"clientGroups": "name", "conditions": "type"})
"""Lists whose items are told apart by a field; other lists are replaced as a whole."""
_KEPT: Final = (
    "type",
    "format",
    "enum",
    "pattern",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "x-kubernetes-int-or-string",
    "x-kubernetes-preserve-unknown-fields",
)
"""Keywords that mean the same in both."""
_HANDLED: Final = frozenset(
    {"$ref", "anyOf", "default", "description", "exclusiveMaximum", "exclusiveMinimum", "items", "properties"}
)
_DROPPED: Final = frozenset({"additionalProperties", "required", "title"})
_OPEN: Final = "x-kubernetes-preserve-unknown-fields"
_NULL: Final = {"type": "null"}
_MAX_TIME_LENGTH: Final = 64
"""Most characters of a time; RFC 3339 needs 35 with nanoseconds and an offset."""


@dataclass(frozen=True, slots=True)
class Structural:
    """Makes structural schemas.

    Args:
        definitions: ``$defs`` of the models' JSON schema.
    """

    definitions: Mapping[str, Schema]

    def spec(self, model: str) -> dict[str, Any]:
        """The schema of what people write: with defaults, and with rules on values and on changes."""
        schema = self._object(self.definitions[model], "spec", is_written_by_people=True)
        changes = [rule.entry() for rule in fixed_unless_suspended(schema)]
        schema["x-kubernetes-validations"] = [*schema["x-kubernetes-validations"], *changes]
        return schema

    def status(self, model: str) -> dict[str, Any]:
        """The schema of what programs write: it holds what was written, so it has no defaults and no rules."""
        return self._object(self.definitions[model], "status", is_written_by_people=False)

    def _value(self, raw: Schema, path: str, *, is_written_by_people: bool) -> dict[str, Any]:
        """The schema of one field or item."""
        plain = self._plain(raw)
        if "properties" in plain:
            shape = self._object(plain, path, is_written_by_people=is_written_by_people)
        else:
            shape = {"description": _text(plain["description"])} if "description" in plain else {}
            shape |= _scalar(plain)
        if "items" in plain:
            shape["items"] = self._value(plain["items"], f"{path}[0]", is_written_by_people=is_written_by_people)
            shape |= _list_type(path)
        default = plain.get("default")
        if is_written_by_people and default is not None:
            shape["default"] = _default(default)
        return shape

    def _object(self, raw: Schema, path: str, *, is_written_by_people: bool) -> dict[str, Any]:
        fields = {
            name: self._value(field, f"{path}.{name}", is_written_by_people=is_written_by_people)
            for name, field in raw["properties"].items()
        }
        shape: dict[str, Any] = {"description": _text(raw["description"]), "type": "object", "properties": fields}
        if raw.get("required"):
            shape["required"] = list(raw["required"])
        if raw.get(_OPEN):
            shape[_OPEN] = True
        if is_written_by_people:
            rules = [rule.entry() for rule in self._rules(raw, shape, path)]
            shape |= {"x-kubernetes-validations": rules} if rules else {}
        return shape

    def _rules(self, raw: Schema, shape: Schema, path: str) -> Iterator[Validation]:
        yield from RULES.get(raw["title"], ())
        if _OPEN in shape:
            return  # it is compared as a whole, with what is not described
        yield from fixed_fields(shape, path, key=_key_of_item(path))

    def _plain(self, raw: Schema) -> Schema:
        """Follow the reference, and leave null out of a union: what the field itself says goes before it."""
        options = [option for option in raw.get("anyOf", ()) if option != _NULL]
        if len(options) == 1:
            return self._plain({**{key: value for key, value in raw.items() if key != "anyOf"}, **options[0]})
        if "$ref" not in raw:
            unknown = set(raw) - set(_KEPT) - _HANDLED - _DROPPED
            if unknown:
                raise ValueError(f"cannot put {', '.join(sorted(unknown))} of {raw} into a structural schema")
            return raw
        target = self._plain(self.definitions[raw["$ref"].rsplit("/", 1)[1]])
        return {**target, **{key: value for key, value in raw.items() if key not in {"$ref", "title"}}}


def _scalar(plain: Schema) -> dict[str, Any]:
    shape = {key: plain[key] for key in _KEPT if key in plain}
    if "exclusiveMinimum" in plain:
        shape |= {"minimum": plain["exclusiveMinimum"], "exclusiveMinimum": True}
    if "exclusiveMaximum" in plain:
        shape |= {"maximum": plain["exclusiveMaximum"], "exclusiveMaximum": True}
    if plain.get("format") == "date-time":
        shape["maxLength"] = _MAX_TIME_LENGTH
    if plain.get("x-kubernetes-int-or-string"):
        shape["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    return shape


def _key_of_item(path: str) -> str | None:
    return _key(path.removesuffix("[0]")) if path.endswith("[0]") else None


def _key(path: str) -> str | None:
    """The field by which items of a list are told apart."""
    return LIST_KEYS.get(path.rsplit(".", 1)[1])


def _list_type(path: str) -> dict[str, Any]:
    key = _key(path)
    if key is None:
        return {"x-kubernetes-list-type": "atomic"}
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}


def _default(value: Any) -> Any:
    """A default without nulls; in full, as the API server runs the rules on it before it knows the fields' own."""
    if not isinstance(value, Mapping):
        return value
    return {name: _default(item) for name, item in value.items() if item is not None}


def _text(description: str) -> str:
    return " ".join(description.split()).replace("``", "`")
