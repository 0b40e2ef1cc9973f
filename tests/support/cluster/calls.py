"""What is asked of an API server, as the proxy before it remembers it."""

import json
import re
import time
from dataclasses import dataclass
from typing import Any

from aiohttp import web

Document = dict[str, Any]

VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
CALL = "call"
"""The verb of a call to a pod through the API server's proxy."""
_PATH = re.compile(
    r"^/(?:api/v1|apis/[^/]+/[^/]+)(?:/namespaces/(?P<namespace>[^/]+)(?=/[^/]))?"
    r"/(?P<resource>[^/]+)(?:/(?P<name>[^/]+))?(?:/(?P<sub>[^/]+))?$"
)
_POD = re.compile(r"^/api/v1/namespaces/(?P<namespace>[^/]+)/pods/(?P<name>[^/:]+):(?P<port>\d+)/proxy(?P<path>/.*)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request."""

    at: float
    """When the answer was there, in seconds of the monotonic clock."""
    verb: str
    """As in RBAC; `CALL` for one that goes to a pod."""
    resource: str
    """With its subresource: ``federatedjobs/status``; of a call to a pod method and path: ``PUT /v1/rounds/1``."""
    namespace: str
    name: str
    dry_run: bool
    body: Any
    code: int
    version: str
    """``resourceVersion`` of the object that was answered."""
    nth: int = 0
    """Its number among the writes, or among the calls to pods, in the order of their arrival; 0 for what only reads."""

    @property
    def is_write(self) -> bool:
        """Whether it may have changed something that is kept."""
        return self.verb in VERBS.values() and not self.dry_run

    def __str__(self) -> str:
        return f"{self.verb} {self.resource} {self.name}".rstrip()


def is_watch(request: web.BaseRequest) -> bool:
    """Whether a request begins a watch."""
    return request.query.get("watch") in ("1", "true")


def call_of(request: web.BaseRequest, body: bytes, code: int = 0, answer: bytes = b"") -> Call:
    """What was asked, and as far as it is known what was answered."""
    if pod := pod_of(request.path):
        verb, resource, parts = CALL, f"{request.method} {pod['path']}", pod
    else:
        found = _PATH.match(request.path)
        parts = found.groupdict() if found else {}
        verb = VERBS.get(request.method) or ("get" if parts.get("name") else "list")
        resource = parts.get("resource") or request.path
        resource += f"/{parts['sub']}" if parts.get("sub") else ""
    document = _json(body)
    name = parts.get("name") or (document.get("metadata", {}).get("name", "") if isinstance(document, dict) else "")
    return Call(
        at=time.monotonic(),
        verb="watch" if request.query.get("watch") else verb,
        resource=resource,
        namespace=parts.get("namespace") or "",
        name=name,
        dry_run=bool(request.query.get("dryRun")),
        body=document,
        code=code,
        version=_version(_json(answer)),
    )


def pod_of(path: str) -> dict[str, str] | None:
    """Namespace, name, port and path of a call to a pod through the API server; ``None`` for any other."""
    found = _POD.match(path)
    return found.groupdict() if found else None


def _version(document: Any) -> str:
    metadata = document.get("metadata") if isinstance(document, dict) else None
    return str(metadata.get("resourceVersion", "")) if isinstance(metadata, dict) else ""


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None
