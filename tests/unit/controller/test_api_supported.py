"""What the operator of this release refuses before it makes a pod."""

import pytest

from fedjob_operator.api.supported import unsupported_on_cluster
from fedjob_operator.api.v1alpha1 import FederatedJob
from fedjob_protocol.builtin import DATA_PARAMETERS, MODEL_PARAMETERS

MODELS = {"mlp": MODEL_PARAMETERS["mlp"]}
DATA = {"digits": DATA_PARAMETERS["digits"]}


def refused(**fields):
    job = FederatedJob.from_document(
        {
            "apiVersion": "fedjob.dev/v1alpha1",
            "kind": "FederatedJob",
            "metadata": {"name": "a"},
            "spec": {
                "rounds": 1,
                "model": {"name": "mlp"},
                "data": {"name": "digits"},
                "clientGroups": [{"name": "clients", "replicas": 2}],
                **fields,
            },
        }
    )
    return [problem.path for problem in unsupported_on_cluster(job.spec, known_models=MODELS, known_data=DATA)]


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"model": {"name": "mlp", "initFrom": {"file": "a.safetensors"}}}, "spec.model.initFrom.file"),
        ({"clientPods": "PerRound", "lateJoiners": "Refuse"}, "spec.lateJoiners"),
        ({"model": {"name": "mlpp"}}, "spec.model.name"),
        ({"strategy": {"name": "FedAvgg"}}, "spec.strategy.name"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_done_is_named(fields, path):
    assert refused(**fields) == [path]


def test_pods_claims_and_suspension_are_what_a_cluster_is_for():
    claim = {"claim": {"name": "models", "path": "a.safetensors"}}
    group = {"name": "clients", "replicas": 2, "gpus": 1, "image": "mine:1", "template": {"spec": {}}}
    assert refused(suspend=True, clientGroups=[group], model={"name": "mlp", "initFrom": claim}) == []


def test_a_strategy_of_ones_own_comes_with_an_image_of_the_aggregator_that_the_manifest_names():
    own = {"strategy": {"name": "GeometricMedian", "parameters": {"anything": [1]}}}
    image = {"spec": {"containers": [{"name": "aggregator", "image": "mine:1"}]}}
    other = {"spec": {"containers": [{"name": "sidecar", "image": "mine:1"}, {"name": "aggregator"}]}}
    assert refused(**own, aggregator={"template": image}) == []
    for template in (other, {}, {"spec": {"containers": "none"}}):
        assert refused(**own, aggregator={"template": template}) == ["spec.strategy.name"]
