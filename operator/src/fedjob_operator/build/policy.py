"""The NetworkPolicy of a job: who may talk to its pods, where the cluster's network enforces it. Plain documents."""

from typing import Any

from fedjob_operator.api.v1alpha1 import FederatedJob, Origin
from fedjob_operator.build.names import (
    JOB_UID_LABEL,
    ROLE_LABEL,
    job_labels,
    origin_policy_name,
    owner,
    policy_name,
    registration_policy_name,
)
from fedjob_operator.build.settings import PolicySettings
from fedjob_operator.core.observed import PodRole

NAMESPACE_NAME_LABEL = "kubernetes.io/metadata.name"
"""The label with its name that every namespace has."""


def network_policy(job: FederatedJob, settings: PolicySettings) -> dict[str, Any]:
    """Return the policy that lets in the job's own pods, the operator, and for metrics the monitoring.

    Ingress only. Policies add up: who wants to let in more writes one of their own for the same pods.
    """
    own = {"podSelector": {"matchLabels": {JOB_UID_LABEL: job.metadata.uid}}}
    operator = {
        "namespaceSelector": {"matchLabels": {NAMESPACE_NAME_LABEL: settings.operator_namespace}},
        "podSelector": {"matchLabels": dict(settings.operator_labels)},
    }
    monitoring = {"namespaceSelector": {"matchLabels": dict(settings.monitoring_namespace_labels)}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {
            "name": policy_name(job),
            "namespace": job.metadata.namespace,
            "labels": job_labels(job),
            "ownerReferences": [owner(job)],
        },
        "spec": {
            **own,
            "policyTypes": ["Ingress"],
            "ingress": [
                {"ports": [{"port": "http", "protocol": "TCP"}], "from": [own, operator]},
                {"ports": [{"port": "metrics", "protocol": "TCP"}], "from": [monitoring]},
            ],
        },
    }


def registration_policy(job: FederatedJob) -> dict[str, Any]:
    """Return the policy that lets anybody reach the aggregator, which asks each for a token: clients come from outside.

    Only for jobs whose clients register themselves.
    """
    labels = {JOB_UID_LABEL: job.metadata.uid, ROLE_LABEL: PodRole.AGGREGATOR.value}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {
            "name": registration_policy_name(job),
            "namespace": job.metadata.namespace,
            "labels": job_labels(job),
            "ownerReferences": [owner(job)],
        },
        "spec": {
            "podSelector": {"matchLabels": labels},
            "policyTypes": ["Ingress"],
            "ingress": [{"ports": [{"port": "http", "protocol": "TCP"}]}],
        },
    }


def origin_policy(job: FederatedJob, origin: Origin) -> dict[str, Any]:
    """Return the policy that lets the job's clients reach the aggregator of the job that it begins with.

    Policies add up, and this one goes with the job that needs it: the other job's own stays as it is.
    """
    aggregators = {JOB_UID_LABEL: origin.uid, ROLE_LABEL: PodRole.AGGREGATOR.value}
    clients = {JOB_UID_LABEL: job.metadata.uid, ROLE_LABEL: PodRole.CLIENT.value}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {
            "name": origin_policy_name(job),
            "namespace": job.metadata.namespace,
            "labels": job_labels(job),
            "ownerReferences": [owner(job)],
        },
        "spec": {
            "podSelector": {"matchLabels": aggregators},
            "policyTypes": ["Ingress"],
            "ingress": [
                {
                    "ports": [{"port": "http", "protocol": "TCP"}],
                    "from": [{"podSelector": {"matchLabels": clients}}],
                }
            ],
        },
    }
