"""Who takes part in a job: its places, the indices of its clients, and the groups that these belong to."""

from fedjob_operator.api.v1alpha1 import ClientGroup, EvaluationMode, FederatedJob, LayoutEntry
from fedjob_operator.core.observed import PodRole

Place = tuple[PodRole, int]
"""Where a pod belongs: its role and index; pods that follow one another in a place differ by their ordinal."""


def needs_evaluator(job: FederatedJob) -> bool:
    """Whether a pod with held-out data evaluates the models of this job."""
    return EvaluationMode.EVALUATOR in job.spec.evaluation.modes


def pod_name(job_name: str, role: PodRole, index: int, ordinal: int) -> str:
    """Name of a pod, such as ``mnist-client-3-0``."""
    return f"{job_name}-{role}-{index}-{ordinal}"


def client_indices(layout: tuple[LayoutEntry, ...]) -> range:
    """All client indices that are kept for a job, in order; groups follow one another without a gap."""
    return range(sum(entry.count for entry in layout))


def declared_clients(job: FederatedJob) -> tuple[int, ...]:
    """The client indices that a job has now, in order: of each group as many as it declares, of those kept for it."""
    return tuple(index for entry, group in groups_of(job) for index in indices_of(entry, group))


def wanted_clients(job: FederatedJob) -> tuple[int, ...]:
    """The declared clients without those that were refused because they came too late."""
    late = frozenset(job.status.clients.late_indices)
    return tuple(index for index in declared_clients(job) if index not in late)


def groups_of(job: FederatedJob) -> list[tuple[LayoutEntry, ClientGroup]]:
    """Each entry of the layout with its group; an entry whose group is gone from the spec has no clients."""
    groups = {group.name: group for group in job.spec.client_groups}
    return [(entry, groups[entry.group]) for entry in job.status.layout if entry.group in groups]


def indices_of(entry: LayoutEntry, group: ClientGroup) -> range:
    """The indices that a group declares, of those kept for it."""
    size = group.external.min_clients if group.external else group.replicas or 0
    return range(entry.first, entry.first + min(entry.count, size))


def wanted_outside(job: FederatedJob) -> dict[int, ClientGroup]:
    """The clients that register themselves and are wanted, with their groups."""
    late = frozenset(job.status.clients.late_indices)
    groups = [(entry, group) for entry, group in groups_of(job) if group.external is not None]
    return {index: group for entry, group in groups for index in indices_of(entry, group) if index not in late}


def group_of(layout: tuple[LayoutEntry, ...], index: int) -> str:
    """Name of the group that a client index belongs to.

    Raises:
        LookupError: No group has this index.
    """
    for entry in layout:
        if entry.first <= index < entry.first + entry.count:
            return entry.group
    raise LookupError(f"no client group has index {index}")


def client_group(job: FederatedJob, index: int) -> ClientGroup:
    """The group that a client index belongs to.

    Raises:
        LookupError: No group has this index.
    """
    name = group_of(job.status.layout, index)
    for group in job.spec.client_groups:
        if group.name == name:
            return group
    raise LookupError(f"the spec has no client group {name}, which client {index} belongs to")
