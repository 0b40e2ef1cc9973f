"""How a test reaches an API server: an identity, a kubeconfig of it, and calls in plain JSON."""

import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

import urllib3

Document = dict[str, Any]

MERGE = "application/merge-patch+json"
CALL_SECONDS = 30.0

PREFIXES = {
    "federatedjobs": "/apis/fedjob.dev/v1alpha1",
    "customresourcedefinitions": "/apis/apiextensions.k8s.io/v1",
    "networkpolicies": "/apis/networking.k8s.io/v1",
    "deployments": "/apis/apps/v1",
    "leases": "/apis/coordination.k8s.io/v1",
    "roles": "/apis/rbac.authorization.k8s.io/v1",
    "rolebindings": "/apis/rbac.authorization.k8s.io/v1",
    "clusterroles": "/apis/rbac.authorization.k8s.io/v1",
    "clusterrolebindings": "/apis/rbac.authorization.k8s.io/v1",
}
"""Groups of the resources that tests use; what is not named here is in the core group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Where an API server is and who calls it."""

    url: str
    token: str
    ca: Path | None
    """Certificate of the authority; ``None`` for a plain HTTP proxy before the server."""

    def at(self, url: str) -> Self:
        """The same identity through a plain HTTP proxy."""
        return replace(self, url=url, ca=None)

    def who(self, token: str) -> Self:
        """Another identity at the same place."""
        return replace(self, token=token)

    def tls(self) -> ssl.SSLContext | None:
        """What a client trusts; ``None`` without TLS."""
        return ssl.create_default_context(cafile=str(self.ca)) if self.ca else None

    def kubeconfig(self, file: Path) -> Path:
        """Write a kubeconfig of this identity."""
        cluster: Document = {"server": self.url}
        if self.ca:
            cluster["certificate-authority"] = str(self.ca)
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"token": self.token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }
        file.write_text(json.dumps(document), encoding="utf-8")  # JSON is YAML
        return file


class ApiError(Exception):
    """The API server refused.

    Args:
        code: HTTP status.
        body: The Status object, or what came in its place.
    """

    def __init__(self, code: int, body: Document) -> None:
        super().__init__(f"{code} {body.get('reason', '')}: {body.get('message', body)}")
        self.code = code
        self.body = body


def path(resource: str, namespace: str | None = None, name: str | None = None, sub: str | None = None) -> str:
    """Path of a resource: ``path("pods", "default", "x", "status")``."""
    parts = [PREFIXES.get(resource, "/api/v1")]
    if namespace is not None:
        parts.append(f"namespaces/{namespace}")
    parts.append(resource)
    parts.extend(part for part in (name, sub) if part is not None)
    return "/".join(parts)


class Api:
    """Calls of an API server that wait for their answers; safe to share between threads.

    Args:
        access: Where and who.
    """

    def __init__(self, access: Access) -> None:
        self.access = access
        self._pool = urllib3.PoolManager(
            maxsize=8, ssl_context=access.tls(), headers={"Authorization": f"Bearer {access.token}"}, retries=False
        )

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()

    def call(
        self, method: str, where: str, body: Any = None, *, kind: str = "application/json", **query: str
    ) -> Document:
        """Make a call and return its JSON.

        Raises:
            ApiError: The answer is no success.
        """
        url = f"{self.access.url}{where}" + (f"?{urlencode(query)}" if query else "")
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": kind, "Authorization": f"Bearer {self.access.token}"}
        answer = self._pool.request(method, url, body=data, headers=headers, timeout=CALL_SECONDS)
        document = _parsed(answer.data)
        if answer.status >= 400:
            raise ApiError(answer.status, document)
        return document

    def create(self, resource: str, namespace: str | None, body: Mapping[str, Any], **query: str) -> Document:
        """POST an object."""
        return self.call("POST", path(resource, namespace), body, **query)

    def get(self, resource: str, namespace: str | None, name: str) -> Document:
        """GET an object."""
        return self.call("GET", path(resource, namespace, name))

    def find(self, resource: str, namespace: str | None, name: str) -> Document | None:
        """GET an object; ``None`` where there is none."""
        try:
            return self.get(resource, namespace, name)
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    def list(self, resource: str, namespace: str | None = None, **query: str) -> list[Document]:
        """GET the objects of a kind."""
        items: list[Document] = self.call("GET", path(resource, namespace), **query)["items"]
        return items

    def patch(
        self, resource: str, namespace: str | None, name: str, body: Mapping[str, Any], sub: str | None = None
    ) -> Document:
        """Merge-patch an object or one of its subresources."""
        return self.call("PATCH", path(resource, namespace, name, sub), body, kind=MERGE)

    def delete(self, resource: str, namespace: str | None, name: str, **options: Any) -> None:
        """DELETE an object; that it is gone is fine."""
        try:
            self.call("DELETE", path(resource, namespace, name), options or None)
        except ApiError as error:
            if error.code != 404:
                raise


def _parsed(data: bytes) -> Document:
    try:
        document = json.loads(data)
    except ValueError:
        return {"message": data.decode(errors="replace")}
    return document if isinstance(document, dict) else {"message": str(document)}
