"""Fakes of the reconcile loop's edges: calls that a test answers, a store that a test can spoil."""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fedjob_operator.api.v1alpha1 import FederatedJob, FederatedJobStatus
from fedjob_operator.core.actions import Action, CreatePod, DeletePod
from fedjob_operator.core.observed import PodCheck, PodView
from fedjob_operator.observations import Answer
from fedjob_operator.ports import CallError, StatusConflictError


@dataclass(slots=True)
class FakePods:
    """Pods that are as the test says."""

    views: tuple[PodView, ...] = ()
    created: list[CreatePod] = field(default_factory=list)
    deleted: list[DeletePod] = field(default_factory=list)
    problem: Exception | None = None
    """Raised by the next call."""
    pod_problem: str | None = None
    """What is wrong with the pods that the spec yields."""
    checked: list[FederatedJob] = field(default_factory=list)
    """The jobs whose pods were asked about."""

    def pods(self) -> tuple[PodView, ...]:
        """What there is."""
        return self.views

    async def create(self, job: FederatedJob, action: CreatePod) -> None:
        """Take note."""
        self._raise()
        self.created.append(action)

    async def delete(self, action: DeletePod) -> None:
        """Take note, and remove it."""
        self._raise()
        self.deleted.append(action)
        self.views = tuple(view for view in self.views if view.incarnation != action.incarnation)

    async def check(self, job: FederatedJob) -> PodCheck:
        """Say what the test says."""
        self._raise()
        self.checked.append(job)
        return PodCheck(generation=job.metadata.generation, problem=self.pod_problem)

    def _raise(self) -> None:
        problem, self.problem = self.problem, None
        if problem is not None:
            raise problem


class FakePrograms:
    """Calls that wait until the test answers them.

    Args:
        answer: Answers at once what it has an answer for; ``None`` leaves a call waiting.
    """

    def __init__(self, answer: Callable[[Action], Answer] = lambda _: None) -> None:
        self._answer = answer
        self.calls: list[Action] = []
        self.cancelled: list[str] = []
        self._waiting: defaultdict[str, list[asyncio.Future[Answer]]] = defaultdict(list)

    async def perform(self, action: Action) -> Answer:
        """Wait for the test's answer."""
        self.calls.append(action)
        found = self._answer(action)
        if found is not None:
            return found
        future = asyncio.get_running_loop().create_future()
        self._waiting[action.key].append(future)
        try:
            return await future
        except asyncio.CancelledError:
            self.cancelled.append(action.key)
            raise

    def called(self) -> list[str]:
        """What was called, in order."""
        return [action.key for action in self.calls]

    def answer(self, key: str, value: Answer) -> None:
        """Answer a call."""
        self._waiting[key].pop(0).set_result(value)

    def fail(self, key: str, problem: Exception | None = None) -> None:
        """Let a call fail."""
        self._waiting[key].pop(0).set_exception(problem or CallError("no answer"))


class FakeStore:
    """A resource in memory.

    Args:
        job: The job; ``None`` when it is gone.
    """

    def __init__(self, job: FederatedJob | None) -> None:
        self.job = job
        self.written: list[FederatedJobStatus] = []
        self.problems: list[Exception | None] = []
        """Raised by the next writes, one after the other; ``None`` lets one pass."""
        self.read_problems: list[Exception] = []
        """Raised by the next reads, one after the other."""
        self.stale: FederatedJob | None = None
        """What reads answer in the place of the truth, as an API server that is behind does."""
        self.tries = 0
        """Writes that were tried."""
        self.reads = 0

    async def read(self) -> FederatedJob | None:
        """The resource."""
        self.reads += 1
        if self.read_problems:
            raise self.read_problems.pop(0)
        return self.stale or self.job

    async def write_status(self, job: FederatedJob, status: FederatedJobStatus) -> FederatedJob:
        """Compare versions and write."""
        self.tries += 1
        problem = self.problems.pop(0) if self.problems else None
        if problem is not None:
            raise problem
        if self.job is None or job.metadata.resource_version != self.job.metadata.resource_version:
            raise StatusConflictError("the version is another one")
        self.change(status)
        self.written.append(status)
        return self.job

    async def delete(self, job: FederatedJob) -> None:
        """Take the resource away."""
        self.job = None

    def edit(self, **fields: Any) -> None:
        """Somebody changes fields of the spec, in Python's spelling."""
        assert self.job is not None
        metadata = self.job.metadata.model_copy(update={"generation": self.job.metadata.generation + 1})
        spec = self.job.spec.model_copy(update=fields)
        self.job = self.job.model_copy(update={"metadata": metadata, "spec": spec})
        self.change(self.job.status)

    def change(self, status: FederatedJobStatus) -> None:
        """Somebody writes a status."""
        assert self.job is not None
        version = str(int(self.job.metadata.resource_version) + 1)
        metadata = self.job.metadata.model_copy(update={"resource_version": version})
        self.job = self.job.model_copy(update={"metadata": metadata, "status": status})
