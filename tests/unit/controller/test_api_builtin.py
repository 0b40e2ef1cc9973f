"""What is wrong with built-in models and data sets, seen before a client is started."""

import pytest

from fedjob_operator.api.builtin import builtin_problems
from fedjob_operator.api.v1alpha1 import FederatedJob
from fedjob_protocol.builtin import DATA_PARAMETERS, MODEL_PARAMETERS

CLIENTS = {"name": "clients", "replicas": 2}
OWN = {"name": "own", "replicas": 1, "trainer": "mine:Trainer"}


def problems(known_models=MODEL_PARAMETERS, known_data=DATA_PARAMETERS, **fields):
    spec = {"rounds": 1, "model": {"name": "mlp"}, "data": {"name": "digits"}, "clientGroups": [CLIENTS], **fields}
    job = FederatedJob.from_document(
        {"apiVersion": "fedjob.dev/v1alpha1", "kind": "FederatedJob", "metadata": {"name": "a"}, "spec": spec}
    )
    return [str(problem) for problem in builtin_problems(job.spec, models=known_models, data=known_data)]


def a_group(**data):
    return {**CLIENTS, "data": data}


def test_a_sound_job_has_none():
    assert problems() == []
    assert problems(model={"name": "cnn", "parameters": {"channels": [8, 16], "kernelSize": 3}}) == []
    assert problems(data={"name": "csv", "path": "a.csv", "parameters": {"image": [8, 8, 1], "scale": 255}}) == []


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        (
            {"model": {"name": "mlp", "parameters": {"hiddenSize": [3]}}},
            'spec.model.parameters.hiddenSize: unknown field; did you mean "hiddenSizes"?',
        ),
        (
            {"model": {"name": "mlp", "parameters": {"hiddenSizes": [0]}}},
            "spec.model.parameters.hiddenSizes[0]: 0 is less than 1",
        ),
        ({"model": {"name": "cnn", "parameters": {"kernelSize": 4}}}, "spec.model.parameters.kernelSize: "),
        ({"model": {"name": "linear", "parameters": {"w": 1}}}, "spec.model.parameters.w: unknown field"),
        (
            {"data": {"name": "synthetic-linear", "parameters": {"numSamples": 0}}},
            "spec.data.parameters.numSamples: 0 is less than 1",
        ),
        (
            {"clientGroups": [CLIENTS | {"name": "other"}, a_group(parameters={"x": 1})]},
            "spec.clientGroups[1].data.parameters.x: unknown field",
        ),
        (
            {"clientGroups": [a_group(name="npz", path="a.npz", parameters={"classes": 1})]},
            "spec.clientGroups[0].data.parameters.classes: 1 is less than 2",
        ),
        (
            {"evaluation": {"data": {"parameters": {"x": 1}}}},
            "spec.evaluation.data.parameters.x: unknown field",
        ),
    ],
)
def test_wrong_parameters_are_named_with_their_path(fields, line):
    (only,) = problems(**fields)
    assert only.startswith(line)


def test_parameters_that_no_client_reads_may_be_anything():
    wrong = {"model": {"name": "mlp", "parameters": {"x": 1}}, "data": {"name": "digits", "parameters": {"x": 1}}}
    assert problems(**wrong, clientGroups=[OWN]) == []
    assert problems(**wrong, known_models=None, known_data=None) == []
    replaced = a_group(parameters={})
    assert problems(data={"name": "digits", "parameters": {"x": 1}}, clientGroups=[replaced]) == []
    assert problems(data={"name": "digits", "parameters": {"x": 1}}, clientGroups=[a_group(path="there")]) != []
