"""The pods of one job on the API server: created under deterministic names, never changed, deleted by unique id."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from fedjob_operator.adapters.kube.api import (
    CLAIMS,
    DEPLOYMENTS,
    PODS,
    POLICIES,
    SECRETS,
    SERVICES,
    ApiError,
    ApiRefusedError,
    Kind,
    KubeApi,
)
from fedjob_operator.adapters.kube.cache import PodCache
from fedjob_operator.adapters.kube.documents import Document, is_owned_by, label, mapping, meta, name_of
from fedjob_operator.adapters.kube.store import JobKey
from fedjob_operator.adapters.kube.view import pod_uid
from fedjob_operator.api.v1alpha1 import FederatedJob
from fedjob_operator.build.external import outside_groups
from fedjob_operator.build.names import JOB_UID_LABEL, MANAGED_BY_LABEL, MANAGER
from fedjob_operator.build.pods import build_pod, refused_service_account
from fedjob_operator.build.policy import network_policy, origin_policy, registration_policy
from fedjob_operator.build.serving import server_deployment, server_policy, server_service
from fedjob_operator.build.settings import PodSettings
from fedjob_operator.build.storage import aggregator_claim, aggregator_service, client_claims, token_secret
from fedjob_operator.core.actions import CreatePod, DeletePod, ServeModel
from fedjob_operator.core.layout import needs_evaluator, pod_name
from fedjob_operator.core.observed import PodCheck, PodRole, PodView, ServersSeen
from fedjob_operator.ports import CallError
from fedjob_protocol.reasons import Reason

log = logging.getLogger(__name__)

GRACE_SECONDS: Final = 5
"""How long a pod may take to end; whatever counts is durable before."""
WATCHED: Final = f"{MANAGED_BY_LABEL}={MANAGER},{JOB_UID_LABEL}"
"""Selects the pods of all jobs."""
MAX_PROBLEM: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSource:
    """What the pods of all jobs have in common."""

    api: KubeApi
    cache: PodCache
    settings: PodSettings


class KubePods:
    """`fedjob_operator.ports.Pods` on the API server.

    Args:
        source: What the pods of all jobs have in common.
        key: Which job.
        token: The job's token.
        looked: Called at every look at the pods.
        failed: Called after a request that got no usable answer: what was seen before may be out of date.
        clock: The time, in UTC.
    """

    def __init__(
        self,
        source: PodSource,
        key: JobKey,
        *,
        token: str,
        looked: Callable[[], None] = lambda: None,
        failed: Callable[[], None] = lambda: None,
        clock: Callable[[], datetime],
    ) -> None:
        self._api, self._cache, self._settings = source.api, source.cache, source.settings
        self._key = key
        self._token = token
        self._looked = looked
        self._failed = failed
        self._clock = clock
        self._making = asyncio.Lock()
        self._made: set[str] = set()

    def pods(self) -> tuple[PodView, ...]:
        """Return the pods of the job as last seen."""
        self._looked()
        return self._cache.pods(self._key.uid)

    async def refresh(self) -> None:
        """List the job's pods: a watch may have lost that some are gone.

        Raises:
            ApiError: They cannot be listed now.
        """
        mark = self._cache.mark()
        documents = await self._api.list(PODS, self._key.namespace, labels=f"{JOB_UID_LABEL}={self._key.uid}")
        self._cache.replace(self._key.uid, documents, mark=mark)
        # Made again if somebody took them away: the next pod to be created needs them.
        self._made.clear()

    async def create(self, job: FederatedJob, action: CreatePod) -> None:
        """Create a pod, and before it what it needs; that they exist already is fine if they are this job's.

        Raises:
            CallError: It cannot be created now. Its word is a `Reason` where the API server refused.
        """
        try:
            pod = self._build(job, action)
        except ValueError as error:
            raise CallError(str(error), word=Reason.INVALID_POD_TEMPLATE) from error
        try:
            async with self._making:
                for kind, document in self._needed(job, action):
                    if kind is CLAIMS and _is_replica(job, action):
                        # A standby's volume may be taken away for good: its successor begins with an empty one.
                        self._made.discard(_key(kind, document))
                    await self._ensure(kind, document)
            mark = self._cache.mark()
            self._cache.answered(await self._create(PODS, pod), mark=mark)
        except ApiError as error:
            self._failed()
            raise _call_error(f"pod {name_of(pod)} cannot be created", error) from error

    async def serve(self, job: FederatedJob, action: ServeModel) -> ServersSeen:
        """Have so many servers of the job's model: make what is not there, and change how many there are.

        Raises:
            CallError: It cannot be done now, or the pod's template is not allowed.
        """
        serving = job.status.serving
        if serving is None or serving.replicas != action.replicas:
            raise CallError("the status asks for another number of servers by now")
        try:
            wanted = server_deployment(job, serving, self._settings)
        except ValueError as error:
            raise CallError(str(error), word=Reason.INVALID_POD_TEMPLATE) from error
        if refusal := refused_service_account(wanted["spec"]["template"], self._settings):
            raise CallError(refusal, word=Reason.INVALID_POD_TEMPLATE)
        try:
            await self._create(SECRETS, token_secret(job, self._token))
            if self._settings.policy is not None:
                await self._create(POLICIES, server_policy(job))
            await self._create(SERVICES, server_service(job, serving))
            found = await self._create(DEPLOYMENTS, wanted)
            if mapping(found.get("spec")).get("replicas") != serving.replicas:
                scaled = {**found, "spec": {**mapping(found.get("spec")), "replicas": serving.replicas}}
                await self._api.replace(DEPLOYMENTS, self._key.namespace, scaled)
        except ApiError as error:
            raise _call_error(f"the servers of job {job.metadata.name} cannot be made", error) from error
        return ServersSeen(replicas=serving.replicas, at=self._clock())

    async def delete(self, action: DeletePod) -> None:
        """Delete this very pod; that it is gone already is fine.

        Raises:
            CallError: It cannot be deleted now.
        """
        uid = pod_uid(action.incarnation)
        name = pod_name(self._key.name, action.role, action.index, action.ordinal)
        mark = self._cache.mark()
        try:
            left = await self._api.delete(PODS, self._key.namespace, name, uid=uid, grace_seconds=GRACE_SECONDS)
        except ApiRefusedError as error:
            if not error.is_absent and not error.is_conflict:
                raise CallError(f"pod {name} cannot be deleted: {error}") from error
            self._cache.absent(self._key.uid, uid)
            return
        except ApiError as error:
            self._failed()
            raise CallError(f"pod {name} cannot be deleted: {error}") from error
        if meta(left).get("deletionTimestamp"):
            self._cache.answered(left, mark=mark)

    async def check(self, job: FederatedJob) -> PodCheck:
        """Ask whether the API server would take the job's pods: one of each kind.

        Raises:
            CallError: There was no answer.
        """
        answers = await asyncio.gather(*(self._check(job, where, action) for where, action in _samples(job)))
        problem = next((answer for answer in answers if answer), None)
        return PodCheck(generation=job.metadata.generation, problem=problem[:MAX_PROBLEM] if problem else None)

    async def _check(self, job: FederatedJob, where: str, action: CreatePod) -> str | None:
        try:
            pod = self._build(job, action)
            await self._api.create(PODS, self._key.namespace, pod, dry_run=True)
        except ValueError as error:
            return f"{where}: {error}"
        except ApiRefusedError as error:
            # A pod of that name is there, or there is no room for a further one now: that says nothing against it.
            fine = error.is_conflict or _is_quota(error) or _is_ending(error)
            return None if fine else f"{where}: {error}"
        except ApiError as error:
            raise CallError(f"{where} cannot be checked: {error}") from error
        return None

    def _build(self, job: FederatedJob, action: CreatePod) -> Document:
        pod = build_pod(job, action, self._settings)
        if refusal := refused_service_account(pod, self._settings):
            raise ValueError(refusal)
        return pod

    def _needed(self, job: FederatedJob, action: CreatePod) -> list[tuple[Kind, Document]]:
        """What has to be there before a pod."""
        documents: list[tuple[Kind, Document]] = [
            (SECRETS, token_secret(job, self._token)),
            (SERVICES, aggregator_service(job)),
        ]
        if self._settings.policy is not None:
            documents.append((POLICIES, network_policy(job, self._settings.policy)))
            if job.status.origin is not None and action.role is PodRole.CLIENT:
                documents.append((POLICIES, origin_policy(job, job.status.origin)))
            if outside_groups(job):
                documents.append((POLICIES, registration_policy(job)))
        if action.role is PodRole.AGGREGATOR and (claim := aggregator_claim(job, action.index)) is not None:
            documents.append((CLAIMS, claim))
        if action.role is PodRole.CLIENT:
            documents += [(CLAIMS, claim) for claim in client_claims(job, action.index)]
        return documents

    async def _ensure(self, kind: Kind, document: Document) -> None:
        key = _key(kind, document)
        if key not in self._made:
            await self._create(kind, document)
            self._made.add(key)

    async def _create(self, kind: Kind, document: Document) -> Document:
        """Create an object; one that is there already is returned if it is this job's.

        Raises:
            CallError: It is another job's.
            ApiError: It cannot be created.
        """
        try:
            return await self._api.create(kind, self._key.namespace, document)
        except ApiRefusedError as error:
            if error.reason != "AlreadyExists":
                raise
        name = name_of(document)
        if kind is SECRETS:
            # Its name is this job's alone, and we may not read it.
            return document
        found = await self._get(kind, name)
        if found is not None and self._is_ours(found):
            if kind is CLAIMS and meta(found).get("deletionTimestamp"):
                raise CallError(f"the volume claim {name} was deleted and is still going away; trying again")
            return found
        raise CallError(f"the old job's {kind.plural.removesuffix('s')} {name} is still going away; trying again")

    async def _get(self, kind: Kind, name: str) -> Document | None:
        try:
            return await self._api.get(kind, self._key.namespace, name)
        except ApiRefusedError as error:
            if error.is_absent:
                return None
            raise

    def _is_ours(self, document: Document) -> bool:
        # A volume may have no owner, so that it outlives its job.
        uid = self._key.uid
        has_owner = bool(meta(document).get("ownerReferences"))
        return is_owned_by(document, uid) or (not has_owner and label(document, JOB_UID_LABEL) == uid)


def _samples(job: FederatedJob) -> list[tuple[str, CreatePod]]:
    """One pod of each kind, and the part of the spec that it comes from."""
    samples = [("spec.aggregator.template", CreatePod(role=PodRole.AGGREGATOR, index=0, ordinal=0))]
    for entry in job.status.layout:
        position = next(place for place, group in enumerate(job.spec.client_groups) if group.name == entry.group)
        if entry.count and job.spec.client_groups[position].external is None:
            action = CreatePod(role=PodRole.CLIENT, index=entry.first, ordinal=0)
            samples.append((f"spec.clientGroups[{position}].template", action))
    if needs_evaluator(job):
        samples.append(("spec.evaluation.template", CreatePod(role=PodRole.EVALUATOR, index=0, ordinal=0)))
    return samples


def _key(kind: Kind, document: Document) -> str:
    return f"{kind.plural}/{name_of(document)}"


def _is_replica(job: FederatedJob, action: CreatePod) -> bool:
    return action.role is PodRole.AGGREGATOR and job.spec.aggregator.replicas > 1


def _is_quota(error: ApiRefusedError) -> bool:
    return error.status == 403 and "exceeded quota" in str(error)


def _is_ending(error: ApiRefusedError) -> bool:
    """Whether the namespace is going away: the job goes with it."""
    return error.status == 403 and "because it is being terminated" in str(error)


def _call_error(what: str, error: ApiError) -> CallError:
    word: str | None = None
    if isinstance(error, ApiRefusedError):
        if _is_quota(error):
            word = Reason.QUOTA_EXCEEDED
        elif error.status in (400, 403, 422) and not _is_ending(error):
            word = Reason.POD_REFUSED
    return CallError(f"{what}: {error}", word=word)
