"""The corpus of manifests: every valid one is read, every invalid one is refused for the reason that it states."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from fedjob.manifest import ManifestError, load_manifest
from fedjob_operator.api.v1alpha1 import FederatedJob, dump

CORPUS = Path(__file__).parents[2] / "data/manifests"
VALID = sorted((CORPUS / "valid").glob("*.yaml"))
INVALID = sorted((CORPUS / "invalid").glob("*.yaml"))


def test_the_corpus_is_not_small():
    assert len(VALID) >= 20
    assert len(INVALID) >= 80


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_a_valid_manifest_is_read(path):
    job = load_manifest(path)
    assert FederatedJob.from_document(dump(job)) == job


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_an_invalid_manifest_is_refused_for_its_one_reason(path):
    marker, _, expected = path.read_text(encoding="utf-8").splitlines()[0].partition("expect: ")
    field, _, message = expected.partition(": ")
    assert marker == "# "
    with pytest.raises(ManifestError) as caught:
        load_manifest(path)
    (problem,) = caught.value.problems
    assert problem.path == field
    assert message in problem.message
    assert "\n" not in str(problem)


def test_every_field_is_in_some_valid_manifest():
    """Else a field could be lost, or get another type, without a test that notices."""
    given = {field for path in VALID for field in given_fields(load_manifest(path).spec)}
    all_fields = {(model, name) for model in {model for model, _ in given} for name in model.model_fields}
    assert {f"{model.__name__}.{name}" for model, name in all_fields - given} == {"InitFrom.file"}  # not for a cluster


def given_fields(model):
    """The (model, field) pairs that a document gave a value."""
    for name in model.model_fields_set:
        yield type(model), name
        value = getattr(model, name)
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, BaseModel):
                yield from given_fields(item)


def test_numbers_mean_what_they_mean_to_kubectl():
    spec = load_manifest(CORPUS / "valid/number-forms.yaml").spec
    assert (spec.rounds, spec.seed, spec.join_wait_seconds, spec.suspend) == (10, 15, 8, False)
    assert (spec.training.epochs, spec.training.batch_size, spec.training.learning_rate) == (2, 32, 0.001)


def test_empty_fields_have_their_defaults():
    empty = load_manifest(CORPUS / "valid/empty-values.yaml").spec
    assert empty == load_manifest(CORPUS / "valid/smallest.yaml").spec


def test_what_is_in_a_free_form_map_stays_even_nulls():
    spec = load_manifest(CORPUS / "valid/free-form.yaml").spec
    assert spec.model.parameters == {
        "a": 1,
        "b": 1.5,
        "c": "text",
        "d": [1, {"e": None}],
        "f": {},
        "g.h/i": True,
        "true": 1,
    }


def test_a_status_in_a_manifest_is_ignored():
    job = load_manifest(CORPUS / "valid/metadata.yaml")
    assert job.status.phase == "Pending"
