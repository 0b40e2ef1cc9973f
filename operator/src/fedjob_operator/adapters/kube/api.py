"""What we ask of the API server, as a protocol: objects are plain documents, errors say whether to try again."""

from dataclasses import dataclass
from typing import Final, Protocol

from fedjob_operator.adapters.kube.documents import Document
from fedjob_operator.api.v1alpha1 import API_VERSION, PLURAL
from fedjob_protocol.errors import FedJobError


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of objects in a namespace."""

    prefix: str
    """Path before ``/namespaces``."""
    plural: str

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """Path of one object, of a subresource of it, or of all of a namespace or of the cluster."""
        parts = [self.prefix]
        if namespace is not None:
            parts += ["namespaces", namespace]
        parts += [self.plural, name or "", subresource or ""]
        return "/" + "/".join(part for part in parts if part)


JOBS: Final = Kind(f"apis/{API_VERSION}", PLURAL)
PODS: Final = Kind("api/v1", "pods")
SERVICES: Final = Kind("api/v1", "services")
SECRETS: Final = Kind("api/v1", "secrets")
CLAIMS: Final = Kind("api/v1", "persistentvolumeclaims")
EVENTS: Final = Kind("api/v1", "events")
POLICIES: Final = Kind("apis/networking.k8s.io/v1", "networkpolicies")
DEPLOYMENTS: Final = Kind("apis/apps/v1", "deployments")
LEASES: Final = Kind("apis/coordination.k8s.io/v1", "leases")


class ApiError(FedJobError):
    """A request to the API server failed."""


class ApiUnavailableError(ApiError):
    """There was no answer, or the API server could not do it now; the same request may succeed later."""


class ApiRefusedError(ApiError):
    """The API server said no.

    Args:
        message: The server's own words.
        status: HTTP status.
        reason: The server's machine word, such as ``AlreadyExists``; empty where there was none.
    """

    def __init__(self, message: str, *, status: int, reason: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason

    @property
    def is_absent(self) -> bool:
        """Whether the object, or its kind, is not there."""
        return self.status == 404

    @property
    def is_conflict(self) -> bool:
        """Whether the object is there already, or is not the version, or not the one, that was meant."""
        return self.status == 409


class KubeApi(Protocol):
    """The API server.

    Every method raises:
        ApiUnavailableError: There was no usable answer within `DEADLINE_SECONDS`, however often it was tried.
        ApiRefusedError: The API server said no.
    """

    async def get(self, kind: Kind, namespace: str, name: str) -> Document:
        """Return an object."""
        ...

    async def list(
        self, kind: Kind, namespace: str | None, *, labels: str = "", fields: str = "", most: int | None = None
    ) -> list[Document]:
        """Return the objects of a namespace, or of all, as they are now; fetched in pieces of bounded size.

        Args:
            kind: Kind of the objects.
            namespace: ``None`` is all.
            labels: A label selector.
            fields: A field selector.
            most: Return no more than so many.
        """
        ...

    async def create(self, kind: Kind, namespace: str, document: Document, *, dry_run: bool = False) -> Document:
        """Create an object, or with ``dry_run`` only say whether that would be possible; return it.

        A dry run refuses fields that the API server does not know, which otherwise it drops without a word.
        """
        ...

    async def replace(self, kind: Kind, namespace: str, document: Document) -> Document:
        """Replace an object of the version that the document names; return the new version."""
        ...

    async def patch_status(self, kind: Kind, namespace: str, name: str, patch: Document) -> Document:
        """Merge a JSON merge patch into an object's status; return the object."""
        ...

    async def delete(
        self, kind: Kind, namespace: str, name: str, *, uid: str, grace_seconds: int | None = None
    ) -> Document:
        """Delete the object with this unique id, and in the background what it owns; return the server's answer.

        A pod that still ends is returned with its ``deletionTimestamp``.
        """
        ...


DEADLINE_SECONDS: Final = 15.0
"""Longest time that one call of `KubeApi` takes, all its tries included."""
