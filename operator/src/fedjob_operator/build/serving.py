"""The servers of a complete job's model: a Deployment, its Service, and who may talk to them. Plain documents."""

from typing import Any

from fedjob_operator.api.v1alpha1 import FederatedJob, Serving
from fedjob_operator.build.config import server_config
from fedjob_operator.build.merge import merged
from fedjob_operator.build.names import (
    COMPONENT_LABEL,
    JOB_UID_LABEL,
    ROLE_LABEL,
    SERVER_ROLE,
    job_labels,
    owner,
    serve_policy_name,
    service_name,
)
from fedjob_operator.build.pods import server_pod
from fedjob_operator.build.settings import PodSettings
from fedjob_operator.build.storage import Document
from fedjob_protocol.messages import Base
from fedjob_protocol.routes import AGGREGATOR_PORT, CLIENT_PORT, model_path


def server_deployment(job: FederatedJob, serving: Serving, settings: PodSettings) -> Document:
    """Return the Deployment: the program, image and trainer of the evaluator, with the model instead of data.

    It fetches the model from the job's aggregator, which goes on serving it as long as the job is there.

    Raises:
        ValueError: As `fedjob_operator.build.pods.build_pod`.
    """
    root = f"http://{service_name(job)}.{job.metadata.namespace}.svc:{AGGREGATOR_PORT}"
    model = Base(round=serving.model.round, digest=serving.model.digest)
    config = server_config(job, model=model, model_url=root + model_path(model.round))
    pod = server_pod(job, config, settings)
    labels = {**pod["metadata"]["labels"], **_labels(job)}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(job, serving.service),
        "spec": {
            "replicas": serving.replicas,
            "revisionHistoryLimit": 1,
            "selector": {"matchLabels": _selector(job)},
            "template": merged(pod, {"metadata": {"labels": labels}}),
        },
    }


def server_service(job: FederatedJob, serving: Serving) -> Document:
    """Return the Service that people reach the servers at."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(job, serving.service),
        "spec": {
            "selector": _selector(job),
            "ports": [{"name": "http", "port": CLIENT_PORT, "targetPort": "http"}],
        },
    }


def server_policy(job: FederatedJob) -> dict[str, Any]:
    """Return the policy that lets the namespace's pods ask the servers; policies add up."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(job, serve_policy_name(job)),
        "spec": {
            "podSelector": {"matchLabels": _selector(job)},
            "policyTypes": ["Ingress"],
            "ingress": [{"ports": [{"port": "http", "protocol": "TCP"}], "from": [{"podSelector": {}}]}],
        },
    }


def _metadata(job: FederatedJob, name: str) -> Document:
    return {
        "name": name,
        "namespace": job.metadata.namespace,
        "labels": _labels(job),
        "ownerReferences": [owner(job)],
    }


def _labels(job: FederatedJob) -> dict[str, str]:
    return job_labels(job) | {COMPONENT_LABEL: SERVER_ROLE, ROLE_LABEL: SERVER_ROLE}


def _selector(job: FederatedJob) -> dict[str, str]:
    return {JOB_UID_LABEL: job.metadata.uid, ROLE_LABEL: SERVER_ROLE}
