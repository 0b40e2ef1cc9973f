"""``--set`` on the command line."""

import pytest

from fedjob.manifest import ManifestError, load_manifest

MANIFEST = """\
apiVersion: fedjob.dev/v1alpha1
kind: FederatedJob
metadata: {name: job}
spec:
  rounds: 3
  model: {name: mlp}
  data: {name: digits, partition: {scheme: Dirichlet, alpha: 0.5}}
  clientGroups:
  - &group {name: a, replicas: 5}
  - {<<: *group, name: b, data: &data {path: /a}}
  - {name: c, replicas: 1, data: *data}
"""


@pytest.fixture
def load(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(MANIFEST, encoding="utf-8")
    return lambda *overrides: load_manifest(path, overrides)


def test_a_value_is_read_as_in_the_file(load):
    spec = load("spec.rounds=1e1", "spec.training.learningRate=1e-3", "spec.suspend=yes", "spec.seed=0o17").spec
    assert (spec.rounds, spec.training.learning_rate, spec.suspend, spec.seed) == (10, 0.001, True, 15)


def test_an_item_of_a_list_is_reached_by_its_index(load):
    groups = load("spec.clientGroups[0].replicas=2", "spec.clientGroups[2].name=z").spec.client_groups
    assert [(group.name, group.replicas) for group in groups] == [("a", 2), ("b", 5), ("z", 1)]


def test_what_an_alias_shares_does_not_change_together(load):
    groups = load("spec.clientGroups[1].data.path=/b").spec.client_groups
    assert [group.data and group.data.path for group in groups] == [None, "/b", "/a"]


def test_mappings_on_the_way_are_made(load):
    assert load("spec.training.optimizer.parameters.momentum=0.9").spec.training.optimizer.parameters == {
        "momentum": 0.9
    }


def test_lists_and_mappings_can_be_given_whole(load):
    spec = load(
        "spec.evaluation.modes=[]", "spec.clientGroups=[{name: x, replicas: 1}]", "spec.roundPolicy={minReports: 1}"
    ).spec
    assert spec.evaluation.modes == ()
    assert [group.name for group in spec.client_groups] == ["x"]
    assert spec.round_policy.min_reports == 1


@pytest.mark.parametrize("override", ["spec.data.partition=null", "spec.data.partition=", "spec.data.partition=~"])
def test_null_takes_a_field_out(load, override):
    assert load(override).spec.data.partition is None


def test_later_ones_win(load):
    assert load("spec.rounds=5", "spec.rounds=6").spec.rounds == 6


def test_a_value_may_hold_equals_signs_and_colons(load):
    assert load('spec.clientGroups[0].image="a=b:c"').spec.client_groups[0].image == "a=b:c"


def test_metadata_can_be_set(load):
    assert load("metadata.name=other").metadata.name == "other"


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("spec.rounds", "--set spec.rounds: has no =; write it as spec.rounds=3"),
        ("=3", "--set : is not a path such as spec.clientGroups[0].replicas"),
        ("spec..rounds=3", "--set spec..rounds: is not a path such as spec.clientGroups[0].replicas"),
        (
            "spec.clientGroups[x].replicas=3",
            "--set spec.clientGroups[x].replicas: is not a path such as spec.clientGroups[0].replicas",
        ),
        ("spec=3", "--set spec: only fields below spec and metadata can be set"),
        ("status.term=3", "--set status.term: only fields below spec and metadata can be set"),
        (
            "spec.clientGroups[3].replicas=3",
            "--set spec.clientGroups[3]: spec.clientGroups has 3 entries, counted from 0",
        ),
        ("spec.clientGroups[3]=3", "--set spec.clientGroups[3]: spec.clientGroups has 3 entries, counted from 0"),
        ("spec.model[0]=3", "--set spec.model[0]: spec.model is not a list"),
        ("spec.minClients[0].x=3", "--set spec.minClients[0]: spec.minClients is not a list"),
        ("spec.rounds.x=3", "--set spec.rounds.x: spec.rounds is not a mapping"),
        ("spec.rounds.x.y=3", "--set spec.rounds.x: spec.rounds is not a mapping"),
        ("spec.rounds=[1", "--set spec.rounds: expected ',' or ']', but got '<stream end>'"),
        ("spec.rounds=1\n- 2", '--set spec.rounds: "1\\n- 2" is not one value'),
        ("spec.rounds=.inf", "--set spec.rounds: inf is not a number that JSON can hold"),
        ("spec.rounds=0", "spec.rounds: 0 is less than 1"),
        ("spec.round=5", 'spec.round: unknown field; did you mean "rounds"?'),
        ("spec.rounds='3'", 'spec.rounds: "3" is not an integer'),
    ],
)
def test_what_cannot_be_set_is_told_in_one_line(load, override, line):
    with pytest.raises(ManifestError) as caught:
        load(override)
    assert str(caught.value) == line


def test_all_wrong_overrides_are_told_at_once(load):
    with pytest.raises(ManifestError) as caught:
        load("spec.rounds", "spec.seed=1", "status.x=1")
    assert [problem.path for problem in caught.value.problems] == ["--set spec.rounds", "--set status.x"]
