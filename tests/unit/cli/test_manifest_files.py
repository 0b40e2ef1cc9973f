"""Files that are no manifest, and how problems are told."""

import json

import pytest

from fedjob.init_template import manifest_template
from fedjob.manifest import MAX_BYTES, ManifestError, load_manifest, render_problems
from fedjob_operator.api.local import local_notes, local_problems
from fedjob_operator.api.problems import Problem
from fedjob_operator.api.v1alpha1 import dump
from fedjob_protocol.builtin import DATA_PARAMETERS, MODEL_PARAMETERS

HEAD = "apiVersion: fedjob.dev/v1alpha1\nkind: FederatedJob\nmetadata: {name: job}\n"
GOOD = f"""\
{HEAD}spec:
  rounds: 3
  model: {{name: mlp}}
  data: {{name: digits}}
  clientGroups:
  - {{name: a, replicas: 5}}
"""


@pytest.fixture
def refused(tmp_path):
    """Write a file and return what is wrong with it, without the folder's name."""

    def check(content, overrides=()):
        path = tmp_path / "job.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(ManifestError) as caught:
            load_manifest(path, overrides)
        return str(caught.value).replace(f"{tmp_path}/", "")

    return check


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "job.yaml: has nothing in it"),
        ("# only a comment\n---\n", "job.yaml: has nothing in it"),
        ("hello\n", 'job.yaml: is "hello", not a mapping with apiVersion, kind and spec'),
        ("- a\n", "job.yaml: is a list, not a mapping with apiVersion, kind and spec"),
        ("5", "job.yaml: is 5, not a mapping with apiVersion, kind and spec"),
        (f"{GOOD}---\n{GOOD}", "job.yaml: has 2 documents; put one job into one file"),
        ("a: 1\nb: [\n", "job.yaml: line 3: expected the node content, but found '<stream end>'"),
        ("a:\n\t- b\n", "job.yaml: line 2: a tab cannot indent; use spaces"),
        ("a: 1\na: 2\n", 'job.yaml: line 2: "a" is given twice; the first is in line 1'),
        (b"a: 1\nb: \xff\n", "job.yaml: line 2: is not UTF-8"),
        ("a: 1\n".encode("utf-16"), "job.yaml: line 1: is not UTF-8"),
        (b"a: \x00\n", "job.yaml: line 1: character U+0000 is not allowed"),
        (b"#" * (MAX_BYTES + 1), "job.yaml: is larger than 1048576 bytes"),
        ("{}", "apiVersion: missing\nkind: missing"),
        (
            "apiVersion: v1\nkind: Pod\nspec: 7\n",
            'apiVersion: "v1" is not fedjob.dev/v1alpha1\nkind: "Pod" is not FederatedJob',
        ),
    ],
)
def test_what_is_no_manifest_is_refused_with_one_line_each(refused, content, message):
    assert refused(content) == message


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ManifestError, match=r"nothing\.yaml: cannot be read: No such file or directory$"):
        load_manifest(tmp_path / "nothing.yaml")


def test_a_folder_is_no_manifest(tmp_path):
    with pytest.raises(ManifestError, match=r": cannot be read: Is a directory$"):
        load_manifest(tmp_path)


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert load_manifest(path).spec.rounds == 3


def test_everything_that_is_wrong_is_told_at_once_in_the_order_of_the_fields(refused):
    spec = """\
spec:
  model: {nam: mlp}
  rounds: 0
  data: {name: digits}
  trainig: {}
  clientGroups:
  - {name: a, replicas: "5"}
  - {nme: b, replicas: 1}
  roundPolicy: {minReports: -1, onQuorumLoss: wait}
"""
    assert refused(HEAD + spec).splitlines() == [
        "spec.rounds: 0 is less than 1",
        "spec.model.name: missing",
        'spec.model.nam: unknown field; did you mean "name"?',
        "spec.roundPolicy.minReports: -1 is less than 1",
        'spec.roundPolicy.onQuorumLoss: "wait" is none of Wait, Fail; did you mean "Wait"?',
        'spec.clientGroups[0].replicas: "5" is not an integer',
        "spec.clientGroups[1].name: missing",
        'spec.clientGroups[1].nme: unknown field; did you mean "name"?',
        'spec.trainig: unknown field; did you mean "training"?',
    ]


def test_all_contradictions_are_told_at_once(refused):
    spec = """\
spec:
  rounds: 3
  model: {name: mlp, initFrom: {}}
  data: {name: digits, partition: {scheme: Dirichlet}}
  roundPolicy: {clientsPerRound: 5, minReports: 9}
  minClients: 7
  clientGroups:
  - {name: a, replicas: 5}
  - {name: a, replicas: 0}
  stop: {target: 1}
"""
    assert refused(HEAD + spec).splitlines() == [
        "spec.model.initFrom: needs exactly one of federatedJob, claim and file; has none",
        "spec.data.partition.alpha: missing; scheme Dirichlet needs it",
        "spec.roundPolicy.minReports: 9 is more than clientsPerRound (5)",
        "spec.minClients: 7 is more than all clients (5)",
        'spec.clientGroups[1].name: "a" is also the name of clientGroups[0]',
        "spec.stop.target: needs spec.objective: the metric that reaches it",
    ]


def test_a_long_value_is_shown_shortened(refused):
    line = refused(GOOD.replace("rounds: 3", f"rounds: {'x' * 500}"))
    assert line == f'spec.rounds: "{"x" * 59}… is not an integer'


def test_a_value_of_several_lines_is_told_in_one(refused):
    assert (
        refused(GOOD.replace("rounds: 3", "rounds: |\n    a\n    b\n")) == 'spec.rounds: "a\\nb\\n" is not an integer'
    )


def test_problems_are_rendered_one_per_line():
    assert render_problems([Problem("a", "b"), Problem("c[0]", "d")]) == "a: b\nc[0]: d"
    assert render_problems([]) == ""


def test_the_template_is_valid_and_runs_on_this_machine(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(manifest_template("study-7"), encoding="utf-8")
    job = load_manifest(path)
    assert job.metadata.name == "study-7"
    assert local_problems(job, known_models=MODEL_PARAMETERS, known_data=DATA_PARAMETERS) == []
    assert local_notes(job) == []


def offered_lines():
    lines = manifest_template().splitlines()
    return [index for index, line in enumerate(lines) if line.startswith(" ") and line.lstrip().startswith("# ")]


NEEDS = {"overSelect": ["spec.roundPolicy.clientsPerRound=3"], "modes": ["spec.objective=null"]}
"""What else has to change with an offered field, as its comment says."""


@pytest.mark.parametrize("index", offered_lines())
def test_a_line_that_the_template_offers_is_valid_too(tmp_path, index):
    lines = manifest_template().splitlines()
    offer = lines[index].replace("# ", "", 1)
    field = offer.partition(":")[0]
    path = tmp_path / "job.yaml"
    kept = [offer if number == index else line for number, line in enumerate(lines) if not line.startswith(f"{field}:")]
    path.write_text("\n".join(kept), encoding="utf-8")
    job = load_manifest(path, NEEDS.get(field.strip(), []))
    assert local_problems(job) == []
    assert field.strip() in json.dumps(dump(job))
