"""Every field of the schema, whatever is put there: refused by the API server in words that name the field, or sound.

Both for a job that is created, and for one that trains. What the API server lets a running job change is played in
`test_live`, which is checked here to have all of it.
"""

import pytest

from fedjob_operator.api.v1alpha1 import FederatedJob, dump
from tests.faults.misoperations.catalogue import PLAYED
from tests.faults.misoperations.plays import NAME, is_training
from tests.faults.misoperations.schema import Field, all_fields, removed, variants
from tests.support.spec_changes import a_document, refusal

SMALL = {
    "rounds": 3,
    "seed": 7,
    "model": {"name": "linear"},
    "data": {"name": "synthetic-linear"},
    "clientGroups": [{"name": "a", "replicas": 2}],
}
FIELDS = all_fields()


def full(spec):
    """A spec with its defaults, as the API server keeps it."""
    return dump(FederatedJob.from_document(a_document(spec)))["spec"]


def edits(field: Field, spec):
    """What somebody may do to a field: each with the spec that comes of it, and whether the schema alone refuses it."""
    for variant in variants(field):
        yield str(variant), variant.put_into(spec), variant.is_valid
    if (without := removed(spec, field.path)) is not None:
        yield f"{field} taken out", without, not field.is_required


def causes(answer):
    return [cause.get("field", "") for cause in answer.body.get("details", {}).get("causes", [])]


def names(answer, field: Field, expected: str):
    """Whether a refusal names the field, what holds it, or what contradicts it."""
    if "unknown field" in answer.message:
        return f'"{field}.' in answer.message
    wanted = [str(field), *(line.partition(":")[0] for line in expected.splitlines())]
    return any(is_about(cause, place) for cause in causes(answer) for place in wanted)


def is_about(cause, place):
    """Whether one is the other, or holds it; lists may be named as a whole."""
    short, long = sorted((cause, place), key=len)
    return short.startswith("spec.") and (long == short or long.startswith((f"{short}.", f"{short}[")))


def expected_of(old, new):
    """What our own model says against a spec, and what only matters in a cluster."""
    model = new.get("model")
    origin = model.get("initFrom") if isinstance(model, dict) else None
    is_local = isinstance(origin, dict) and "file" in origin
    local = ["spec.model.initFrom.file: is on the machine of `fedjob run`"] if is_local else []
    return "\n".join([*filter(None, [refusal(old, new)]), *local])


@pytest.mark.parametrize("field", FIELDS, ids=str)
def test_what_a_job_is_created_with(stage, field):
    problems = []
    for what, spec, is_valid in edits(field, SMALL):
        expected = expected_of(spec, spec)
        assert is_valid or expected, f"{what}: our own model takes it"
        problems += judged(stage.try_to_create(a_document(spec)), field, what, expected)
    assert problems == []


@pytest.mark.parametrize("field", FIELDS, ids=str)
def test_what_a_job_that_trains_is_changed_to(bystander, field):
    before = bystander.cluster.job(bystander.home, NAME)
    problems = []
    for what, spec, _ in edits(field, before["spec"]):
        expected = expected_of(before["spec"], spec)
        answer = bystander.try_to_become(spec, pretend=not expected)
        problems += judged(answer, field, what, expected)
        is_change = not expected and full(spec) != full(before["spec"])
        if is_change and not any(field.path[: len(path)] == path for path in PLAYED):
            problems.append(f"{what}: is taken, and played nowhere")
    assert problems == []
    after = bystander.cluster.job(bystander.home, NAME)
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    assert is_training(after["status"])


def judged(answer, field, what, expected):
    told = f"{what}: {answer.status} {answer.message}"
    if not expected:
        return [] if answer.status < 300 else [f"{told}; nothing is wrong with it"]
    if answer.status not in {400, 422}:
        return [f"{told}; expected {expected}"]
    return [] if names(answer, field, expected) else [f"{told}; names {causes(answer)}"]
