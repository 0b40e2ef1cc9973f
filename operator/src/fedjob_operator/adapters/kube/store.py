"""The resource on the API server."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pydantic import ValidationError
from typing_extensions import override

from fedjob_operator.adapters.kube.api import JOBS, ApiRefusedError, ApiUnavailableError, KubeApi
from fedjob_operator.adapters.kube.documents import Document, entries, mapping, meta, text, uid_of, version_of
from fedjob_operator.adapters.kube.patch import finite, status_patch
from fedjob_operator.api.problems import problems_of
from fedjob_operator.api.v1alpha1 import (
    ConditionStatus,
    ConditionType,
    FederatedJob,
    FederatedJobStatus,
    ObjectMeta,
    Phase,
    dump,
)
from fedjob_operator.ports import CallError, StatusConflictError, StoreUnavailableError, UnreadableJobError
from fedjob_protocol.reasons import Reason

log = logging.getLogger(__name__)

MAX_PROBLEMS: Final = 5
"""Most problems of a resource that its status names."""
MAX_MESSAGE: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class JobKey:
    """Which resource; made anew under the same name it is another."""

    namespace: str
    name: str
    uid: str

    @override
    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class KubeJobStore:
    """`fedjob_operator.ports.JobStore` on the API server.

    Args:
        api: The API server.
        key: Which resource.
        clock: The time, in UTC.
    """

    def __init__(self, api: KubeApi, key: JobKey, *, clock: Callable[[], datetime]) -> None:
        self._api = api
        self._key = key
        self._clock = clock
        self._held: Document = {}
        self._job: FederatedJob | None = None

    async def read(self) -> FederatedJob | None:
        """Return the resource; ``None`` when it is gone, is going, or is another one of the same name.

        Raises:
            StoreUnavailableError: It cannot be read now.
            UnreadableJobError: It is none that we can read, which its status says now.
        """
        try:
            document = await self._api.get(JOBS, self._key.namespace, self._key.name)
        except ApiRefusedError as error:
            if error.is_absent:
                return None
            raise StoreUnavailableError(f"job {self._key} cannot be read: {error}") from error
        except ApiUnavailableError as error:
            raise StoreUnavailableError(f"job {self._key} cannot be read: {error}") from error
        if uid_of(document) != self._key.uid or meta(document).get("deletionTimestamp"):
            return None
        job = self._job
        if job is not None and job.metadata.resource_version == version_of(document):
            return job
        try:
            return self._keep(document, parse(document))
        except UnreadableJobError as error:
            await self._report(document, str(error))
            raise

    async def write_status(self, job: FederatedJob, status: FederatedJobStatus) -> FederatedJob:
        """Write what is new in a status, if the resource is still the version that was read.

        Raises:
            StatusConflictError: It is another version, or gone.
            StoreUnavailableError: It cannot be written now.
        """
        after, lost = finite(dump(status))
        if lost:
            log.warning("job %s: %d numbers that are not finite were left out of its status", self._key, lost)
        is_current = version_of(self._held) == job.metadata.resource_version
        before = dump(job.status)
        held = mapping(self._held.get("status")) if is_current else before
        patch = status_patch(held, before, after)
        if not patch:
            return self._keep(self._held, job.model_copy(update={"status": status})) if is_current else job
        guard = {"resourceVersion": job.metadata.resource_version, "uid": self._key.uid}
        document = await self._patch({"metadata": guard, "status": patch})
        # What we meant, not what came back: an older CRD drops fields that it does not know, and the decision would
        # ask for them for ever.
        metadata = ObjectMeta.model_validate(meta(document), by_alias=True, by_name=False)
        return self._keep(document, job.model_copy(update={"metadata": metadata, "status": status}))

    async def delete(self, job: FederatedJob) -> None:
        """Delete the resource, and what it owns.

        Raises:
            CallError: It cannot be deleted now.
        """
        try:
            await self._api.delete(JOBS, self._key.namespace, self._key.name, uid=job.metadata.uid)
        except ApiRefusedError as error:
            if not error.is_absent and not error.is_conflict:
                raise CallError(f"job {self._key} cannot be deleted: {error}") from error
        except ApiUnavailableError as error:
            raise CallError(f"job {self._key} cannot be deleted: {error}") from error

    async def _report(self, document: Document, problem: str) -> None:
        """Say in the status that the resource cannot be read; nothing else in it is touched. Best effort."""
        patch = refusal_patch(document, problem, self._clock())
        if patch is None:
            return
        guard = {"resourceVersion": version_of(document), "uid": self._key.uid}
        try:
            await self._patch({"metadata": guard, "status": patch})
        except (StatusConflictError, StoreUnavailableError) as error:
            log.warning("that job %s cannot be read could not be written: %s", self._key, error)

    async def _patch(self, patch: Document) -> Document:
        try:
            return await self._api.patch_status(JOBS, self._key.namespace, self._key.name, patch)
        except ApiRefusedError as error:
            if error.is_conflict or error.is_absent:
                raise StatusConflictError(f"job {self._key} changed since it was read: {error}") from error
            raise StoreUnavailableError(f"the status of job {self._key} was refused: {error}") from error
        except ApiUnavailableError as error:
            raise StoreUnavailableError(f"the status of job {self._key} cannot be written: {error}") from error

    def _keep(self, document: Document, job: FederatedJob) -> FederatedJob:
        # Of the document only what the next patch is compared with.
        metadata = {"resourceVersion": version_of(document)}
        self._held = {"metadata": metadata, "status": mapping(document.get("status"))}
        self._job = job
        return job


def parse(document: Document) -> FederatedJob:
    """Read a resource.

    Raises:
        UnreadableJobError: It is none that we can read.
    """
    try:
        return FederatedJob.from_document(document)
    except ValidationError as error:
        problems = [str(problem) for problem in problems_of(error, FederatedJob)]
        more = f" (and {len(problems) - MAX_PROBLEMS} more)" if len(problems) > MAX_PROBLEMS else ""
        message = "; ".join(problems[:MAX_PROBLEMS]) or "it is no FederatedJob"
        raise UnreadableJobError(message[: MAX_MESSAGE - len(more)] + more) from error


def refusal_patch(document: Document, problem: str, now: datetime) -> Document | None:
    """Return the patch of a status that says that the resource cannot be read; ``None`` if it says so already."""
    status = mapping(document.get("status"))
    conditions = entries(status.get("conditions"))
    before = next((item for item in conditions if item.get("type") == ConditionType.ACCEPTED), {})
    condition: dict[str, Any] = {
        "type": ConditionType.ACCEPTED.value,
        "status": ConditionStatus.FALSE.value,
        "reason": Reason.INVALID_SPEC.value,
        "message": problem,
    }
    if all(before.get(key) == value for key, value in condition.items()):
        return None
    stays = before.get("status") == condition["status"] and text(before.get("lastTransitionTime"))
    condition["lastTransitionTime"] = stays or now.isoformat().replace("+00:00", "Z")
    generation = meta(document).get("generation")
    if isinstance(generation, int):
        condition["observedGeneration"] = generation
    others = [item for item in conditions if item.get("type") != ConditionType.ACCEPTED]
    patch: Document = {
        "conditions": [condition, *others],
        "reason": condition["reason"],
        "message": condition["message"],
    }
    if not status.get("phase"):
        patch["phase"] = Phase.PENDING.value
    return patch
