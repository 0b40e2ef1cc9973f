"""Changes to a manifest from the command line: ``--set spec.rounds=3``, with the same scalar rules as the file."""

import json
import re
from collections.abc import Sequence
from typing import Final

from pydantic import JsonValue

from fedjob.yaml_reader import YamlError, read_documents
from fedjob_operator.api.problems import Problem, path_of, show

_STEP: Final = re.compile(r"(?P<name>[A-Za-z0-9_-]+)(?P<indices>(?:\[[0-9]{1,5}\])*)")
_ROOTS: Final = frozenset({"metadata", "spec"})


class OverrideError(ValueError):
    """An override that cannot be applied."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.problem = Problem(path, message)


def apply_overrides(
    document: dict[str, JsonValue], overrides: Sequence[str]
) -> tuple[dict[str, JsonValue], list[Problem]]:
    """Return a document with overrides applied one after the other, and what was wrong with them.

    A value is read as in the file, so ``1e-3`` is a number and ``[Evaluator]`` a list; ``null`` takes the field out.

    Args:
        document: A manifest's document; it is left as it is.
        overrides: Each ``path=value``, such as ``spec.clientGroups[0].replicas=2``.
    """
    # Through JSON, not by a deep copy: what aliases share in the file must not change together.
    changed: dict[str, JsonValue] = json.loads(json.dumps(document))
    problems: list[Problem] = []
    for override in overrides:
        try:
            _apply(changed, override)
        except OverrideError as error:
            problems.append(error.problem)
    return changed, problems


def _apply(document: dict[str, JsonValue], override: str) -> None:
    name, equals, text = override.partition("=")
    if not equals:
        raise OverrideError(f"--set {override}", "has no =; write it as spec.rounds=3")
    location = _location(name)
    value = _value(name, text)
    holder: JsonValue = document
    for depth, part in enumerate(location[:-1]):
        holder = _step(holder, part, location[: depth + 1], makes=isinstance(location[depth + 1], str))
    _put(holder, location, value)


def _location(name: str) -> list[str | int]:
    location: list[str | int] = []
    for step in name.split("."):
        match = _STEP.fullmatch(step)
        if match is None:
            raise OverrideError(f"--set {name}", "is not a path such as spec.clientGroups[0].replicas")
        location.append(match["name"])
        location += [int(index) for index in re.findall(r"[0-9]+", match["indices"])]
    if location[0] not in _ROOTS or len(location) == 1:
        raise OverrideError(f"--set {name}", "only fields below spec and metadata can be set")
    return location


def _value(name: str, text: str) -> JsonValue:
    """Read a value as if it stood behind ``name:`` in the file."""
    try:
        documents = read_documents(f"- {text}\n")
    except YamlError as error:
        raise OverrideError(f"--set {name}", str(error).partition(": ")[2]) from None
    match documents:
        case [[value]]:
            return value
        case _:
            raise OverrideError(f"--set {name}", f"{show(text)} is not one value")


def _step(holder: JsonValue, part: str | int, location: Sequence[str | int], *, makes: bool) -> JsonValue:
    """Go one step down, through a mapping that is made if it is not there."""
    if isinstance(part, int):
        return _item(holder, part, location)
    if not isinstance(holder, dict):
        raise OverrideError(f"--set {path_of(location)}", f"{path_of(location[:-1])} is not a mapping")
    if holder.get(part) is None and makes:
        holder[part] = {}
    return holder.get(part)


def _item(holder: JsonValue, index: int, location: Sequence[str | int]) -> JsonValue:
    path = path_of(location[:-1])
    if not isinstance(holder, list):
        raise OverrideError(f"--set {path_of(location)}", f"{path} is not a list")
    if index >= len(holder):
        raise OverrideError(f"--set {path_of(location)}", f"{path} has {len(holder)} entries, counted from 0")
    return holder[index]


def _put(holder: JsonValue, location: Sequence[str | int], value: JsonValue) -> None:
    last = location[-1]
    if isinstance(last, int):
        _item(holder, last, location)
        assert isinstance(holder, list)
        holder[last] = value
    elif not isinstance(holder, dict):
        raise OverrideError(f"--set {path_of(location)}", f"{path_of(location[:-1])} is not a mapping")
    elif value is None:
        holder.pop(last, None)
    else:
        holder[last] = value
