"""What was seen of the world: frozen views, made by the adapters and read by the decision.

A pod here is whatever runs a program: a Kubernetes pod, or a process of ``fedjob run``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from fedjob_operator.api.v1alpha1 import Origin
from fedjob_protocol.clients import RegisteredClient
from fedjob_protocol.messages import AggregatorState, RoundView
from fedjob_protocol.reasons import Reason
from fedjob_protocol.tasks import ClientInfo, EvaluationView


class PodRole(StrEnum):
    """What a pod is for."""

    AGGREGATOR = "aggregator"
    CLIENT = "client"
    EVALUATOR = "evaluator"


class PodPhase(StrEnum):
    """Where a pod is in its life."""

    STARTING = "Starting"
    READY = "Ready"
    STOPPING = "Stopping"
    """Somebody asked it to end; its successor is not made before it is gone."""
    EXITED = "Exited"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """Why a pod ended."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Why a pod does not become ready."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PodView:
    """One pod."""

    role: PodRole
    index: int
    """Index of the client or of the aggregator; 0 for the evaluator."""
    ordinal: int
    """How many pods came before it in the same place; part of its name, so that creating it twice is harmless."""
    incarnation: str
    """Identity of the running program: another value means that whatever it held in memory is gone."""
    phase: PodPhase
    since: datetime
    """When it entered its phase."""
    url: str | None = None
    """Where it answers, once ready."""
    exit: Exit | None = None
    """Once exited; of a program that is started again in its place, why it ended the last time."""
    waiting: Waiting | None = None
    """While starting, when something holds it up."""
    silent_since: datetime | None = None
    """While stopping: when it should have ended, if it is reported not ready, and not that it ended."""
    is_kept: bool = False
    """While stopping: whether nothing of it runs any more, and a finalizer of somebody keeps its object."""
    cohort: int | None = None
    """Of a pod that a queue admits together with others: which start of them it belongs to."""
    gpus_held: int = 0
    """GPUs that are taken for it, from the moment it has a node."""
    boot_id: str | None = None
    """Of a client that registered itself: the identity that it gave; it is called with a token made from that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodCheck:
    """What the cluster said of the pods that a spec yields, asked without making them."""

    generation: int
    """Of the spec that was asked about."""
    problem: str | None = None
    """Why a pod would be refused, in the cluster's words and with the part of the spec; ``None`` is fine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginSeen:
    """What was found of another job's checkpoint that this job begins with."""

    attempt: int
    """Of round 0, for which it was looked for."""
    origin: Origin | None = None
    """The checkpoint; ``None`` while there is none, or for good."""
    message: str = ""
    """Why there is none."""
    is_final: bool = False
    """Whether there will never be one."""
    url: str | None = None
    """Where the other job's aggregator answers."""
    permit: str | None = field(default=None, repr=False)
    """What lets this one model be read there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServersSeen:
    """How many servers of its model a complete job was last seen to ask for."""

    replicas: int
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskAck:
    """A client accepted a task; dropped from memory at a restart of the operator, which then posts the task again."""

    incarnation: str
    round: int
    term: int
    attempt: int
    boot_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaSeen:
    """What one aggregator said."""

    state: AggregatorState
    round: RoundView | None = None
    """The newest view of a round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The last call of one kind failed; the performer holds back further ones until its own back-off has passed."""

    word: str | None
    """The machine word of the answer, a member of `fedjob_protocol.errors.Word`; ``None`` when there was no answer."""
    message: str
    since: datetime
    """When the first of the failures in a row was seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Everything the decision may look at besides the resource itself."""

    pods: tuple[PodView, ...] = ()
    state: AggregatorState | None = None
    """Of the aggregator that runs now; ``None`` until it was read."""
    round: RoundView | None = None
    """The newest view of a round from the aggregator that runs now."""
    replicas: Mapping[str, ReplicaSeen] = field(default_factory=dict)
    """By incarnation of an aggregator: of one that has standbys, what it and each of them said."""
    infos: Mapping[str, ClientInfo] = field(default_factory=dict)
    """By incarnation of a client or evaluator."""
    acks: Mapping[int, TaskAck] = field(default_factory=dict)
    """By client index: the last task that it accepted."""
    evaluation: EvaluationView | None = None
    """The newest answer of the evaluator."""
    client_evaluations: Mapping[int, EvaluationView] = field(default_factory=dict)
    """By client index: its newest answer."""
    pod_check: PodCheck | None = None
    """The newest answer to `CheckPods`."""
    origin: OriginSeen | None = None
    """The newest answer to `FindOrigin`."""
    servers: ServersSeen | None = None
    """The newest answer to `ServeModel`."""
    registered: Mapping[int, RegisteredClient] | None = None
    """By client index: who registered itself; ``None`` until the aggregator was asked."""
    configured: frozenset[str] = frozenset()
    """Incarnations of such clients that were told their job."""
    turned_away: frozenset[str] = frozenset()
    """Incarnations of such clients that were told that the job is over, or goes on without them."""
    replaced: Mapping[int, int] = field(default_factory=dict)
    """By client index: how often somebody wants it to have been replaced."""
    failures: Mapping[str, Failure] = field(default_factory=dict)
    """By `Action.key` of calls whose last try failed."""
