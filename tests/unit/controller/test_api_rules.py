"""The rules between fields; the corpus in tests/data/manifests has a file for each as well."""

import pytest

from fedjob_operator.api.problems import path_of, suggestion
from fedjob_operator.api.rules import spec_problems
from tests.unit.controller.api_samples import spec


def lines(**fields):
    return [str(problem) for problem in spec_problems(spec(**fields))]


def test_a_sound_spec_has_no_problems():
    assert lines() == []


def test_groups_without_numbers_do_not_make_up_other_problems():
    assert lines(clientGroups=[{"name": "a"}], roundPolicy={"clientsPerRound": 3}, minClients=2) == [
        "spec.clientGroups[0].replicas: missing; a group needs replicas, unless it is external"
    ]


def test_clients_of_external_groups_count():
    groups = [{"name": "a", "replicas": 1}, {"name": "b", "external": {"minClients": 3}}]
    assert lines(clientGroups=groups, roundPolicy={"clientsPerRound": 4}) == []
    assert lines(clientGroups=groups, roundPolicy={"clientsPerRound": 5}) == [
        "spec.roundPolicy.clientsPerRound: 5 is more than all clients (4)"
    ]


def test_an_external_group_has_nothing_of_a_pod():
    pods = {"replicas": 1, "maxReplicas": 2, "image": "x", "gpus": 1, "volumeClaimTemplates": [{}], "template": {}}
    found = lines(clientGroups=[{"name": "a", "external": {}, **pods}])
    assert found == [
        f"spec.clientGroups[0].{name}: is for clients that run here, and the group is external" for name in pods
    ]


@pytest.mark.parametrize("scheme", ["Dirichlet", "QuantitySkew"])
def test_skewed_partitions_need_alpha(scheme):
    assert lines(data={"name": "digits", "partition": {"scheme": scheme}}) == [
        f"spec.data.partition.alpha: missing; scheme {scheme} needs it"
    ]
    assert lines(data={"name": "digits", "partition": {"scheme": scheme, "alpha": 1e-6}}) == []


@pytest.mark.parametrize("scheme", ["IID", "Shards", "ByLabel"])
def test_other_partitions_have_none(scheme):
    assert lines(data={"name": "digits", "partition": {"scheme": scheme, "alpha": 1}}) == [
        f"spec.data.partition.alpha: is only for Dirichlet and QuantitySkew, not {scheme}"
    ]


def test_all_three_origins_at_once_are_two_too_many():
    origin = {"federatedJob": {"name": "a"}, "claim": {"name": "b", "path": "c"}, "file": "d"}
    assert lines(model={"name": "mlp", "initFrom": origin}) == [
        "spec.model.initFrom: needs exactly one of federatedJob, claim and file; has federatedJob and claim and file"
    ]


def test_a_checkpoint_by_round_may_be_round_zero():
    origin = {"federatedJob": {"name": "a", "checkpoint": "Round", "round": 0}}
    assert lines(model={"name": "mlp", "initFrom": origin}) == []


def test_a_group_with_a_path_only_needs_the_data_it_changes():
    groups = [{"name": "a", "replicas": 1, "data": {"path": "/a"}}]
    assert lines(clientGroups=groups) == []
    assert lines(clientGroups=groups, data=None) == [
        "spec.clientGroups[0].data.name: missing; without spec.data, a group needs data or a trainer of its own"
    ]


def test_stopping_on_nothing_is_no_contradiction():
    assert lines(stop={"minDelta": 0.1}) == []


def test_paths_are_written_as_in_a_manifest():
    assert path_of(["spec", "clientGroups", 0, "data", "path"]) == "spec.clientGroups[0].data.path"
    assert path_of([]) == ""


def test_a_name_that_is_near_is_suggested():
    assert suggestion("round_policy", ["rounds", "roundPolicy"]) == '; did you mean "roundPolicy"?'
    assert suggestion("xyz", ["rounds", "roundPolicy"]) == ""
