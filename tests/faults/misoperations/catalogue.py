"""What the API server takes and is no good, or not good now: each with the reason that the status then gives.

An edit without a reason changes nothing for the round that is open. Three kinds: of a job that trains; of one that is
suspended for it, where the edit describes pods; and of one that is created so, which as a rule cannot be changed, only
deleted and created again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from fedjob_protocol.reasons import Reason
from tests.faults.misoperations.plays import ABSENT, NAME, Edit, Play
from tests.faults.misoperations.schema import Place
from tests.support.cluster.jobs import a_job

Document = dict[str, Any]

GROUP: Final[Place] = ("clientGroups", 0)
TEMPLATE: Final[Place] = (*GROUP, "template")
LONGEST: Final = 31_536_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One job and what is done to it, one edit after the other."""

    name: str
    edits: tuple[Edit, ...]
    kind: str = "steered"
    """What the job comes to when nothing is done to it: ``steered`` or ``plain``."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of the job."""
    is_suspended: bool = False
    """Whether the job is suspended for the edits."""

    def __str__(self) -> str:
        return self.name

    def play(self, job: Play) -> None:
        """Do it all to a job; what is left is to let it go on."""
        if self.kind == "plain":
            for edit in self.edits:
                job.mistreat_new(a_job(NAME, **self.settings), edit)
            return
        job.train(**self.settings)
        for edit in self.edits:
            if self.is_suspended:
                job.mistreat_suspended(edit)
            else:
                job.mistreat(edit)


EVALUATED: Final[Mapping[str, Any]] = {"evaluated": True, "objective": {"metric": "accuracy", "mode": "Max"}}


def running(name: str, path: Place, *values: Any, settings: Mapping[str, Any] | None = None) -> Case:
    """Edits of one field that change nothing for the round that is open."""
    return Case(name=name, edits=tuple(Edit(path=path, value=value) for value in values), settings=settings or {})


def suspended(name: str, *edits: Edit, settings: Mapping[str, Any] | None = None) -> Case:
    """Edits of what describes pods."""
    return Case(name=name, edits=edits, settings=settings or {}, is_suspended=True)


RUNNING: Final = (
    running("rounds", ("rounds",), 1_000_000, 2, 1),
    running("round deadline", ("roundPolicy", "deadlineSeconds"), 1, LONGEST, ABSENT),
    running("startup deadline", ("startupDeadlineSeconds",), 1, LONGEST, ABSENT),
    running("time to live", ("ttlSecondsAfterFinished",), 0, LONGEST),
    running("active deadline", ("activeDeadlineSeconds",), LONGEST),
    running("evaluation deadline", ("evaluation", "deadlineSeconds"), 1, LONGEST, ABSENT, settings=EVALUATED),
    running("stop", ("stop",), {}, {"target": -1e308}, {"patienceRounds": 1, "minDelta": 1e308}, settings=EVALUATED),
    running("stop target", ("stop", "target"), -1e308, settings=EVALUATED),
    running("stop patience", ("stop", "patienceRounds"), 1, 1_000_000, settings=EVALUATED),
    running("stop delta", ("stop", "minDelta"), 0, 1e308, settings=EVALUATED),
    running("serve", ("serve", "replicas"), 1, 100, 0),
    running("nothing to serve", ("serve",), {}),
    Case(
        name="suspend",
        edits=(Edit(path=("suspend",), value=True, says=Reason.SUSPENDED, words="spec.suspend"),),
    ),
    running("fewer clients", (*GROUP, "replicas"), 1),
)
"""Edits of a job that trains."""


def in_container(**fields: Any) -> Document:
    return {"spec": {"containers": [{"name": "client", **fields}]}}


def in_pod(**fields: Any) -> Document:
    return {"spec": fields}


def variable(name: str, value: str) -> Document:
    return in_container(env=[{"name": name, "value": value}])


def token(container: str) -> Document:
    """A token that is not the job's, instead of the one in the Secret."""
    env = [{"name": "FEDJOB_TOKEN", "value": "wrong", "valueFrom": None}]
    return {"spec": {"containers": [{"name": container, "env": env}]}}


def template(value: Any, says: Reason | None, words: str = "", path: Place = TEMPLATE) -> Edit:
    return Edit(path=path, value=value, says=says, words=words)


def refused_template(value: Any, words: str, path: Place = TEMPLATE) -> Edit:
    return template(value, Reason.INVALID_POD_TEMPLATE, words, path)


SUSPENDED: Final = (
    suspended(
        "image",
        Edit(path=(*GROUP, "image"), value="missing/client:1", says=Reason.IMAGE_PULL_FAILED, words="missing/"),
        Edit(path=(*GROUP, "image"), value="wrong/client:1", says=Reason.CONTAINER_CANNOT_RUN, words="executable"),
        Edit(path=(*GROUP, "image"), value=" ", says=Reason.INVALID_POD_TEMPLATE, words="image"),
    ),
    suspended(
        "gpus",
        Edit(path=(*GROUP, "gpus"), value=1, says=Reason.GPU_UNAVAILABLE, words="nvidia.com/gpu"),
        Edit(path=(*GROUP, "gpus"), value=64, says=Reason.GPU_UNAVAILABLE, words="nvidia.com/gpu"),
    ),
    suspended(
        "template: where it runs",
        template(in_pod(nodeSelector={"disk": "fast"}), Reason.UNSCHEDULABLE, "node affinity/selector"),
        template(
            in_pod(volumes=[{"name": "d", "persistentVolumeClaim": {"claimName": "nosuch"}}]),
            Reason.VOLUME_UNAVAILABLE,
            '"nosuch" not found',
        ),
        refused_template(in_pod(priorityClassName="nosuch"), "nosuch"),
    ),
    suspended(
        "template: no pod at all",
        refused_template({"spec": "text"}, "spec"),
        refused_template(in_pod(containers=None), "client is gone"),
        refused_template(in_container(env="text"), "env"),
        refused_template(in_container(resources="much"), "resources"),
    ),
    suspended(
        "template: out of range",
        refused_template(in_container(ports=[{"containerPort": 99999}]), "containerPort"),
        refused_template(in_container(imagePullPolicy="Sometimes"), "imagePullPolicy"),
        refused_template(in_container(resources={"limits": {"memory": "lots"}}), "quantities"),
        refused_template({"metadata": {"labels": {"a": "no spaces!"}}}, "labels"),
    ),
    suspended(
        "template: misspelt",
        refused_template(in_pod(nodeSelectr={"a": "b"}), "nodeSelectr"),
        refused_template(in_container(recources={"limits": {"memory": "1Gi"}}), "recources"),
    ),
    suspended(
        "template: the aggregator's",
        template(in_pod(nodeSelector={"disk": "fast"}), Reason.UNSCHEDULABLE, "aggregator", ("aggregator", "template")),
        refused_template(in_pod(containers=None), "aggregator is gone", ("aggregator", "template")),
    ),
    suspended(
        "template: the evaluator's",
        refused_template(in_pod(containers=None), "evaluation.template", ("evaluation", "template")),
        Edit(path=("evaluation", "gpus"), value=64),
        settings=EVALUATED,
    ),
    suspended(
        "template: ours all the same",
        template({"metadata": {"labels": {"fedjob.dev/role": "aggregator", "fedjob.dev/job": "other"}}}, None),
        template({"metadata": {"name": "mine", "namespace": "default", "ownerReferences": []}}, None),
        template(in_pod(restartPolicy="Always"), None),
        template(in_pod(terminationGracePeriodSeconds=-1), None),
    ),
)
"""Edits of a job that is suspended for them."""


def created(name: str, path: Place, value: Any, says: Reason | None, words: str = "", **settings: Any) -> Case:
    """A job that is created so."""
    return Case(
        name=f"created: {name}",
        edits=(Edit(path=path, value=value, says=says, words=words),),
        kind="plain",
        settings=settings,
    )


HELD_OUT: Final = {"evaluation": {"modes": ["Evaluator"]}}
OPTIMIZER: Final[Place] = ("training", "optimizer")
STORAGE: Final[Place] = ("aggregator", "storage")
SCHEDULE: Final[Place] = ("training", "learningRateSchedule")
ANOTHER: Final = {"federatedJob": {"name": "another"}}
PROBE: Final = {"httpGet": {"path": "/nosuch", "port": "http"}}
CLAIM: Final = {"claim": {"name": "nosuch", "path": "a"}}
DIRICHLET: Final = {"scheme": "Dirichlet", "alpha": 1e-300}
SHARDS: Final = {"scheme": "Shards", "shardsPerClient": 10_000}

CREATED: Final = (
    # What this release cannot do, or nobody can: said before a pod is made.
    created("unknown model", ("model", "name"), "nosuch", Reason.INVALID_SPEC, "spec.model.name"),
    created("unknown data", ("data", "name"), "nosuch", Reason.INVALID_SPEC, "spec.data.name"),
    created("a group's unknown data", (*GROUP, "data"), {"name": "nosuch"}, Reason.INVALID_SPEC, "].data.name"),
    created(
        "unknown held-out data",
        ("evaluation", "data"),
        {"name": "nosuch"},
        Reason.INVALID_SPEC,
        "spec.evaluation.data.name",
        **HELD_OUT,
    ),
    created("another job's model", ("model", "initFrom"), ANOTHER, Reason.INITIAL_MODEL_PENDING, "no job another"),
    created("unknown optimizer", (*OPTIMIZER, "name"), "Adagrad", Reason.INVALID_SPEC, "spec.training.optimizer.name"),
    created("momentum a text", (*OPTIMIZER, "parameters"), {"momentum": "much"}, Reason.INVALID_SPEC, "momentum"),
    created("parameters of SGD", (*OPTIMIZER, "parameters"), {"nosuch": 1}, Reason.INVALID_SPEC, "nosuch: unknown"),
    created("momentum", (*OPTIMIZER, "parameters"), {"momentum": 1e300}, Reason.INVALID_SPEC, "1e+300 is not less"),
    created("a schedule without its step", SCHEDULE, {"name": "Step"}, Reason.INVALID_SPEC, "everyRounds"),
    created(
        "unknown schedule", SCHEDULE, {"name": "cosine"}, Reason.INVALID_SPEC, "spec.training.learningRateSchedule"
    ),
    created("unknown strategy", ("strategy", "name"), "Crumb", Reason.INVALID_SPEC, "spec.strategy.name"),
    created("parameters of a strategy", ("strategy", "parameters"), {"x": 1}, Reason.INVALID_SPEC, "parameters.x"),
    # What a program finds out.
    created("parameters of a model", ("model", "parameters"), {"sizes": 1}, Reason.INVALID_SPEC, "sizes is not known"),
    created("a model too large", ("model", "maxBytes"), 1, Reason.UPDATE_REFUSED, "too-large"),
    created("a claim that is not there", ("model", "initFrom"), CLAIM, Reason.VOLUME_UNAVAILABLE, '"nosuch" not found'),
    created("too few examples", ("data", "parameters"), {"numSamples": -5}, Reason.DATA_ERROR, "numSamples"),
    created("parameters of data", ("data", "parameters"), {"nosuch": 1}, Reason.DATA_ERROR, "nosuch is not known"),
    created("no such file", ("data",), {"name": "npz", "path": "/nosuch"}, Reason.DATA_ERROR, "/nosuch: there is no"),
    created("values without labels", ("data", "partition"), DIRICHLET, Reason.DATA_ERROR, "needs class labels"),
    created("classes of values", ("data", "partition"), {"scheme": "ByLabel"}, Reason.DATA_ERROR, "class labels"),
    created("too many shards", ("data", "partition"), SHARDS, Reason.DATA_ERROR, "shards"),
    created("the largest rate", ("training", "learningRate"), 1_000_000, Reason.UPDATE_REFUSED, "value-out-of-range"),
    created("no GPU to compute on", (*GROUP, "device"), "GPU", Reason.GPU_UNAVAILABLE, "no NVIDIA driver"),
    created("no such trainer", (*GROUP, "trainer"), "nosuch.module:X", Reason.TRAINER_ERROR, "no module nosuch"),
    created("claims of nothing", (*GROUP, "volumeClaimTemplates"), [{}], Reason.POD_REFUSED, "accessModes"),
    created("no such volume", (*STORAGE, "claimName"), "nosuch", Reason.VOLUME_UNAVAILABLE, '"nosuch" not found'),
    # Templates that mislead a program.
    created("its settings", TEMPLATE, variable("FEDJOB_CONFIG", "nonsense"), Reason.INVALID_SPEC, "FEDJOB_CONFIG"),
    created("its token twice", TEMPLATE, variable("FEDJOB_TOKEN", "x"), Reason.INVALID_POD_TEMPLATE, "valueFrom"),
    created("its token", TEMPLATE, token("client"), Reason.WAITING_FOR_CLIENTS, "bad-token"),
    created("its port", TEMPLATE, variable("FEDJOB_PORT", "1"), Reason.WAITING_FOR_CLIENTS, "client 0: starting"),
    created(
        "its probe", TEMPLATE, in_container(readinessProbe=PROBE), Reason.WAITING_FOR_CLIENTS, "client 0: starting"
    ),
    created(
        "the aggregator's token",
        ("aggregator", "template"),
        token("aggregator"),
        Reason.AGGREGATOR_UNREACHABLE,
        "bad-token",
    ),
    created("its index", TEMPLATE, variable("FEDJOB_CLIENT_INDEX", "7"), None),
    # What is odd and does no harm.
    created("pods per round", ("clientPods",), "PerRound", None),
    created("servers", ("serve", "replicas"), 1, None),
    created("clients evaluate", ("evaluation", "modes"), ["Clients"], None),
    created("the smallest volume", (*STORAGE, "size"), "1", None),
    created("one example", ("data", "maxTrainSamples"), 1, None),
    created("the smallest rate", ("training", "learningRate"), 1e-300, None),
    created("the largest batch", ("training", "batchSize"), 10_000_000, None),
)
"""What a job is created with."""

ENDED: Final = (
    Edit(
        path=("activeDeadlineSeconds",),
        value=1,
        says=Reason.ACTIVE_DEADLINE_EXCEEDED,
        words="longer than 1 s",
    ),
)
"""Edits of a job that trains, after which it can never go on."""

CASES: Final = (*RUNNING, *SUSPENDED, *CREATED)
PLAYED: Final = frozenset(edit.path for case in (*RUNNING, *SUSPENDED) for edit in case.edits) | {
    edit.path for edit in ENDED
}
"""Fields that are changed in a job that is there."""
