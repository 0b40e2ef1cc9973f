"""The edges of the reconcile loop, as protocols: what it needs of the world, whoever provides it.

On a cluster the API server provides pods and status; in ``fedjob run`` processes and a file do.
"""

from typing import Protocol

from fedjob_operator.api.v1alpha1 import FederatedJob, FederatedJobStatus
from fedjob_operator.core.actions import Action, CreatePod, DeletePod, FindOrigin, ServeModel
from fedjob_operator.core.observed import OriginSeen, PodCheck, PodView, ServersSeen
from fedjob_operator.observations import Answer
from fedjob_protocol.errors import FedJobError


class StatusConflictError(FedJobError):
    """The resource changed since it was read: read it again and decide again, never write blindly."""


class StoreUnavailableError(FedJobError):
    """The resource cannot be read or written now, for example because the disk is full; tried again until it can."""


class UnreadableJobError(FedJobError):
    """The resource is there and is no FederatedJob, for example because it was edited while no rule held.

    Whoever raises it says so in the resource's status, where that can be written without reading the rest. It is read
    again when it changes; until then nothing is done for the job.
    """


class JobStore(Protocol):
    """Where the resource is kept."""

    async def read(self) -> FederatedJob | None:
        """Return the resource, or ``None`` when it is gone.

        Raises:
            StoreUnavailableError: It cannot be read now.
            UnreadableJobError: It is no FederatedJob.
        """
        ...

    async def write_status(self, job: FederatedJob, status: FederatedJobStatus) -> FederatedJob:
        """Replace the status of the version that was read, and return the new version.

        Raises:
            StatusConflictError: The resource is no longer the version that ``job`` is.
            StoreUnavailableError: It cannot be written now.
        """
        ...

    async def delete(self, job: FederatedJob) -> None:
        """Delete the resource; that it is gone already is fine.

        Raises:
            CallError: It cannot be deleted now.
        """
        ...


class Pods(Protocol):
    """Where programs run."""

    def pods(self) -> tuple[PodView, ...]:
        """Return the pods of the job as last seen; no I/O."""
        ...

    async def create(self, job: FederatedJob, action: CreatePod) -> None:
        """Create a pod under its deterministic name; that it exists already is fine."""
        ...

    async def delete(self, action: DeletePod) -> None:
        """Delete this very pod; that it is gone already is fine."""
        ...

    async def serve(self, job: FederatedJob, action: ServeModel) -> ServersSeen:
        """Have so many servers of the job's model.

        Raises:
            CallError: It cannot be done now, or not here.
        """
        ...

    async def check(self, job: FederatedJob) -> PodCheck:
        """Ask whether the pods of the job would be taken, without making them.

        The job has its layout and images as they will be once it is accepted.

        Raises:
            CallError: There was no answer.
        """
        ...


class Origins(Protocol):
    """Other jobs, whose checkpoints a job may begin with."""

    async def find(self, action: FindOrigin) -> OriginSeen:
        """Look for a checkpoint of another job.

        Raises:
            CallError: There was no answer.
        """
        ...


class CallError(FedJobError):
    """A call to a program failed.

    Args:
        message: What was called and what came back.
        word: The machine word of the answer; ``None`` when there was no usable answer. Of a pod that could not be made
            or checked, the value of the `Reason` that says why, where there is one.
    """

    def __init__(self, message: str, *, word: str | None = None) -> None:
        super().__init__(message)
        self.word = word


class Programs(Protocol):
    """The HTTP APIs of aggregator and clients, and what is asked of other jobs."""

    async def perform(self, action: Action) -> Answer:
        """Make the call that an action describes.

        Raises:
            CallError: There was no answer, or it was a problem, or it could not be read.
        """
        ...
