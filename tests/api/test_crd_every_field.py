"""Each field of the largest manifest changed, taken out and put in again: both say the same about all of them."""

import copy
from itertools import count

import pytest
import yaml

from fedjob.manifest import load_manifest
from fedjob_operator.api.v1alpha1 import FederatedJob, dump
from tests.support.repository import ROOT
from tests.support.spec_changes import a_document, refusal

JOBS = "/apis/fedjob.dev/v1alpha1/namespaces/default/federatedjobs"
EVERYTHING = dump(load_manifest(ROOT / "tests/data/manifests/valid/everything.yaml"))["spec"]
OTHER_DATA = {
    "name": "npz",
    "path": "/a",
    "partition": {"scheme": "Dirichlet", "alpha": 0.5},
    "parameters": {"x": 1},
    "maxTrainSamples": 5,
    "maxTestSamples": 5,
}
OTHERS = {
    **EVERYTHING,
    "model": {**EVERYTHING["model"], "initFrom": {"claim": {"name": "models", "path": "a"}}},
    "data": {"name": "mnist", "partition": {"scheme": "Shards", "shardsPerClient": 2}},
    "clientGroups": [
        {"name": "a", "replicas": 20, "data": OTHER_DATA},
        {"name": "b", "replicas": 20, "data": {"partition": {"scheme": "Shards", "shardsPerClient": 2}}},
    ],
    "aggregator": {"storage": {"claimName": "mine"}},
    "evaluation": {"data": {"maxTrainSamples": 5}},
}
"""What contradicts something in the largest manifest."""
NUMBERS = count(1)


def full(spec):
    """A spec with its defaults."""
    return dump(FederatedJob.from_document(a_document(spec)))["spec"]


def schema():
    crd = yaml.safe_load((ROOT / "crds/federatedjobs.fedjob.dev.yaml").read_text(encoding="utf-8"))
    return crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]


def places(node, value, above=()):
    """Yield the place and schema of each field that has a value; not what is inside of free-form maps."""
    if "properties" in node:
        for name, field in node["properties"].items():
            if name in value:
                yield (*above, name), field
                yield from places(field, value[name], (*above, name))
    for index, item in enumerate(value) if "properties" in node.get("items", {}) else ():
        yield from places(node["items"], item, (*above, index))


SCHEMA = schema()


def parent(spec, place):
    for part in place[:-1]:
        spec = spec[part]
    return spec


def without(spec, place):
    changed = copy.deepcopy(spec)
    del parent(changed, place)[place[-1]]
    return changed


def with_another(spec, place, field):
    """The spec with another value of the same type at one place."""
    changed = copy.deepcopy(spec)
    holder = parent(changed, place)
    holder[place[-1]] = another(holder[place[-1]], field)
    return changed


def another(value, field):
    if "enum" in field:
        return next(word for word in field["enum"] if word != value)
    match value:
        case bool():
            return not value
        case int():
            return value + 1 if value == field.get("minimum") else value - 1
        case float():
            return value / 2
        case str():
            return "49%" if value.endswith("%") else f"{value}x" if value[-1] != "i" else f"1{value}"
        case list():
            return value[:-1] if value else [{}]
        case _:
            return {**value, "more": 1}


def is_sound(spec):
    return not refusal(spec, spec)


def disagreements(server, old, news):
    """Where the API server and pydantic differ on changes of one job."""
    name = f"every-field-{next(NUMBERS)}"
    made = server.request("POST", JOBS, a_document(old, name)).ok()
    for place, new in news:
        wanted = a_document(new, name)
        wanted["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"]
        answer = server.request("PUT", f"{JOBS}/{name}?dryRun=All&fieldValidation=Strict", wanted)
        assert answer.status in {200, 400, 422}, answer.message
        expected = refusal(old, new)
        if (answer.status == 200) == bool(expected):
            yield place, answer.message, expected


@pytest.fixture(
    params=[{**EVERYTHING, "suspend": True}, {**EVERYTHING, "suspend": False}, {**OTHERS, "suspend": False}],
    ids=["suspended", "running", "others"],
)
def whole(request):
    return full(request.param)


def test_changing_a_field(api_server, whole):
    fields = places(SCHEMA, whole)
    changes = [(place, with_another(whole, place, field)) for place, field in fields if "properties" not in field]
    assert len(changes) > 50
    assert list(disagreements(api_server, whole, changes)) == []


def test_taking_a_field_out(api_server, whole):
    changes = [(place, without(whole, place)) for place, _ in places(SCHEMA, whole)]
    assert list(disagreements(api_server, whole, changes)) == []


def test_putting_a_field_in(api_server, whole):
    smaller = [(place, without(whole, place)) for place, _ in places(SCHEMA, whole)]
    sound = [(place, spec) for place, spec in smaller if is_sound(spec)]
    assert len(sound) > 40
    found = [difference for place, spec in sound for difference in disagreements(api_server, spec, [(place, whole)])]
    assert found == []
