"""What a job's pods need besides themselves: volume claims, a Service, a Secret. Plain documents, no I/O."""

from typing import Any

from fedjob_operator.api.enums import WhenDeleted
from fedjob_operator.api.v1alpha1 import FederatedJob
from fedjob_operator.build.merge import merged
from fedjob_operator.build.names import (
    JOB_UID_LABEL,
    ROLE_LABEL,
    TOKEN_KEY,
    claim_name,
    client_claim_name,
    job_labels,
    owner,
    secret_name,
    service_name,
)
from fedjob_operator.core.layout import group_of
from fedjob_operator.core.observed import PodRole
from fedjob_protocol.routes import AGGREGATOR_PORT

Document = dict[str, Any]
"""A Kubernetes object as JSON."""


def aggregator_claim(job: FederatedJob, index: int = 0) -> Document | None:
    """The claim of one aggregator's volume of checkpoints; ``None`` where the job names one that is there.

    With ``retentionPolicy: Retain`` nothing owns it, so that nobody loses a model by deleting a job.
    """
    storage = job.spec.aggregator.storage
    if storage.claim_name is not None:
        return None
    spec: Document = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": storage.size}},
    }
    if storage.storage_class_name is not None:
        spec["storageClassName"] = storage.storage_class_name
    is_owned = storage.retention_policy.when_deleted is WhenDeleted.DELETE
    return _claim(job, claim_name(job, index), spec, is_owned=is_owned)


def client_claims(job: FederatedJob, index: int) -> tuple[Document, ...]:
    """The claims of one client, from the ``volumeClaimTemplates`` of its group; they go with the job."""
    group = next(group for group in job.spec.client_groups if group.name == group_of(job.status.layout, index))
    claims = []
    for position, template in enumerate(group.volume_claim_templates):
        name = template_name(template, position)
        claim = _claim(job, client_claim_name(job, name, index), dict(_map(template.get("spec"))), is_owned=True)
        metadata = _map(template.get("metadata"))
        extra = {key: _map(metadata.get(key)) for key in ("labels", "annotations") if metadata.get(key)}
        claims.append(merged({"metadata": extra}, claim))
    return tuple(claims)


def template_name(template: Any, position: int) -> str:
    """Name of a claim template: the volume that a pod template mounts it by."""
    name = _map(_map(template).get("metadata")).get("name")
    return name if isinstance(name, str) and name else f"volume-{position}"


def _map(value: Any) -> dict[str, Any]:
    """A JSON object that people wrote; whatever else they wrote counts as nothing."""
    return dict(value) if isinstance(value, dict) else {}


def _claim(job: FederatedJob, name: str, spec: Document, *, is_owned: bool) -> Document:
    metadata: Document = {"name": name, "namespace": job.metadata.namespace, "labels": job_labels(job)}
    if is_owned:
        metadata["ownerReferences"] = [owner(job)]
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


def aggregator_service(job: FederatedJob) -> Document:
    """The headless Service that people and dashboards find the aggregators by, the leader and its standbys alike."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _owned(job, service_name(job)),
        "spec": {
            "clusterIP": "None",
            "selector": {JOB_UID_LABEL: job.metadata.uid, ROLE_LABEL: PodRole.AGGREGATOR.value},
            "ports": [{"name": "http", "port": AGGREGATOR_PORT, "targetPort": "http"}],
        },
    }


def token_secret(job: FederatedJob, token: str) -> Document:
    """The Secret that the job's pods take their token from."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": _owned(job, secret_name(job)),
        "type": "Opaque",
        "immutable": True,
        "stringData": {TOKEN_KEY: token},
    }


def _owned(job: FederatedJob, name: str) -> Document:
    return {
        "name": name,
        "namespace": job.metadata.namespace,
        "labels": job_labels(job),
        "ownerReferences": [owner(job)],
    }
