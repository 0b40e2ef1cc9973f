"""What a job's aggregator is told of groups whose clients register themselves."""

from fedjob_operator.api.v1alpha1 import ClientGroup, FederatedJob
from fedjob_protocol.registration import ExternalGroup, ExternalGroups


def external_groups(job: FederatedJob) -> ExternalGroups | None:
    """Return their indices; ``None`` where there is no such group.

    Args:
        job: An accepted job: its layout is fixed.
    """
    outside = {group.name for group in outside_groups(job)}
    groups = [
        ExternalGroup(group=entry.group, first=entry.first, count=entry.count)
        for entry in job.status.layout
        if entry.group in outside
    ]
    return ExternalGroups(groups=tuple(groups)) if groups else None


def outside_groups(job: FederatedJob) -> tuple[ClientGroup, ...]:
    """Return the groups whose clients register themselves, in the order of the manifest."""
    return tuple(group for group in job.spec.client_groups if group.external is not None)
