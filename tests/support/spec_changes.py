"""What may be changed in a job that is there: one table for the pure function and for the rules of the CRD."""

from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from fedjob_operator.api.immutable import immutable_changes
from fedjob_operator.api.rules import spec_problems
from fedjob_operator.api.v1alpha1 import FederatedJob

GROUP = {"name": "a", "replicas": 5, "maxReplicas": 8}
OWN = {"name": "b", "replicas": 2, "trainer": "my.module:Trainer", "data": {"path": "/b"}}
PARTED = {"name": "digits", "partition": {"scheme": "Dirichlet", "alpha": 0.5}}
ORIGIN = {"name": "mlp", "initFrom": {"federatedJob": {"name": "earlier", "checkpoint": "Round", "round": 3}}}
OTHER_ORIGIN = {"name": "mlp", "initFrom": {"federatedJob": {"name": "earlier", "checkpoint": "Round", "round": 4}}}
SUSPENDED = {"suspend": True, "clientGroups": [GROUP]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change of the smallest spec, whose only group is `GROUP`."""

    before: dict[str, Any] = field(default_factory=dict)
    """Fields of the spec as it was; None takes one out."""
    after: dict[str, Any]
    """Fields of the spec as it shall be, laid over those before."""
    refused: str = ""
    """The line of the refusal; empty if the change is allowed."""

    @property
    def old(self) -> dict[str, Any]:
        """The fields before."""
        return {"clientGroups": [GROUP], **self.before}

    @property
    def new(self) -> dict[str, Any]:
        """The fields after."""
        return {**self.old, **self.after}

    def __str__(self) -> str:
        return self.refused or f"{self.after} is fine"


ALLOWED = (
    Change(after={"suspend": True}),
    Change(after={"rounds": 9}),
    Change(after={"rounds": 1}),
    Change(after={"objective": None}),
    Change(before={"objective": {"metric": "loss", "mode": "Min"}}, after={"stop": {"target": 0.5}}),
    Change(before={"stop": {"minDelta": 0.5}}, after={"stop": None}),
    Change(after={"serve": {"replicas": 1}}),
    Change(after={"roundPolicy": {"deadlineSeconds": 5}}),
    Change(after={"startupDeadlineSeconds": 5}),
    Change(after={"activeDeadlineSeconds": 5}),
    Change(before={"activeDeadlineSeconds": 5}, after={"activeDeadlineSeconds": None}),
    Change(after={"ttlSecondsAfterFinished": 0}),
    Change(after={"evaluation": {"deadlineSeconds": 5}}),
    Change(after={"clientGroups": [{**GROUP, "replicas": 8}]}),
    Change(after={"clientGroups": [{**GROUP, "replicas": 1}]}),
    Change(after={"seed": 0, "roundPolicy": {"overSelect": 0}}),  # what was the default is no change
    Change(before={"model": ORIGIN}, after={"model": ORIGIN, "suspend": True}),
    Change(before=SUSPENDED, after={"clientGroups": [{**GROUP, "image": "x", "gpus": 1, "template": {"spec": {}}}]}),
    Change(before=SUSPENDED, after={"evaluation": {"gpus": 1, "template": {}}}),
    Change(before=SUSPENDED, after={"aggregator": {"template": {}}}),
    Change(before=SUSPENDED, after={"suspend": False, "evaluation": {"gpus": 1}}),  # changed and resumed at once
)
"""Changes that are allowed."""

OWN_STRATEGY = {"name": "Own", "parameters": {"mu": 0.5, "deep": {"er": [1, 2]}}}
REFUSED = (
    Change(
        before={"strategy": OWN_STRATEGY},
        after={"strategy": {**OWN_STRATEGY, "parameters": {"mu": 0.5, "deep": {"er": [1, 3]}}}},
        refused="spec.strategy.parameters.deep.er[1]: cannot be changed (2 before, 3 now)",
    ),
    Change(
        before={"strategy": OWN_STRATEGY},
        after={"strategy": {"name": "Own", "parameters": {"mu": 0.5}}},
        refused="spec.strategy.parameters.deep: cannot be changed (a mapping before, not given now)",
    ),
    Change(after={"seed": 1}, refused="spec.seed: cannot be changed (0 before, 1 now)"),
    Change(after={"model": {"name": "cnn"}}, refused='spec.model.name: cannot be changed ("mlp" before, "cnn" now)'),
    Change(
        after={"model": {"name": "mlp", "maxBytes": 5}},
        refused="spec.model.maxBytes: cannot be changed (8589934592 before, 5 now)",
    ),
    Change(
        after={"model": {"name": "mlp", "parameters": {"a": {"b": [1]}}}},
        refused="spec.model.parameters.a: cannot be changed (not given before, a mapping now)",
    ),
    Change(
        before={"model": {"name": "mlp", "parameters": {"a": {"b": 1, "c": 2}}}},
        after={"model": {"name": "mlp", "parameters": {"a": {"b": 1}}}},
        refused="spec.model.parameters.a.c: cannot be changed (2 before, not given now)",
    ),
    Change(after={"model": ORIGIN}, refused="spec.model.initFrom: cannot be changed (not given before, a mapping now)"),
    Change(
        before={"model": ORIGIN},
        after={"model": {"name": "mlp"}},
        refused="spec.model.initFrom: cannot be changed (a mapping before, not given now)",
    ),
    Change(
        before={"model": ORIGIN},
        after={"model": OTHER_ORIGIN},
        refused="spec.model.initFrom.federatedJob.round: cannot be changed (3 before, 4 now)",
    ),
    Change(
        before={"clientGroups": [OWN]},
        after={"data": None},
        refused="spec.data: cannot be changed (a mapping before, not given now)",
    ),
    Change(
        before={"clientGroups": [OWN], "data": None},
        after={"data": {"name": "digits"}},
        refused="spec.data: cannot be changed (not given before, a mapping now)",
    ),
    Change(
        after={"data": {"name": "digits", "maxTrainSamples": 5}},
        refused="spec.data.maxTrainSamples: cannot be changed (not given before, 5 now)",
    ),
    Change(
        before={"data": PARTED},
        after={"data": {"name": "digits", "partition": {"scheme": "Dirichlet", "alpha": 0.6}}},
        refused="spec.data.partition.alpha: cannot be changed (0.5 before, 0.6 now)",
    ),
    Change(
        before={"data": PARTED},
        after={"data": {"name": "digits"}},
        refused="spec.data.partition: cannot be changed (a mapping before, not given now)",
    ),
    Change(after={"training": {"epochs": 2}}, refused="spec.training.epochs: cannot be changed (1 before, 2 now)"),
    Change(
        after={"training": {"parameters": {"a": 1}}},
        refused="spec.training.parameters.a: cannot be changed (not given before, 1 now)",
    ),
    Change(
        after={"training": {"optimizer": {"name": "Adam"}}},
        refused='spec.training.optimizer.name: cannot be changed ("SGD" before, "Adam" now)',
    ),
    Change(
        after={"strategy": {"weighting": "Uniform"}},
        refused='spec.strategy.weighting: cannot be changed ("Examples" before, "Uniform" now)',
    ),
    Change(
        after={"roundPolicy": {"clientsPerRound": "50%"}},
        refused='spec.roundPolicy.clientsPerRound: cannot be changed (not given before, "50%" now)',
    ),
    Change(
        before={"roundPolicy": {"clientsPerRound": 5}},
        after={"roundPolicy": {"clientsPerRound": "100%"}},
        refused='spec.roundPolicy.clientsPerRound: cannot be changed (5 before, "100%" now)',
    ),
    Change(
        after={"roundPolicy": {"minReports": 3}},
        refused="spec.roundPolicy.minReports: cannot be changed (not given before, 3 now)",
    ),
    Change(
        before={"roundPolicy": {"minReports": 3}},
        after={"roundPolicy": {}},
        refused="spec.roundPolicy.minReports: cannot be changed (3 before, not given now)",
    ),
    Change(after={"minClients": 3}, refused="spec.minClients: cannot be changed (not given before, 3 now)"),
    Change(
        before={"minClients": 3},
        after={"minClients": None},
        refused="spec.minClients: cannot be changed (3 before, not given now)",
    ),
    Change(after={"joinWaitSeconds": 5}, refused="spec.joinWaitSeconds: cannot be changed (60 before, 5 now)"),
    Change(
        after={"lateJoiners": "Refuse"},
        refused='spec.lateJoiners: cannot be changed ("Accept" before, "Refuse" now)',
    ),
    Change(
        after={"objective": {"metric": "loss", "mode": "Min"}},
        refused="spec.objective: cannot be changed (not given before, a mapping now)",
    ),
    Change(
        after={"aggregator": {"replicas": 3}}, refused="spec.aggregator.replicas: cannot be changed (1 before, 3 now)"
    ),
    Change(
        after={"aggregator": {"storage": {"size": "2Gi"}}},
        refused='spec.aggregator.storage.size: cannot be changed ("1Gi" before, "2Gi" now)',
    ),
    Change(
        after={"aggregator": {"template": {"a": 1}}},
        refused="spec.aggregator.template: cannot be changed unless the job is suspended "
        "(not given before, a mapping now)",
    ),
    Change(
        after={"evaluation": {"modes": []}},
        refused="spec.evaluation.modes: cannot be changed (1 entries before, 0 entries now)",
    ),
    Change(
        after={"evaluation": {"gpus": 1}},
        refused="spec.evaluation.gpus: cannot be changed unless the job is suspended (0 before, 1 now)",
    ),
    Change(
        after={"clientGroups": [{**GROUP, "name": "b"}]},
        refused='spec.clientGroups[0].name: cannot be changed ("a" before, "b" now)',
    ),
    Change(
        after={"clientGroups": [GROUP, {"name": "b", "replicas": 1}]},
        refused="spec.clientGroups: cannot be changed (1 entries before, 2 entries now)",
    ),
    Change(
        after={"clientGroups": [{**GROUP, "maxReplicas": 9}]},
        refused="spec.clientGroups[0].maxReplicas: cannot be changed (8 before, 9 now)",
    ),
    Change(
        after={"clientGroups": [{**GROUP, "device": "GPU"}]},
        refused='spec.clientGroups[0].device: cannot be changed ("Auto" before, "GPU" now)',
    ),
    Change(
        before={"clientGroups": [OWN]},
        after={"clientGroups": [{**OWN, "data": {"path": "/c"}}]},
        refused='spec.clientGroups[0].data.path: cannot be changed ("/b" before, "/c" now)',
    ),
    Change(
        after={"clientGroups": [{**GROUP, "volumeClaimTemplates": [{"a": 1}]}]},
        refused="spec.clientGroups[0].volumeClaimTemplates: cannot be changed (0 entries before, 1 entries now)",
    ),
    Change(
        after={"clientGroups": [{**GROUP, "image": "x"}]},
        refused='spec.clientGroups[0].image: cannot be changed unless the job is suspended (not given before, "x" now)',
    ),
    Change(
        before={"clientGroups": [{**GROUP, "image": "x"}]},
        after={"clientGroups": [GROUP]},
        refused='spec.clientGroups[0].image: cannot be changed unless the job is suspended ("x" before, not given now)',
    ),
    Change(
        after={"clientGroups": [{**GROUP, "gpus": 1}]},
        refused="spec.clientGroups[0].gpus: cannot be changed unless the job is suspended (0 before, 1 now)",
    ),
    Change(
        before={"clientGroups": [{**GROUP, "template": {"spec": {"a": 1}}}]},
        after={"clientGroups": [{**GROUP, "template": {"spec": {"a": 2}}}]},
        refused="spec.clientGroups[0].template.spec.a: cannot be changed unless the job is suspended (1 before, 2 now)",
    ),
    Change(
        before={"clientGroups": [{"name": "a", "replicas": 5}]},
        after={"clientGroups": [{"name": "a", "replicas": 6}]},
        refused="spec.clientGroups[0].replicas: 6 is more than maxReplicas (5)",
    ),
)
"""Changes that are refused, each for its one reason."""


def refusal(old: dict[str, Any], new: dict[str, Any]) -> str:
    """What is wrong with a new spec of a job, one line for each; empty if nothing is."""
    try:
        specs = [FederatedJob.from_document(a_document(spec)).spec for spec in (old, new)]
    except ValidationError as error:
        return str(error)
    return "\n".join(map(str, [*spec_problems(specs[1]), *immutable_changes(*specs)]))


def a_document(spec: dict[str, Any], name: str = "x") -> dict[str, Any]:
    """A resource with this spec."""
    return {"apiVersion": "fedjob.dev/v1alpha1", "kind": "FederatedJob", "metadata": {"name": name}, "spec": spec}
