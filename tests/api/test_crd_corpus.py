"""The corpus of manifests means the same to `kubectl apply` on a real API server and to `fedjob run`."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fedjob.manifest import ManifestError, load_manifest
from fedjob_operator.api.v1alpha1 import dump
from tests.support.cluster.apiserver import ApiServer
from tests.support.repository import ROOT
from tests.unit.controller.api_samples import document

CORPUS = ROOT / "tests/data/manifests"
VALID = sorted((CORPUS / "valid").glob("*.yaml"))
INVALID = sorted((CORPUS / "invalid").glob("*.yaml"))
OTHER_WORDS = {
    "api-version-unknown": 'no matches for kind "FederatedJob" in version "fedjob.dev/v1"',
    "kind-unknown": 'no matches for kind "FederatedLearningJob"',
    "name-missing": "resource name may not be empty",
    "group-name-twice": 'spec.clientGroups[1]: Duplicate value: {"name":"a"}',
    "no-data": "spec.clientGroups: Required value: without spec.data, each group needs data.name",
}
"""What is said in place of the field's path: the first three are kubectl's own refusals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What kubectl said about one folder of the corpus."""

    objects: dict[str, Any]
    """What the API server made of the accepted ones, by name."""
    refusals: list[str]
    """One line each, naming the file."""

    def refusal(self, file: Path) -> str:
        """What was said against a file; empty if nothing was."""
        return "\n".join(line for line in self.refusals if f'/{file.name}"' in line)


def kubectl(server: ApiServer, verb: str, folder: Path) -> Applied:
    # All files in one call: kubectl takes longer to start than the API server to answer.
    done = server.kubectl(verb, "--dry-run=server", "--validate=strict", "--output=json", "-f", folder)
    objects = {item["metadata"]["name"]: item for item in objects_in(done.stdout)}
    return Applied(objects=objects, refusals=done.stderr.splitlines())


def objects_in(output: str) -> Iterator[Any]:
    """`kubectl create` writes one object after the other, `kubectl apply` a list where there are several."""
    rest = output.strip()
    while rest:
        found, end = json.JSONDecoder().raw_decode(rest)
        yield from found.get("items", [found])
        rest = rest[end:].lstrip()


def without_nulls(value: Any) -> Any:
    """What `kubectl apply` makes of free-form maps: to it, a field that is null is one to be removed."""
    if isinstance(value, dict):
        return {name: without_nulls(item) for name, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def created(api_server):
    return kubectl(api_server, "create", CORPUS / "valid")


@pytest.fixture(scope="module")
def applied(api_server):
    return kubectl(api_server, "apply", CORPUS / "valid")


@pytest.fixture(scope="module")
def refused(api_server):
    return kubectl(api_server, "apply", CORPUS / "invalid")


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_a_valid_manifest_becomes_the_same_object_in_both(created, applied, path):
    job = load_manifest(path)
    name, spec = job.metadata.name, dump(job)["spec"]
    assert created.refusal(path) + applied.refusal(path) == ""
    assert created.objects[name]["spec"] == spec
    assert applied.objects[name]["spec"] == without_nulls(spec)
    assert "status" not in created.objects[name]


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_an_invalid_manifest_is_refused_by_both_naming_the_field(refused, path):
    with pytest.raises(ManifestError) as caught:
        load_manifest(path)
    (problem,) = caught.value.problems
    assert OTHER_WORDS.get(path.stem, problem.path) in refused.refusal(path)


def test_no_invalid_manifest_is_accepted(refused):
    assert refused.objects == {}


def test_examples_for_a_cluster_are_accepted(api_server):
    done = api_server.kubectl(
        "apply", "--dry-run=server", "--validate=strict", "-f", ROOT / "examples/02-kubernetes.yaml"
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_file_of_this_machine_is_no_model_for_a_cluster(api_server, namespace):
    job = document(model={"name": "mlp", "initFrom": {"file": "/model.safetensors"}})
    path = f"/apis/fedjob.dev/v1alpha1/namespaces/{namespace}/federatedjobs?dryRun=All"
    answer = api_server.request("POST", path, job)
    assert answer.status == 422
    assert "spec.model.initFrom.file: Forbidden" in answer.message
