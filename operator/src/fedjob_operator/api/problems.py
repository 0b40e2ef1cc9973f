"""What is wrong with a manifest: one line per problem, naming the field in the manifest's own spelling.

Translates pydantic's errors, which speak of Python types, into sentences for whoever wrote the manifest.
"""

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from typing_extensions import override

from fedjob_operator.api.base import DNS_1035, DNS_1123_SUBDOMAIN, TRAINER_PATTERN, WORD_PATTERN
from fedjob_operator.api.quantity import QUANTITY_PATTERN

_LONGEST_SHOWN: Final = 60

_PATTERNS: Final[Mapping[str, str]] = {
    DNS_1035: "lower-case letters, digits and dashes, beginning with a letter and not ending with a dash",
    DNS_1123_SUBDOMAIN: "the name of a Kubernetes object: lower-case letters, digits, dashes and dots",
    WORD_PATTERN: "letters, digits, dashes, underscores and dots, beginning and ending with a letter or digit",
    TRAINER_PATTERN: "of the form package.module:Class",
    QUANTITY_PATTERN: "a quantity such as 500Mi or 1Gi",
}
_TYPES: Final[Mapping[str, str]] = {
    "int_type": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a string",
    "tuple_type": "a list",
    "mapping_type": "a mapping",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
_BOUNDS: Final[Mapping[str, tuple[str, str]]] = {
    "greater_than_equal": ("ge", "is less than {}"),
    "greater_than": ("gt", "is not more than {}"),
    "less_than_equal": ("le", "is more than {}"),
    "less_than": ("lt", "is not less than {}"),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong."""

    path: str
    """The field, such as ``spec.clientGroups[0].replicas``."""
    message: str
    """What was seen and what is right: the rest of the line that begins with the path."""

    @override
    def __str__(self) -> str:
        """The line that is shown."""
        return f"{self.path}: {self.message}"


def problems_of(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """Translate the errors of a document into problems, in pydantic's order: that of the model's fields.

    Args:
        error: What ``model.model_validate(document)`` raised.
        model: The model; its field names are suggested where a field is unknown.
    """
    return [_problem(details, model) for details in error.errors(include_url=False) if not _is_echo(details)]


def path_of(location: Iterable[int | str]) -> str:
    """Write a location as in a manifest: ``spec.clientGroups[0].name``."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean "…"?`` where a known name is near, else nothing."""
    lower = {word.lower(): word for word in known}
    near = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.6)
    return f'; did you mean "{lower[near[0]]}"?' if near else ""


def show(value: object) -> str:
    """Show a value of a document in a message, shortened."""
    if value is None:
        return "empty"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def _is_echo(details: ErrorDetails) -> bool:
    """Whether a list is called too short only because items of it are wrong, which has been said already."""
    return details["type"] == "too_short" and len(details["input"]) >= details["ctx"]["min_length"]


def _problem(details: ErrorDetails, model: type[BaseModel]) -> Problem:
    location = details["loc"]
    if details["type"] == "extra_forbidden":
        known = field_names(_model_at(model, location[:-1]))
        return Problem(path_of(location), f"unknown field{suggestion(str(location[-1]), known)}")
    return Problem(path_of(location), _message(details))


def _message(details: ErrorDetails) -> str:
    kind, seen, context = details["type"], show(details["input"]), details.get("ctx", {})
    if kind == "missing":
        return "missing"
    if kind in _TYPES:
        return f"is empty, not {_TYPES[kind]}" if details["input"] is None else f"{seen} is not {_TYPES[kind]}"
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return f"{seen} {words.format(context[name])}"
    if kind in {"too_long", "string_too_long"}:
        what = "entries" if kind == "too_long" else "characters"
        return f"has more than {context['max_length']} {what}"
    if kind in {"too_short", "string_too_short"}:
        return "is empty"
    if kind in {"enum", "literal_error"}:
        return _not_one_of(details["input"], str(context["expected"]))
    if kind == "string_pattern_mismatch":
        return f"{seen} is not {_PATTERNS.get(str(context['pattern']), 'of the pattern ' + str(context['pattern']))}"
    if kind == "finite_number":
        return f"{seen} is not a finite number"
    return details["msg"].removeprefix("Value error, ")


def _not_one_of(value: object, expected: str) -> str:
    known = [word.strip().strip("'") for word in expected.replace(" or ", ", ").split(",")]
    if len(known) == 1:
        return f"{show(value)} is not {known[0]}"
    near = suggestion(value, known) if isinstance(value, str) else ""
    return f"{show(value)} is none of {', '.join(known)}{near}"


def field_names(model: type[BaseModel] | None) -> list[str]:
    """The names of a model's fields as in a manifest."""
    if model is None:
        return []
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_at(model: type[BaseModel], location: Iterable[int | str]) -> type[BaseModel] | None:
    """Return the model that a location of a document is read by, or None where none is."""
    found: type[BaseModel] | None = model
    for part in location:
        if isinstance(part, str):
            found = field_model(found, part) if found is not None else None
    return found


def field_model(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    """Return the model of a field, or of the items of a list, or None where it is something else."""
    for attribute, field in model.model_fields.items():
        if name == (field.alias or attribute):
            return _model_in(field.annotation)
    return None


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for item in get_args(annotation) if (model := _model_in(item)) is not None), None)
