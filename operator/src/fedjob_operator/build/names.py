"""Names and labels of everything that is made for a job: written once, read by whoever looks for it.

A job's name has at most 40 characters, so that every name here fits into the 63 of a DNS label.
"""

from typing import Final

from fedjob_operator.api.v1alpha1 import GROUP, FederatedJob
from fedjob_operator.core.layout import group_of
from fedjob_operator.core.observed import PodRole

MANAGED_BY_LABEL: Final = "app.kubernetes.io/managed-by"
MANAGER: Final = "fedjob-operator"
"""Value of `MANAGED_BY_LABEL`; what the operator watches is selected by it."""
NAME_LABEL: Final = "app.kubernetes.io/name"
COMPONENT_LABEL: Final = "app.kubernetes.io/component"
JOB_LABEL: Final = f"{GROUP}/job"
JOB_UID_LABEL: Final = f"{GROUP}/job-uid"
"""Unique id of the job: a job that is made anew under the same name never takes the old one's pods for its own."""
ROLE_LABEL: Final = f"{GROUP}/role"
INDEX_LABEL: Final = f"{GROUP}/index"
ORDINAL_LABEL: Final = f"{GROUP}/ordinal"
COHORT_LABEL: Final = f"{GROUP}/cohort"
GROUP_LABEL: Final = f"{GROUP}/group"

SERVER_ROLE: Final = "server"
"""Value of `ROLE_LABEL` of the servers of a complete job's model; the operator neither makes nor counts their pods."""
CLIENT_CONTAINER: Final = "client"
"""Name of the container of clients and evaluators; templates refer to it."""
AGGREGATOR_CONTAINER: Final = "aggregator"
TOKEN_KEY: Final = "token"  # noqa: S105 - the key's name
"""Key of a job's Secret."""
UID_CHARACTERS: Final = 8
"""How much of a job's unique id is part of the names of its volumes."""


def claim_name(job: FederatedJob, index: int = 0) -> str:
    """Name of the volume claim of one aggregator: the one that the spec names, or one of the job's own.

    The own one carries part of the job's unique id: it may outlive the job, and the next job of that name begins with
    an empty one.
    """
    return job.spec.aggregator.storage.claim_name or _of_this_job(job, f"{PodRole.AGGREGATOR}-{index}")


def client_claim_name(job: FederatedJob, template: str, index: int) -> str:
    """Name of one claim of a client, which its pods use one after the other."""
    return _of_this_job(job, f"{template}-{index}")


def _of_this_job(job: FederatedJob, rest: str) -> str:
    """A name that no other job of the same name ever has."""
    return f"{job.metadata.name}-{job.metadata.uid[:UID_CHARACTERS]}-{rest}"


def service_name(job: FederatedJob) -> str:
    """Name of the headless Service of the aggregator."""
    return f"{job.metadata.name}-aggregator"


def secret_name(job: FederatedJob) -> str:
    """Name of the Secret with the job's token.

    A kubelet keeps an immutable Secret for as long as a pod uses one of that name: the pods of a job that was made anew
    would be given the old job's token while the last old pod is on its way out.
    """
    return _of_this_job(job, "token")


def serve_policy_name(job: FederatedJob) -> str:
    """Name of the NetworkPolicy of the job's servers."""
    return _of_this_job(job, "serve")


def policy_name(job: FederatedJob) -> str:
    """Name of the job's NetworkPolicy."""
    return _of_this_job(job, "pods")


def origin_policy_name(job: FederatedJob) -> str:
    """Name of the NetworkPolicy that lets the job fetch another job's model."""
    return _of_this_job(job, "origin")


def registration_policy_name(job: FederatedJob) -> str:
    """Name of the policy that lets clients register from outside."""
    return f"{policy_name(job)}-registration"


def job_labels(job: FederatedJob) -> dict[str, str]:
    """Labels of everything that belongs to a job."""
    return {
        MANAGED_BY_LABEL: MANAGER,
        NAME_LABEL: "fedjob",
        JOB_LABEL: job.metadata.name,
        JOB_UID_LABEL: job.metadata.uid,
    }


def pod_labels(job: FederatedJob, role: PodRole, index: int, ordinal: int) -> dict[str, str]:
    """Labels of a pod: enough to know its place without reading its name."""
    labels = job_labels(job) | {
        COMPONENT_LABEL: role.value,
        ROLE_LABEL: role.value,
        INDEX_LABEL: str(index),
        ORDINAL_LABEL: str(ordinal),
    }
    if role is PodRole.CLIENT:
        labels[GROUP_LABEL] = group_of(job.status.layout, index)
    return labels


def owner(job: FederatedJob) -> dict[str, object]:
    """Reference to the job: what carries it goes when the job goes."""
    return {
        "apiVersion": job.api_version,
        "kind": job.kind,
        "name": job.metadata.name,
        "uid": job.metadata.uid,
        "controller": True,
        # The job's deletion does not wait for what it owns: a name is free again at once.
        "blockOwnerDeletion": False,
    }
