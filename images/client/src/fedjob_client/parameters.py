"""Free-form maps of a manifest (``data.parameters``, ``model.parameters``, …) read into typed settings."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from fedjob_client.errors import ClientError
from fedjob_protocol.wire import Message

Settings = TypeVar("Settings", bound=Message)


def read_parameters(
    kind: type[Settings], values: Mapping[str, Any], *, where: str, error: type[ClientError]
) -> Settings:
    """Check a free-form map.

    Args:
        kind: What it should be.
        values: As the manifest has it: camelCase names.
        where: How messages call it, for example ``data.parameters``.
        error: What to raise.

    Raises:
        ClientError: Of the class ``error``: one line that names the parameter, what was seen and what is accepted.
    """
    try:
        return kind.model_validate(dict(values))
    except ValidationError as problem:
        raise error(f"{where}: {describe(problem, kind)}") from None


def describe(problem: ValidationError, kind: type[Message]) -> str:
    """The first problem of a validation in one line."""
    first = problem.errors(include_url=False, include_context=False)[0]
    name = ".".join(str(part) for part in first["loc"]) or "value"
    if first["type"] == "extra_forbidden":
        known = ", ".join(sorted(field.alias or name for name, field in kind.model_fields.items()))
        return f"{name} is not known; known: {known or 'none'}"
    seen = repr(first["input"])
    return f"{name}: {first['msg']} (seen: {seen if len(seen) <= 80 else seen[:77] + '...'})"
