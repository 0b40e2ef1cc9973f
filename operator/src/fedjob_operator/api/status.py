"""The status of a FederatedJob: what the operator, or `fedjob run`, has seen and decided.

Written by programs only. Models are frozen; a change is `status.model_copy(update={…})` with snake_case names, which
copies one dict and validates nothing, so give tuples for lists and times in UTC.
"""

from typing import Annotated

from pydantic import Field

from fedjob_operator.api.base import (
    MAX_CLIENTS,
    MAX_GROUPS,
    MAX_ROUNDS,
    Amount,
    Counter,
    Digest,
    Index,
    Label,
    MetricName,
    Number,
    NumClients,
    Path,
    RoundNumber,
    StatusModel,
    Text,
    Time,
    Whole,
    Word,
)
from fedjob_operator.api.enums import ConditionStatus, Phase, RoundState

MAX_RECENT_ROUNDS = 10
"""Rows of `status.recentRounds`; the aggregator's round log has all rounds."""
MAX_CONTRIBUTORS = 1000
"""Most contributors named in one row of `status.recentRounds`, so that the object stays small."""
MAX_JUDGEMENTS = 10
"""Most judgements of the strategy in one row of `status.recentRounds`."""
MAX_METRICS = 64
"""Most metrics of one round."""


class Metric(StatusModel):
    """One metric of a model."""

    name: MetricName
    """Name, such as accuracy."""
    value: Number
    """Value; one that is not finite is left out of the status."""


class Rounds(StatusModel):
    """Progress in rounds."""

    committed: Annotated[int, Whole(-1, MAX_ROUNDS)] = -1
    """Number of the last committed round; 0 is the initial model, -1 means that there is none yet."""
    total: RoundNumber = 0
    """Rounds to train, from the spec."""


class CurrentRound(StatusModel):
    """The round in progress: written before any call that has an effect, and followed after a crash."""

    number: RoundNumber
    """Number of the round."""
    attempt: Amount = 1
    """Which try at this round; goes up when the aggregator has restarted, or the participants are drawn anew."""
    redraw: Counter = 0
    """Which choice of participants for this round."""
    state: RoundState = RoundState.PROVISIONING
    """Provisioning (participants are made ready), Open (they train) or Evaluating."""
    selected: tuple[Index, ...] = Field(default=(), max_length=MAX_CLIENTS)
    """Indices of the participants, in the order of their rank."""
    boot_id: Text | None = None
    """Boot of the aggregator that this attempt counts on; another one means a new attempt."""
    started_at: Time | None = None
    """When this attempt was begun."""
    deadline: Time | None = None
    """When this attempt is closed; unset while participants are made ready."""
    reported: NumClients = 0
    """Verified reports so far."""


class JudgedClient(StatusModel):
    """A client whose update the strategy did not take as it came."""

    client: Index
    """Index of the client."""
    verdict: Text
    """Rejected (nothing of it is in the model), Clipped (it was scaled down) or Outlier (it is far from the others)."""
    evidence: Text = ""
    """The numbers that it was judged by, such as "score 3.21, limit 0.42"."""


class RecentRound(StatusModel):
    """One committed round."""

    number: RoundNumber
    """Number of the round."""
    digest: Digest
    """Digest of the checkpoint."""
    attempt: Amount = 1
    """The attempt that was committed."""
    redraw: Counter = 0
    """The choice of participants that was committed."""
    reported: NumClients = 0
    """Updates that the model was made of."""
    contributors: tuple[Index, ...] = Field(default=(), max_length=MAX_CONTRIBUTORS)
    """Indices of the clients whose updates the model was made of, ascending; the first 1,000 of them. Those that the
    strategy rejected are among them."""
    refused: NumClients = 0
    """Updates that were refused."""
    failed: NumClients = 0
    """Participants that failed."""
    judged: NumClients = 0
    """Updates that the strategy did not take as they came."""
    judgements: tuple[JudgedClient, ...] = Field(default=(), max_length=MAX_JUDGEMENTS)
    """The first 10 of them; all are in the aggregator's round log."""
    examples: Counter = 0
    """Training examples behind the updates."""
    committed_at: Time | None = None
    """When the round was committed."""
    duration_seconds: Number | None = Field(default=None, ge=0)
    """Seconds from the opening of the committed attempt to its commit."""
    metrics: tuple[Metric, ...] = Field(default=(), max_length=MAX_METRICS)
    """Metrics of the committed model; empty until it is evaluated."""
    evaluation_problem: Text | None = None
    """Why the model has no metrics, or fewer than expected."""


class ReplacedClient(StatusModel):
    """A client that somebody had replaced by `DELETE /v1/clients/{client}`."""

    index: Index
    """Index of the client."""
    generation: Counter
    """How often it was replaced."""
    first_ordinal: Counter
    """Ordinal, the last number of its name, of the first pod that counts; earlier ones are gone for good."""


class Clients(StatusModel):
    """The clients in numbers."""

    desired: NumClients = 0
    """Clients declared in the spec."""
    ready: NumClients = 0
    """Clients that answer and are ready to train."""
    lost: NumClients = 0
    """Clients given up after backoffLimit pods."""
    lost_indices: tuple[Index, ...] = Field(default=(), max_length=MAX_CLIENTS)
    """Indices of the lost clients, ascending; they are not selected."""
    late_indices: tuple[Index, ...] = Field(default=(), max_length=MAX_CLIENTS)
    """With lateJoiners Refuse: indices of the clients that were not ready at the start, ascending; they have no pods
    and are not selected."""
    replaced: tuple[ReplacedClient, ...] = Field(default=(), max_length=MAX_CLIENTS)
    """Clients that somebody had replaced, by index."""


class LayoutEntry(StatusModel):
    """The client indices of one group, fixed when the job is accepted."""

    group: Label
    """Name of the group."""
    first: Index
    """Index of its first client."""
    count: NumClients
    """Indices kept for the group."""


class Startup(StatusModel):
    """The try at starting the job that is under way, until its first round is opened."""

    attempt: Amount = 1
    """Which try it is."""
    began_at: Time
    """When it began; startupDeadlineSeconds run from here."""
    retry_at: Time | None = None
    """When the next try begins; set while the pods of one that took too long are released."""


class Gpus(StatusModel):
    """GPUs in numbers."""

    requested: Counter = 0
    """GPUs asked for; with clientPods PerRound, for those whose turn it is."""
    held: Counter = 0
    """GPUs of scheduled pods."""
    waiting: Counter = 0
    """GPUs of pods that wait for a node."""


class Summary(StatusModel):
    """Text for the columns of `kubectl get`."""

    rounds: Text = ""
    """Committed and all rounds, such as 4/10."""
    clients: Text = ""
    """Ready and desired clients, such as 20/20."""
    metric: Text = ""
    """The objective's metric, such as accuracy 0.9120."""
    gpus: Text = ""
    """Held and requested GPUs, such as 20/20."""


class BestModel(StatusModel):
    """The best model so far, by the objective."""

    round: RoundNumber
    """Round that made it."""
    value: Number
    """Value of the objective's metric."""
    digest: Digest
    """Digest of its checkpoint."""


class CommittedModel(StatusModel):
    """The newest committed model."""

    round: RoundNumber
    """Round that made it."""
    digest: Digest
    """Digest of its checkpoint."""
    path: Path | None = None
    """File of the checkpoint, on the aggregator's volume or in the folder of `fedjob run`."""


class Origin(StatusModel):
    """The checkpoint of another job that this one begins with: written before anything is made of it."""

    job: Label
    """Name of the other job."""
    uid: Text
    """Unique id of the other job: one that is made anew under its name is not taken for it."""
    round: RoundNumber
    """The other job's round that committed the model."""
    digest: Digest
    """Digest of the checkpoint."""
    path: Path | None = None
    """File of the checkpoint, where it is on the same machine; else it is fetched from the other job's aggregator."""


class Recovery(StatusModel):
    """The round that began from the best model after the training diverged; there is at most one."""

    round: RoundNumber
    """Number of the round."""
    base: CommittedModel
    """The model that it began from."""
    learning_rate_factor: Number = 0.5
    """What `training.learningRate` is multiplied by from this round on."""


class Divergence(StatusModel):
    """How far the loss of the last models is from the lowest one; kept where the job has an objective."""

    lowest_loss: Number | None = None
    """The lowest loss so far."""
    rounds: NumClients = 0
    """Evaluated models in a row whose loss is over ten times the lowest; one that is not finite counts three."""
    recovery: Recovery | None = None
    """The round that began from the best model, if there was one."""


class Serving(StatusModel):
    """The servers of ``/predict`` of a complete job."""

    replicas: Annotated[int, Whole(0, 100)]
    """Servers that are wanted."""
    service: Text
    """Name of the Service that they answer at, and of their Deployment."""
    model: CommittedModel
    """The model that they serve: the best, or without an objective the newest."""


class StandbyStatus(StatusModel):
    """One standby, as the leader sees it."""

    name: Text
    """Its place, such as aggregator-1."""
    committed: Annotated[int, Whole(-1, MAX_ROUNDS)] = -1
    """The newest round that it holds; -1 if there is none."""
    silent_since: Time | None = None
    """When it was heard of last; unset while it is heard of."""


class AggregatorStatus(StatusModel):
    """The aggregators."""

    leader: Text | None = None
    """Name of the pod of the aggregator that leads."""
    uid: Text | None = None
    """Identity of the leader's running program."""
    boot_id: Text | None = None
    """With standbys: the run of the leader's program that was chosen to lead in this term; unset while none is."""
    replicas: Annotated[int, Whole(0, 7)] = 0
    """Aggregators that are ready."""
    standbys: tuple[StandbyStatus, ...] = Field(default=(), max_length=6)
    """The standbys, as the leader sees them."""


class Images(StatusModel):
    """Images pinned for the life of the job."""

    client: Text | None = None
    """Default image of the clients."""
    aggregator: Text | None = None
    """Image of the aggregator."""


class Condition(StatusModel):
    """One aspect of the job's state, as in metav1.Condition."""

    type: Word
    """Accepted, ClientsReady, AggregatorReady, Progressing, Suspended, Complete or Failed."""
    status: ConditionStatus
    """True, False or Unknown."""
    reason: Text
    """Why, in one CamelCase word."""
    message: str = Field(default="", max_length=32_768)
    """Why, for people."""
    observed_generation: Counter | None = None
    """metadata.generation that this condition was set for."""
    last_transition_time: Time
    """When the status of this condition changed last."""


class FederatedJobStatus(StatusModel):
    """What has been seen and decided."""

    observed_generation: Counter | None = None
    """metadata.generation that this status is about."""
    phase: Phase = Phase.PENDING
    """State in one word, derived from the conditions, for people."""
    reason: Text | None = None
    """Reason of the condition that matters now."""
    message: str | None = Field(default=None, max_length=32_768)
    """Message of the condition that matters now."""
    term: Counter = 0
    """Reign of the operator that wrote this; goes up with every claim."""
    rounds: Rounds = Rounds()
    """Progress in rounds."""
    current_round: CurrentRound | None = None
    """The round in progress."""
    failed_attempts: Counter = 0
    """Attempts at the current round that were abandoned below minReports; compared with maxAttempts."""
    clients: Clients = Clients()
    """The clients in numbers."""
    layout: tuple[LayoutEntry, ...] = Field(default=(), max_length=MAX_GROUPS)
    """Client indices of each group, fixed when the job is accepted."""
    startup: Startup | None = None
    """The try at starting that is under way; unset once the first round was opened."""
    gpus: Gpus | None = None
    """GPUs in numbers; unset where none are asked for."""
    summary: Summary | None = None
    """Text for the columns of `kubectl get`."""
    metrics: tuple[Metric, ...] = Field(default=(), max_length=MAX_METRICS)
    """Metrics of the newest evaluated model."""
    recent_rounds: tuple[RecentRound, ...] = Field(default=(), max_length=MAX_RECENT_ROUNDS)
    """The last 10 committed rounds, oldest first; the aggregator's round log has all of them."""
    best: BestModel | None = None
    """The best model so far, by the objective."""
    last_improvement: BestModel | None = None
    """The last model that improved by more than stop.minDelta; stop.patienceRounds counts from it."""
    divergence: Divergence | None = None
    """Whether the training diverges; unset while nothing was evaluated."""
    model: CommittedModel | None = None
    """The newest committed model."""
    origin: Origin | None = None
    """With `model.initFrom.federatedJob`: the checkpoint of the other job that this one begins with."""
    serving: Serving | None = None
    """The servers of ``/predict``; unset where none were asked for."""
    aggregator: AggregatorStatus | None = None
    """The aggregators."""
    images: Images | None = None
    """Images pinned for the life of the job."""
    conditions: tuple[Condition, ...] = Field(default=(), max_length=16)
    """Conditions, one per type."""
    start_time: Time | None = None
    """When the first round was opened."""
    suspended_seconds: Counter = 0
    """Seconds for which the job was suspended since its start; activeDeadlineSeconds do not run in them."""
    completion_time: Time | None = None
    """When the job became Complete or Failed."""

    def condition(self, kind: str) -> Condition | None:
        """Return the condition of a type, or None where there is none."""
        return next((item for item in self.conditions if item.type == kind), None)

    def holds(self, kind: str) -> bool:
        """Whether the condition of a type is there and True."""
        found = self.condition(kind)
        return found is not None and found.status is ConditionStatus.TRUE
