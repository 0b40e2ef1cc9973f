"""The resource in a simulated world: compare-and-set on its version."""

from collections.abc import Callable
from typing import Any

from fedjob_operator.api.v1alpha1 import FederatedJob, FederatedJobStatus
from fedjob_operator.ports import StatusConflictError
from tests.support.world.simulation import Faults


class Store:
    """Holds one job.

    Args:
        job: The job as somebody applied it.
        faults: What goes wrong.
        written: Told of every status that was written, and the one before.
        edited: Told of every change of the spec.
    """

    def __init__(
        self,
        job: FederatedJob,
        faults: Faults,
        *,
        written: Callable[[FederatedJobStatus, FederatedJobStatus], None],
        edited: Callable[[], None] = lambda: None,
    ) -> None:
        self._job = job
        self._version = 1
        self._faults = faults
        self._written = written
        self._edited = edited
        self.writes = 0
        """Statuses that were written."""

    @property
    def status(self) -> FederatedJobStatus:
        """The status as it is now."""
        return self._job.status

    def read(self) -> FederatedJob:
        """The resource with its version."""
        metadata = self._job.metadata.model_copy(update={"resource_version": str(self._version)})
        return self._job.model_copy(update={"metadata": metadata})

    def write(self, job: FederatedJob, status: FederatedJobStatus) -> FederatedJob:
        """Replace the status of the version that was read.

        Raises:
            StatusConflictError: Somebody was faster.
        """
        if self._faults.strikes("status conflict"):
            self._version += 1  # somebody put a label on it
        if self.is_stale(job):
            raise StatusConflictError("the version is another one")
        before = self._job.status
        self.writes += 1
        self._version += 1
        self._job = self._job.model_copy(update={"status": status})
        self._written(before, status)
        return self.read()

    def is_stale(self, job: FederatedJob) -> bool:
        """Whether somebody wrote since this was read."""
        return job.metadata.resource_version != str(self._version)

    def edit(self, **fields: Any) -> None:
        """Somebody changes fields of the spec, in Python's spelling."""
        metadata = self._job.metadata.model_copy(update={"generation": self._job.metadata.generation + 1})
        spec = self._job.spec.model_copy(update=fields)
        self._version += 1
        self._job = self._job.model_copy(update={"metadata": metadata, "spec": spec})
        self._edited()
