"""What absent counts mean."""

from hypothesis import given
from hypothesis import strategies as st

from fedjob_operator.api.resolve import (
    clients_per_round,
    group_capacity,
    layout,
    min_clients,
    min_reports,
    num_clients,
    over_select,
)
from fedjob_operator.api.rules import spec_problems
from tests.unit.controller.api_samples import spec

THREE_GROUPS = [
    {"name": "a", "replicas": 4, "maxReplicas": 10},
    {"name": "b", "replicas": 3},
    {"name": "c", "external": {"minClients": 2}},
]


def test_without_a_policy_all_clients_take_part_and_must_report():
    sample = spec(clientGroups=THREE_GROUPS)
    assert num_clients(sample) == 9
    assert (clients_per_round(sample), over_select(sample), min_reports(sample), min_clients(sample)) == (9, 0, 9, 9)


def test_what_is_absent_follows_clients_per_round():
    sample = spec(clientGroups=THREE_GROUPS, roundPolicy={"clientsPerRound": 4})
    assert (clients_per_round(sample), min_reports(sample), min_clients(sample)) == (4, 4, 4)


def test_what_is_given_is_taken():
    sample = spec(roundPolicy={"clientsPerRound": 3, "overSelect": 2, "minReports": 1}, minClients=2)
    assert (clients_per_round(sample), over_select(sample), min_reports(sample), min_clients(sample)) == (3, 2, 1, 2)


def test_clients_per_round_is_a_percentage_of_all_and_over_select_one_of_clients_per_round():
    sample = spec(
        clientGroups=[{"name": "a", "replicas": 1000}], roundPolicy={"clientsPerRound": "1%", "overSelect": "25%"}
    )
    assert (clients_per_round(sample), over_select(sample)) == (10, 3)


def test_indices_are_kept_for_as_many_clients_as_a_group_will_ever_have():
    sample = spec(clientGroups=THREE_GROUPS)
    assert [group_capacity(group) for group in sample.client_groups] == [10, 3, 2]
    assert [(entry.group, entry.first, entry.count) for entry in layout(sample)] == [
        ("a", 0, 10),
        ("b", 10, 3),
        ("c", 13, 2),
    ]


def test_fewer_replicas_do_not_move_anybody():
    fewer = [{**THREE_GROUPS[0], "replicas": 1}, *THREE_GROUPS[1:]]
    assert layout(spec(clientGroups=fewer)) == layout(spec(clientGroups=THREE_GROUPS))


percentages = st.integers(1, 100).map("{}%".format)


@given(
    st.lists(st.integers(0, 20), min_size=1, max_size=4).filter(any),
    st.none() | st.integers(1, 30) | percentages,
    st.integers(0, 10) | percentages,
    st.none() | st.integers(1, 30),
    st.none() | st.integers(1, 30),
)
def test_a_spec_without_problems_can_be_carried_out(replicas, wanted, extra, reports, ready):
    policy = {"clientsPerRound": wanted, "overSelect": extra, "minReports": reports}
    sample = spec(
        clientGroups=[{"name": f"g{index}", "replicas": count} for index, count in enumerate(replicas)],
        roundPolicy={name: value for name, value in policy.items() if value is not None},
        minClients=ready,
    )
    if not spec_problems(sample):
        clients = num_clients(sample)
        assert 1 <= min_reports(sample) <= clients_per_round(sample)
        assert clients_per_round(sample) + over_select(sample) <= clients
        assert 1 <= min_clients(sample) <= clients
