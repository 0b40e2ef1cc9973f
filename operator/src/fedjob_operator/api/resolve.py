"""What an absent field means where it depends on others: counts of clients and the layout of their indices."""

from fedjob_operator.api.quantity import count_of
from fedjob_operator.api.spec import ClientGroup, FederatedJobSpec
from fedjob_operator.api.status import LayoutEntry


def group_capacity(group: ClientGroup) -> int:
    """Client indices kept for a group: the most clients it will ever have."""
    if group.external is not None:
        return group.external.min_clients
    replicas = group.replicas or 0
    return max(group.max_replicas or replicas, replicas)


def layout(spec: FederatedJobSpec) -> tuple[LayoutEntry, ...]:
    """Give each group its client indices, one group after the other without a gap."""
    entries: list[LayoutEntry] = []
    first = 0
    for group in spec.client_groups:
        count = group_capacity(group)
        entries.append(LayoutEntry(group=group.name, first=first, count=count))
        first += count
    return tuple(entries)


def num_clients(spec: FederatedJobSpec) -> int:
    """Clients of all groups together."""
    return sum(
        group.external.min_clients if group.external is not None else group.replicas or 0
        for group in spec.client_groups
    )


def clients_per_round(spec: FederatedJobSpec) -> int:
    """Reports that close a round; all clients where the spec does not say."""
    wanted = spec.round_policy.clients_per_round
    return num_clients(spec) if wanted is None else count_of(wanted, num_clients(spec))


def over_select(spec: FederatedJobSpec) -> int:
    """Participants chosen beyond `clients_per_round`; a percentage is one of `clients_per_round`."""
    return count_of(spec.round_policy.over_select, clients_per_round(spec))


def min_reports(spec: FederatedJobSpec) -> int:
    """Reports with which a round is committed at its deadline; `clients_per_round` where the spec does not say."""
    return spec.round_policy.min_reports or clients_per_round(spec)


def min_clients(spec: FederatedJobSpec) -> int:
    """Clients that must be ready; `clients_per_round` where the spec does not say."""
    return spec.min_clients or clients_per_round(spec)
