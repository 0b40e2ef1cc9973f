"""FederatedJobs of tests on a real API server: small ones, and such that a test steers."""

from pathlib import Path
from typing import Any

from tests.support.cluster.steered import FOLDER, REFERENCE
from tests.support.repository import ROOT

Document = dict[str, Any]


def a_job(name: str, *, clients: int = 2, rounds: int = 2, group: Document | None = None, **spec: Any) -> Document:
    """A job whose rounds take no time: a linear model on a few made-up examples, no evaluation."""
    return {
        "apiVersion": "fedjob.dev/v1alpha1",
        "kind": "FederatedJob",
        "metadata": {"name": name},
        "spec": {
            "rounds": rounds,
            "seed": 7,
            "model": {"name": "linear"},
            "data": {
                "name": "synthetic-linear",
                "parameters": {"features": 3, "numSamples": 50, "numTestSamples": 20},
            },
            "training": {"epochs": 1, "batchSize": 50, "learningRate": 0.01},
            "clientGroups": [{"name": "clients", "replicas": clients, **(group or {})}],
            "evaluation": {"modes": []},
            **spec,
        },
    }


def a_steered_job(
    name: str,
    folder: Path,
    *,
    clients: int = 2,
    rounds: int = 3,
    evaluated: bool = False,
    parameters: Document | None = None,
    group: Document | None = None,
    **spec: Any,
) -> Document:
    """A job whose trainer waits for files in a folder; see `tests.support.cluster.steered`."""
    template = steered_template(folder)
    job = a_job(
        name,
        clients=clients,
        rounds=rounds,
        group={"trainer": REFERENCE, "template": template, **(group or {})},
        **{
            "model": {"name": "own", "parameters": parameters or {}},
            "evaluation": {"modes": ["Evaluator"], "template": template} if evaluated else {"modes": []},
            **spec,
        },
    )
    del job["spec"]["data"]
    return job


def steered_template(folder: Path) -> Document:
    """A pod template whose client finds the trainer and its folder."""
    variables = [{"name": FOLDER, "value": str(folder)}, {"name": "PYTHONPATH", "value": str(ROOT)}]
    return {"spec": {"containers": [{"name": "client", "env": variables}]}}
