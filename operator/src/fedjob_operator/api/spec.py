"""The spec of a FederatedJob: what people write. Section by section in the order of a manifest.

Each docstring below a field is its description in the reference and in the CRD. Rules between fields are in
`fedjob_operator.api.rules`; what an absent field means, where it depends on others, in `fedjob_operator.api.resolve`.
"""

from typing import Annotated

from pydantic import Field

from fedjob_operator.api.base import (
    MAX_GROUPS,
    Bool,
    Counter,
    CountOrPercent,
    CountOrPercentOrZero,
    FreeForm,
    Label,
    NumClients,
    NumRounds,
    ObjectName,
    Quantity,
    Seconds,
    SecondsOrZero,
    SomeClients,
    SpecModel,
    Text,
    TrainerName,
    Whole,
)
from fedjob_operator.api.enums import (
    Ack,
    ClientPods,
    Device,
    EvaluationMode,
    LateJoiners,
    OnQuorumLoss,
    WhenDeleted,
)
from fedjob_operator.api.learning import (
    DataOverride,
    DataSpec,
    ModelSpec,
    Objective,
    Stop,
    Strategy,
    Training,
)


class RoundPolicy(SpecModel):
    """Who takes part in a round, and when a round is good enough."""

    clients_per_round: CountOrPercent | None = None
    """Reports that close a round: a count, or a percentage of all clients, rounded up. Immutable. Default: all."""
    over_select: CountOrPercentOrZero = 0
    """Clients asked beyond clientsPerRound, in case some are slow: a count, or a percentage of clientsPerRound,
    rounded up. Immutable. Default 0."""
    min_reports: SomeClients | None = None
    """Reports with which a round is committed at its deadline. Immutable. Default: clientsPerRound."""
    deadline_seconds: Seconds = 3600
    """Time limit of one attempt at a round, in seconds from the moment its participants are ready. May be changed.
    Default 3600."""
    max_attempts: Annotated[int, Whole(1, 1000)] = 3
    """Attempts at one round, each with a new choice of participants, before onQuorumLoss. Immutable. Default 3."""
    on_quorum_loss: OnQuorumLoss = OnQuorumLoss.WAIT
    """After maxAttempts: Wait (until enough clients are back) or Fail. Immutable. Default Wait."""


class SecretRef(SpecModel):
    """A Secret in the same namespace."""

    name: ObjectName
    """Name of the Secret."""


class External(SpecModel):
    """Clients outside the cluster, which register themselves."""

    min_clients: SomeClients = 1
    """Clients of this group that must have registered; the group counts as this many. Default 1."""
    token_secret_ref: SecretRef | None = None
    """Secret with the token (key `token`) that these clients show. Default: the job's own token."""


class ClientGroup(SpecModel):
    """Clients that are alike. Groups and their order are immutable."""

    name: Label
    """Name of the group, unique in the job. Immutable."""
    replicas: NumClients | None = None
    """Number of clients. May be changed, up to maxReplicas. Needed unless `external` is given."""
    max_replicas: SomeClients | None = None
    """Most clients that the group will ever have: data are partitioned for this many. Immutable.
    Default: the first value of replicas."""
    image: Text | None = Field(default=None, min_length=1)
    """Container image of the clients. May be changed while the job is suspended. Default: the chart's."""
    trainer: TrainerName | None = None
    """Your own trainer as `package.module:Class`. Immutable. Default: the built-in one for `spec.model.name`."""
    device: Device = Device.AUTO
    """Where the clients compute: Auto (a GPU where there is one), CPU or GPU. Immutable. Default Auto."""
    gpus: Annotated[int, Whole(0, 64)] = 0
    """GPUs of each client: short for a limit of nvidia.com/gpu. May be changed while the job is suspended.
    Default 0."""
    backoff_limit: Annotated[int, Whole(0, 1000)] = 3
    """Pods replaced for one client before it counts as lost; with clientPods PerRound, in one of its turns. Immutable.
    Default 3."""
    data: DataOverride | None = None
    """Data of this group. Immutable. Default: `spec.data`."""
    volume_claim_templates: tuple[FreeForm, ...] = Field(default=(), max_length=8)
    """PersistentVolumeClaims made for each client and kept over its restarts. Immutable. Default: none."""
    template: FreeForm | None = None
    """PodTemplateSpec merged strategically over ours; the container is called `client`. May be changed while the job
    is suspended. Default: nothing."""
    external: External | None = None
    """Clients that register themselves, instead of replicas. Immutable. Default: none."""


class Replication(SpecModel):
    """How committed checkpoints reach the standbys."""

    ack: Ack = Ack.MAJORITY
    """Who must hold a checkpoint before its round is committed: Majority (of the replicas) or None (the leader
    alone). Default Majority."""


class RetentionPolicy(SpecModel):
    """What becomes of the checkpoints."""

    when_deleted: WhenDeleted = WhenDeleted.RETAIN
    """What happens to the volume when the job is deleted: Retain or Delete. Default Retain."""


class Storage(SpecModel):
    """The volume of the checkpoints."""

    size: Quantity = "1Gi"
    """Size of the volume that is made for each aggregator. Default 1Gi."""
    storage_class_name: ObjectName | None = None
    """Class of the volume. Default: the cluster's."""
    claim_name: ObjectName | None = None
    """A PersistentVolumeClaim that is there already, instead of a new one. Default: none."""
    retention_policy: RetentionPolicy = RetentionPolicy()
    """What becomes of the volume. Default: it stays."""


class Aggregator(SpecModel):
    """The program that adds the updates up and keeps the model. Immutable but for the template."""

    replicas: Annotated[int, Whole(1, 7)] = 1
    """Aggregators: one leads, the others are standbys. Default 1."""
    replication: Replication = Replication()
    """How checkpoints reach the standbys. Default: a majority must hold them."""
    storage: Storage = Storage()
    """The volume of the checkpoints. Default: 1Gi, kept when the job is deleted."""
    template: FreeForm | None = None
    """PodTemplateSpec merged strategically over ours; the container is called `aggregator`. May be changed while the
    job is suspended. Default: nothing."""


class Evaluation(SpecModel):
    """Who evaluates committed models, when, and on what. Immutable but for deadline, GPUs and template."""

    period_rounds: NumRounds = 1
    """Evaluate after every n-th round, and after the last. Default 1."""
    modes: tuple[EvaluationMode, ...] = Field(default=(EvaluationMode.EVALUATOR,), max_length=2)
    """Evaluator (a client program with held-out data and no training), Clients (each on its own held-out data;
    means are weighted by examples, and with both they are called `clients/accuracy`), both, or an empty list for no
    evaluation. Default Evaluator."""
    deadline_seconds: Seconds = 600
    """Time limit of one evaluation, in seconds; after it training goes on, unless `stop` needs the result. May be
    changed. Default 600."""
    data: DataOverride | None = None
    """Data of the evaluator. Default: the held-out part of `spec.data`."""
    gpus: Annotated[int, Whole(0, 64)] = 0
    """GPUs of the evaluator. May be changed while the job is suspended. Default 0."""
    template: FreeForm | None = None
    """PodTemplateSpec of the evaluator, merged strategically over ours. May be changed while the job is suspended.
    Default: nothing."""


class Serve(SpecModel):
    """Serving the model once the job is complete. May be changed."""

    replicas: Annotated[int, Whole(0, 100)] = 0
    """Servers of `/predict` once the job is complete. Default 0, none."""


class FederatedJobSpec(SpecModel):
    """What the job shall do."""

    rounds: NumRounds
    """Rounds to train. May be changed until the job is complete, not below the rounds that are committed."""
    seed: Counter = 0
    """Seed of everything that is drawn: initial model, partition, selection, training. Immutable. Default 0."""
    model: ModelSpec
    """The model that is trained. Immutable."""
    data: DataSpec | None = None
    """The data that clients train on. Needed unless each group names its data or brings its trainer. Immutable."""
    training: Training = Training()
    """What a client does in one round. Immutable. Default: one epoch of SGD."""
    strategy: Strategy = Strategy()
    """How updates become the next model. Immutable. Default FedAvg."""
    round_policy: RoundPolicy = RoundPolicy()
    """Who takes part in a round, and when it is good enough. Immutable but for the deadline. Default: all clients,
    and all must report."""
    min_clients: SomeClients | None = None
    """Clients that must be ready to start; with fewer, training waits until clients return. With clientPods PerRound:
    clients that must not be lost. Immutable. Default: clientsPerRound."""
    join_wait_seconds: SecondsOrZero = 60
    """With minClients ready, how long to wait for the others, in seconds from the first ready one; with clientPods
    PerRound nobody is waited for. Immutable. Default 60."""
    late_joiners: LateJoiners = LateJoiners.ACCEPT
    """Clients that become ready only after the start: Accept, or Refuse, which gives their pods back and never selects
    them. Immutable. Default Accept."""
    startup_deadline_seconds: Seconds = 900
    """Not started by then, in seconds: pods and GPUs are released and tried again after 1, 2, 4 … at most 30 minutes.
    May be changed. Default 900."""
    client_pods: ClientPods = ClientPods.PER_JOB
    """PerJob (pods stay for the whole job) or PerRound (pods, and their GPUs, exist only while selected: a client's
    goes once its update is verified, and one that waits for room gets its place). Immutable. Default PerJob."""
    client_groups: tuple[ClientGroup, ...] = Field(min_length=1, max_length=MAX_GROUPS)
    """The clients, in groups that are alike. Groups and their order are immutable."""
    aggregator: Aggregator = Aggregator()
    """The program that keeps the model. Immutable but for its template. Default: one, with 1Gi of storage."""
    evaluation: Evaluation = Evaluation()
    """Who evaluates committed models. Immutable but for deadline, GPUs and template. Default: an evaluator after every
    round."""
    objective: Objective | None = None
    """What the job is after; decides which model is the best, which a round begins from once when the training
    diverges. Immutable. Default: the newest model counts, and nothing is done about divergence."""
    stop: Stop | None = None
    """When to stop before the last round; needs an objective. May be changed. Default: after the last round."""
    suspend: Bool = False
    """Release all pods, and their GPUs, at once until this is false again. A round that is not committed by then is
    tried again with the same participants; checkpoints stay on the aggregator's volume. May be changed. Default
    false."""
    active_deadline_seconds: Seconds | None = None
    """Time limit of the whole job, in seconds from the opening of the first round, those of being suspended not
    counted; then it fails. Waiting for a start is limited by startupDeadlineSeconds. May be changed. Default: none."""
    ttl_seconds_after_finished: SecondsOrZero | None = None
    """Delete the job this many seconds after it has finished. May be changed. Default: never."""
    serve: Serve = Serve()
    """Serving the model once the job is complete. May be changed. Default: no server."""
