"""Small jobs for tests."""

from typing import Any

from tests.support.kubectl import RESOURCE, Document, Kubectl

JOB_SECONDS = 180.0
"""Deadline of a small job, generous: the machine may be busy."""
REASON_SECONDS = 60.0
"""How soon a job must say why it waits."""


LONG_TRAINING = {"epochs": 60, "batchSize": 16, "learningRate": 0.05}
"""A training of some tenths of a second, by the cores of a laptop."""
MANY_ROUNDS = 10_000
"""More than a test lets a job do."""


def digits(name: str, *, rounds: int = 4, clients: int = 3, group: dict[str, Any] | None = None, **spec: Any) -> Any:
    """A job that learns to read digits; a field of the spec that is ``None`` is left out."""
    defaults: dict[str, Any] = {
        "rounds": rounds,
        "seed": 1,
        "model": {"name": "mlp", "parameters": {"hiddenSizes": [64]}},
        "data": {"name": "digits", "partition": {"scheme": "Dirichlet", "alpha": 0.5}},
        "training": {"epochs": 3, "batchSize": 16, "learningRate": 0.05},
        "clientGroups": [{"name": "clients", "replicas": clients, **(group or {})}],
        "aggregator": {"storage": {"size": "64Mi", "retentionPolicy": {"whenDeleted": "Delete"}}},
        "objective": {"metric": "accuracy", "mode": "Max"},
    }
    return {
        "apiVersion": "fedjob.dev/v1alpha1",
        "kind": "FederatedJob",
        "metadata": {"name": name},
        "spec": {key: value for key, value in {**defaults, **spec}.items() if value is not None},
    }


def is_complete(status: dict[str, Any]) -> bool:
    """Whether a job is Complete."""
    return status.get("phase") == "Complete"


def job_selector(name: str) -> str:
    """Selects everything that was made for a job."""
    return f"fedjob.dev/job={name}"


def client_selector(name: str) -> str:
    """Selects a job's client pods."""
    return f"{job_selector(name)},fedjob.dev/role=client"


def mend(kubectl: Kubectl, name: str, group: dict) -> None:
    """Suspend, change the pods, resume: what describes pods may be changed while there are none."""
    kubectl.patch(RESOURCE, name, {"spec": {"suspend": True}})
    kubectl.wait_for_job(name, lambda status: status.get("phase") == "Suspended", "Suspended", 60)
    groups = kubectl.job(name)["spec"]["clientGroups"]
    groups[0].update(group)
    kubectl.patch(RESOURCE, name, {"spec": {"suspend": False, "clientGroups": groups}})


def running(kubectl: Kubectl, selector: str) -> list[str]:
    """Names of the pods whose container runs."""
    pods = kubectl.list("pods", selector)
    return sorted(pod["metadata"]["name"] for pod in pods if pod["status"]["phase"] == "Running")


def uids_of(kubectl: Kubectl, selector: str) -> set[str]:
    """UIDs of pods: another set where one was replaced."""
    return {pod["metadata"]["uid"] for pod in kubectl.list("pods", selector)}


def is_ending(pod: Document) -> bool:
    """Whether somebody asked a pod to end."""
    return "deletionTimestamp" in pod["metadata"]
