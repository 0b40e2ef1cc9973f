"""What `fedjob run` refuses and what it leaves aside."""

import pytest

from fedjob_operator.api.local import local_notes, local_problems
from fedjob_protocol.builtin import DATA_PARAMETERS, MODEL_PARAMETERS
from tests.unit.controller.api_samples import job

KNOWN = {
    "known_models": {name: MODEL_PARAMETERS[name] for name in ("mlp", "softmax")},
    "known_data": {name: DATA_PARAMETERS[name] for name in ("digits", "npz")},
}


def refused(**fields):
    return [str(problem) for problem in local_problems(job(**fields), **KNOWN)]


def group(**fields):
    return {"clientGroups": [{"name": "a", "replicas": 5, **fields}]}


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        (
            {"clientGroups": [{"name": "a", "external": {}}], "aggregator": {"replicas": 3}},
            "spec.aggregator.replicas: 3, but clients that register themselves know one aggregator only; use 1",
        ),
        (
            {
                "clientGroups": [{"name": "a", "external": {}}],
                "model": {"name": "mlp", "initFrom": {"file": "a.safetensors"}},
            },
            (
                "spec.model.initFrom: is read by a client that is started here, and all groups are external; "
                "add a group with replicas"
            ),
        ),
        (
            {"clientPods": "PerRound", "lateJoiners": "Refuse"},
            "spec.lateJoiners: Refuse, but with clientPods PerRound nobody is there before its turn",
        ),
        (
            {"model": {"name": "mlp", "initFrom": {"claim": {"name": "a", "path": "b"}}}},
            "spec.model.initFrom.claim: is a volume of a cluster; use file or federatedJob",
        ),
        (
            {"suspend": True},
            "spec.suspend: is true; on this machine, interrupt the run and go on with --resume",
        ),
        (
            group(gpus=2, device="GPU"),
            "spec.clientGroups[0].gpus: 2 with device GPU: GPUs cannot be divided among clients here",
        ),
        (
            {"strategy": {"name": "fedavg"}},
            (
                'spec.strategy.name: "fedavg" is not built in; did you mean "FedAvg"?; built in are '
                "FedAdagrad, FedAdam, FedAvg, FedAvgM, FedProx, FedYogi, Krum, Median, MultiKrum, TrimmedMean"
            ),
        ),
        (
            {"training": {"learningRateSchedule": {"name": "cosine"}}},
            (
                'spec.training.learningRateSchedule.name: "cosine" is not built in; did you mean "Cosine"?; '
                "built in are Constant, Cosine, Exponential, Step"
            ),
        ),
        (
            {"training": {"learningRateSchedule": {"name": "Step", "parameters": {"gamma": 0.5}}}},
            "spec.training.learningRateSchedule.parameters.everyRounds: missing",
        ),
        (
            {"training": {"learningRateSchedule": {"name": "Exponential", "parameters": {"gamma": 1.5}}}},
            "spec.training.learningRateSchedule.parameters.gamma: 1.5 is more than 1.0",
        ),
        (
            {"training": {"learningRateSchedule": {"name": "Constant", "parameters": {"gamma": 0.5}}}},
            "spec.training.learningRateSchedule.parameters.gamma: unknown field",
        ),
        (
            {"training": {"learningRateSchedule": {"name": "Cosine", "parameters": {"minLearningRate": 1}}}},
            "spec.training.learningRateSchedule.parameters.minLearningRate: 1 is more than learningRate (0.1)",
        ),
        (
            {"training": {"optimizer": {"name": "adam"}}},
            'spec.training.optimizer.name: "adam" is not built in; did you mean "Adam"?; built in are Adam, SGD',
        ),
        (
            {"training": {"optimizer": {"parameters": {"nesterov": True}}}},
            "spec.training.optimizer.parameters.nesterov: unknown field",
        ),
        (
            {"training": {"optimizer": {"parameters": {"momentun": 0.9}}}},
            'spec.training.optimizer.parameters.momentun: unknown field; did you mean "momentum"?',
        ),
        (
            {"training": {"optimizer": {"name": "Adam", "parameters": {"beta2": 1}}}},
            "spec.training.optimizer.parameters.beta2: 1 is not less than 1.0",
        ),
        (
            {"training": {"optimizer": {"name": "Adam", "parameters": {"epsilon": "small"}}}},
            'spec.training.optimizer.parameters.epsilon: "small" is not a number',
        ),
        (
            {**group(trainer="a:B"), "training": {"optimizer": {"name": "Mine", "parameters": {"x": True}}}},
            "spec.training.optimizer.parameters.x: is not a number",
        ),
        (
            {"model": {"name": "mpl"}},
            'spec.model.name: "mpl" is not built in; did you mean "mlp"?; built in are mlp, softmax',
        ),
        ({"data": {"name": "x"}}, 'spec.data.name: "x" is not built in; built in are digits, npz'),
        (group(data={"name": "x"}), 'spec.clientGroups[0].data.name: "x" is not built in; built in are digits, npz'),
        (
            {"evaluation": {"data": {"name": "x"}}},
            'spec.evaluation.data.name: "x" is not built in; built in are digits, npz',
        ),
    ],
)
def test_what_cannot_be_done_here_is_refused_in_one_line(fields, line):
    assert refused(**fields) == [line]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"model": {"name": "mlp", "initFrom": {"file": "start.safetensors"}}},
        {"evaluation": {"modes": []}},
        {"strategy": {"weighting": "Uniform"}},
        {"training": {"optimizer": {"name": "Adam", "parameters": {"beta1": 0, "weightDecay": 1e-4}}}},
        {"training": {"learningRateSchedule": {"name": "Step", "parameters": {"everyRounds": 10.0, "gamma": 1}}}},
        {"training": {"learningRateSchedule": {"name": "Cosine"}}},
        group(device="GPU"),
        group(gpus=1),
        group(data={"name": "npz", "path": "a.npz"}),
        {"data": {"name": "digits", "partition": {"scheme": "Shards", "shardsPerClient": 2}}},
        {"data": {"name": "digits", "partition": {"scheme": "ByLabel"}}},
        group(data={"partition": {"scheme": "QuantitySkew", "alpha": 1}}),
        {"data": {"name": "not-used"}, **group(data={"name": "npz"})},
    ],
)
def test_what_can_be_done_is_not_refused(fields):
    assert refused(**fields) == []


def test_with_a_trainer_of_ones_own_names_are_free():
    fields = {"model": {"name": "resnet"}, "data": {"name": "scans"}, "training": {"optimizer": {"name": "Lion"}}}
    assert refused(**fields, **group(trainer="a:B")) == []
    mixed = {"clientGroups": [{"name": "a", "replicas": 1, "trainer": "a:B"}, {"name": "b", "replicas": 1}]}
    assert [line.partition(":")[0] for line in refused(**fields, **mixed)] == [
        "spec.model.name",
        "spec.data.name",
        "spec.training.optimizer.name",
    ]


def test_names_are_not_checked_without_a_list():
    assert local_problems(job(model={"name": "x"}, data={"name": "y"})) == []


def test_what_is_about_pods_is_noted_and_not_refused():
    fields = {
        **group(image="x", gpus=1, template={"spec": {}}, volumeClaimTemplates=[{}]),
        "aggregator": {"storage": {"size": "5Gi"}, "template": {"spec": {}}},
        "evaluation": {"gpus": 1, "template": {"spec": {}}},
        "ttlSecondsAfterFinished": 0,
    }
    assert refused(**fields) == []
    assert [str(note) for note in local_notes(job(**fields))] == [
        "spec.clientGroups[0].image: is ignored on this machine",
        "spec.clientGroups[0].gpus: is ignored on this machine",
        "spec.clientGroups[0].volumeClaimTemplates: is ignored on this machine",
        "spec.clientGroups[0].template: is ignored on this machine",
        "spec.aggregator.storage: is ignored on this machine",
        "spec.aggregator.template: is ignored on this machine",
        "spec.evaluation.gpus: is ignored on this machine",
        "spec.evaluation.template: is ignored on this machine",
        "spec.ttlSecondsAfterFinished: is ignored on this machine",
    ]


def test_a_plain_job_has_no_notes():
    assert local_notes(job()) == []
