"""Specs to test rules on: the smallest one, changed where a test says."""

from typing import Any

from fedjob_operator.api.v1alpha1 import FederatedJob, FederatedJobSpec

SMALLEST: dict[str, Any] = {
    "rounds": 3,
    "model": {"name": "mlp"},
    "data": {"name": "digits"},
    "clientGroups": [{"name": "clients", "replicas": 5}],
}


def document(**fields: Any) -> dict[str, Any]:
    """A job whose spec is the smallest one with other fields; None takes a field out."""
    spec = {name: value for name, value in {**SMALLEST, **fields}.items() if value is not None}
    return {
        "apiVersion": "fedjob.dev/v1alpha1",
        "kind": "FederatedJob",
        "metadata": {"name": "job"},
        "spec": spec,
    }


def job(**fields: Any) -> FederatedJob:
    return FederatedJob.from_document(document(**fields))


def spec(**fields: Any) -> FederatedJobSpec:
    return job(**fields).spec
