"""Servers of a complete job's model: how many are wanted, of which model, and whether they were asked for."""

from datetime import datetime, timedelta
from typing import Final

from fedjob_operator.api.v1alpha1 import CommittedModel, ConditionType, FederatedJob, FederatedJobStatus, Serving
from fedjob_operator.core.actions import ServeModel
from fedjob_operator.core.moments import after
from fedjob_operator.core.observed import Observed
from fedjob_operator.core.scene import Step

AGAIN: Final = timedelta(seconds=60)
"""How often it is looked whether somebody took the servers away."""


def server_name(job_name: str) -> str:
    """Name of the Deployment and of the Service."""
    return f"{job_name}-serve"


def served_model(status: FederatedJobStatus) -> CommittedModel | None:
    """The model that is worth serving: the best, or where there is none the newest."""
    if status.best is not None:
        return CommittedModel(round=status.best.round, digest=status.best.digest)
    model = status.model
    return CommittedModel(round=model.round, digest=model.digest) if model else None


def serve(job: FederatedJob, seen: Observed, now: datetime, status: FederatedJobStatus) -> Step:
    """Have the servers that the spec asks for; the wish is in the status before anything is made."""
    status = status.model_copy(update={"serving": _wanted(job, seen, status)})
    written = job.status.serving
    if written is None or written != status.serving:
        return Step(status=status)
    known = seen.servers
    if known is None or known.replicas != written.replicas:
        return Step(status=status, actions=(ServeModel(replicas=written.replicas),))
    due = after(known.at, AGAIN)
    if now >= due:
        return Step(status=status, actions=(ServeModel(replicas=written.replicas),))
    return Step(status=status, wake_at=due)


def _wanted(job: FederatedJob, seen: Observed, status: FederatedJobStatus) -> Serving | None:
    model = served_model(status)
    count = job.spec.serve.replicas if status.holds(ConditionType.COMPLETE) else 0
    if model is None or (count == 0 and _is_settled(status, seen)):
        return None
    return Serving(replicas=count, service=server_name(job.metadata.name), model=model)


def _is_settled(status: FederatedJobStatus, seen: Observed) -> bool:
    """Whether nothing is left to be scaled down."""
    servers = seen.servers
    return status.serving is None or (status.serving.replicas == 0 and servers is not None and servers.replicas == 0)
