"""What the OpenAPI document says of handlers that take the raw request."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from fedjob_protocol.errors import PROBLEM_MEDIA_TYPE, Problem
from fedjob_protocol.routes import SAFETENSORS_MEDIA_TYPE

SCHEMA_PATH: Final = "#/components/schemas/"
UPLOAD_BODY: Final[Mapping[str, Any]] = {
    "required": True,
    "content": {SAFETENSORS_MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}},
}


class Parameter(NamedTuple):
    """A parameter of a path, a query or the headers."""

    name: str
    where: str
    description: str
    required: bool = False
    kind: str = "number"

    def shown(self) -> dict[str, Any]:
        """As OpenAPI has it."""
        return {
            "name": self.name,
            "in": self.where,
            "description": self.description,
            "required": self.required or self.where == "path",
            "schema": {"type": self.kind},
        }


def described(
    gives: type[BaseModel] | None,
    *,
    takes: type[BaseModel] | None = None,
    body: Mapping[str, Any] | None = None,
    parameters: Sequence[Parameter] = (),
    status: int = 200,
) -> dict[str, Any]:
    """Arguments of a route: nothing for FastAPI to check, everything for it to show.

    Args:
        gives: The answer; ``None``: safetensors.
        takes: The body, if it is a message.
        body: The body, if it is something else.
        parameters: Of path, query and headers.
        status: Of the answer.
    """
    extra: dict[str, Any] = {"parameters": [parameter.shown() for parameter in parameters]}
    if takes is not None:
        body = {"required": True, "content": {"application/json": {"schema": _reference(takes)}}}
    if body is not None:
        extra["requestBody"] = dict(body)
    content = UPLOAD_BODY["content"] if gives is None else {"application/json": {"schema": _reference(gives)}}
    refused = {PROBLEM_MEDIA_TYPE: {"schema": _reference(Problem)}}
    extra["responses"] = {
        str(status): {"description": "Done", "content": content},
        "default": {"description": "Refused: `word` says why", "content": refused},
    }
    return {"openapi_extra": extra, "response_model": None, "status_code": status}


def document(app: FastAPI, models: Iterable[type[BaseModel]]) -> dict[str, Any]:
    """The OpenAPI document of an application whose routes were `described`.

    Args:
        app: The application.
        models: All messages that its routes take and give, `Problem` among them.
    """
    schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    named = {model.__name__: model for model in models}
    _, definitions = models_json_schema(
        [(named[name], "validation") for name in sorted(named)], ref_template=SCHEMA_PATH + "{model}"
    )
    schema.setdefault("components", {})["schemas"] = definitions["$defs"]
    return schema


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": SCHEMA_PATH + model.__name__}
