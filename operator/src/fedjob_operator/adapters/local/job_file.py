"""The resource of ``fedjob run``: one JSON file, replaced atomically."""

import asyncio
import json
import os
from pathlib import Path

from fedjob_operator.api.v1alpha1 import FederatedJob, FederatedJobStatus
from fedjob_operator.ports import CallError, StatusConflictError, StoreUnavailableError


class JobFile:
    """`fedjob_operator.ports.JobStore` in a file.

    The caller holds the lock of the folder, so there is one writer; the resource version still catches a bug of ours.

    Args:
        path: The file; `create` writes it first.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version: str | None = None

    def create(self, job: FederatedJob) -> FederatedJob:
        """Write the resource for the first time, or with a changed spec.

        Raises:
            OSError: The file cannot be written; what was there before is untouched.
        """
        version = int(job.metadata.resource_version or "0") + 1
        metadata = job.metadata.model_copy(update={"resource_version": str(version)})
        written = job.model_copy(update={"metadata": metadata})
        self._replace(written)
        return written

    def load(self) -> FederatedJob:
        """Read the resource.

        Raises:
            OSError: The file cannot be read.
            ValueError: It is no FederatedJob, for example because somebody edited it.
        """
        job = FederatedJob.from_document(json.loads(self._path.read_bytes()))
        if not job.metadata.resource_version.isdecimal():
            raise ValueError(f"metadata.resourceVersion is {job.metadata.resource_version!r}, not a number")
        self._version = job.metadata.resource_version
        return job

    async def read(self) -> FederatedJob | None:
        """Return the resource, or ``None`` when the file is gone.

        Raises:
            StoreUnavailableError: It cannot be read now.
            ValueError: Somebody edited it to nonsense.
        """
        try:
            return await asyncio.to_thread(self.load)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreUnavailableError(f"{self._path} cannot be read: {error.strerror or error}") from error

    async def write_status(self, job: FederatedJob, status: FederatedJobStatus) -> FederatedJob:
        """Replace the status.

        Raises:
            StatusConflictError: The file holds another version.
            StoreUnavailableError: It cannot be written now, for example because the disk is full.
        """
        if self._version not in (None, job.metadata.resource_version):
            raise StatusConflictError(f"{self._path} is version {self._version}, not {job.metadata.resource_version}")
        # A millisecond on a local disk, and nothing else of this process could go on meanwhile anyway.
        try:
            return self.create(job.model_copy(update={"status": status}))
        except OSError as error:
            raise StoreUnavailableError(f"{self._path} cannot be written: {error.strerror or error}") from error

    async def delete(self, job: FederatedJob) -> None:
        """Remove the file; that it is gone already is fine.

        Raises:
            CallError: It cannot be removed now.
        """
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            raise CallError(f"{self._path} of job {job.metadata.name} stays: {error.strerror or error}") from error

    def _replace(self, job: FederatedJob) -> None:
        """Write a new file, make it durable, and put it in the place of the old one."""
        fresh = self._path.with_name(self._path.name + ".new")
        # pydantic's own writer: ten times as fast as dump() and json, and this is written once a round.
        document = job.model_dump_json(by_alias=True, exclude_none=True, indent=1)
        with fresh.open("wb") as file:
            file.write(document.encode())
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)
        self._version = job.metadata.resource_version
