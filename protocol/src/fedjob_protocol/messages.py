"""Messages of the aggregator's ``/v1`` API; the client's are in `fedjob_protocol.tasks`.

Paths are in `fedjob_protocol.routes`.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from fedjob_protocol.clients import ReplacedClient
from fedjob_protocol.replicas import ReplicationView, ReplicaView, StandbyView
from fedjob_protocol.round import RoundState
from fedjob_protocol.wire import (
    Answer,
    ClientIndex,
    Message,
    Metrics,
    Name,
    RoundNumber,
    Sha256,
    ShortText,
    Xxh3,
)

SCALE_BITS = 30
"""Default fixed-point scale of the fold: a delta is rounded to multiples of 2^-30."""
MAX_LABELS = 100
"""Classes up to which the round log says how many examples of each a client has."""
MAX_PARTICIPANTS = 10_000
"""As many as a job can have clients."""
DEFAULT_MAX_MODEL_BYTES = 8 << 30
"""Largest initial model that an aggregator accepts unless the job says otherwise, in bytes."""


class Weighting(StrEnum):
    """How updates are weighted in the mean."""

    EXAMPLES = "Examples"
    """By the number of training examples behind each update."""
    UNIFORM = "Uniform"
    """Each update counts the same."""


class Strategy(Message):
    """How updates become the next model."""

    name: Name = "FedAvg"
    """A member of `fedjob_protocol.strategies.BUILT_IN_STRATEGIES`, or one that a package in the aggregator offers."""
    parameters: dict[str, Any] = Field(default_factory=dict)


class Base(Message):
    """The committed model that a round starts from: the last one, or after the training diverged the best one."""

    round: RoundNumber
    digest: Sha256


LabelCounts = Annotated[tuple[Annotated[int, Field(ge=0, le=2**53)], ...], Field(max_length=MAX_LABELS)]
"""Training examples of each class, from class 0."""


class Participant(Message):
    """One client that a round may hear from."""

    client: ClientIndex
    name: Name
    max_examples: int | None = Field(default=None, ge=1, le=2**53)
    """The number of training examples that the client announced; an update that claims more is refused."""
    labels: LabelCounts | None = Field(default=None, exclude_if=lambda labels: labels is None)
    """Of a client whose data are a part of one data set: what is in it, for the round log."""


class RoundSpec(Message):
    """Body of ``PUT /v1/rounds/{r}``: opens a round; the same body again changes nothing.

    Round 0 has no base: it is an upload of the initial model by one participant.
    """

    job_uid: Name
    term: int = Field(ge=1)
    """The operator's reign; a higher one wins, a lower one is refused with ``stale-term``."""
    attempt: int = Field(ge=1)
    """One try at this round; a higher one replaces a lower one."""
    redraw: int = Field(default=0, ge=0)
    """Which choice of participants this is."""
    base: Base | None
    participants: Annotated[tuple[Participant, ...], Field(min_length=1, max_length=MAX_PARTICIPANTS)]
    clients_per_round: int = Field(ge=1)
    """The round closes at this many verified reports."""
    min_reports: int = Field(ge=1)
    """At the deadline, or when nobody is left to report, the round commits with at least this many."""
    deadline_seconds: float = Field(gt=0, le=31_536_000)
    """Seconds from the opening of this attempt."""
    encoding: Literal["f32"] = "f32"
    """Updates are deltas in float32, whatever the model's own dtypes are."""
    scale_bits: int = Field(default=SCALE_BITS, ge=0, le=52)
    weighting: Weighting = Weighting.EXAMPLES
    strategy: Strategy = Field(default_factory=Strategy)
    expects_evaluation: bool = False
    """Whether the record stays open for an evaluation after the commit."""
    max_model_bytes: int = Field(default=DEFAULT_MAX_MODEL_BYTES, ge=1)
    """Round 0 only: largest initial model, in bytes."""

    @model_validator(mode="after")
    def _consistent(self) -> "RoundSpec":
        clients = [participant.client for participant in self.participants]
        if len(set(clients)) != len(clients):
            raise ValueError("participants: a client is listed twice")
        if self.min_reports > self.clients_per_round:
            raise ValueError("minReports is more than clientsPerRound")
        if self.clients_per_round > len(clients):
            raise ValueError("clientsPerRound is more than the number of participants")
        return self


class Contribution(Answer):
    """One update that was folded."""

    client: ClientIndex
    name: str
    examples: int
    bytes: int
    """Size of the upload's body."""
    digest: Xxh3
    received_seconds: float
    """Seconds from the opening of the attempt until the upload was verified and folded."""
    transfer_seconds: float
    """Seconds that the upload took to arrive."""
    train_seconds: float | None = None
    """Seconds that the client says it trained."""
    metrics: dict[str, float] = Field(default_factory=dict)
    """Training metrics as the client reported them."""
    epochs: list[dict[str, float]] = Field(default_factory=list)
    """The same after each epoch, with its number as ``epoch``; of many epochs some, evenly, and always the last."""
    labels: LabelCounts | None = Field(default=None, exclude_if=lambda labels: labels is None)
    """Training examples of each class, where one data set is divided among the clients."""
    machine: str | None = Field(default=None, exclude_if=lambda machine: machine is None)
    """What computed it, in the client's words: processor, kernels of the linear algebra, threads. The bits of an update
    depend on it, and with them the model's digest. Clients of a release before do not say it."""


class RefusedUpdate(Answer):
    """One upload that was refused; it is in no sum."""

    client: ClientIndex
    word: str
    """A member of `fedjob_protocol.errors.Word`."""
    detail: str
    bytes: int
    """Bytes that were received before it was refused."""
    attempt: int


class Verdict(StrEnum):
    """What a strategy made of an update that it did not take as it came."""

    REJECTED = "Rejected"
    """Nothing of it is in the model."""
    CLIPPED = "Clipped"
    """It was scaled down to the largest norm that is accepted."""
    OUTLIER = "Outlier"
    """It lies far from the others; the rule bounds its influence element by element."""


class Judgement(Answer):
    """An update that the strategy did not take as it came, and why."""

    client: ClientIndex
    verdict: str
    """A member of `Verdict`; a string here, because a newer peer may know more."""
    evidence: dict[str, float] = Field(default_factory=dict)
    """The numbers that it was judged by, such as ``score`` or ``norm``, and ``limit``: what would have passed."""


class FailedClient(Answer):
    """One participant that definitively failed in this attempt."""

    client: ClientIndex
    reason: str
    """A member of `fedjob_protocol.reasons.Reason`."""
    message: str


class StorageProblem(Answer):
    """Why a checkpoint cannot be written; retried until it can."""

    message: str
    failures: int
    """How often in a row."""


class ClientEvaluation(Answer):
    """What one client measured of a committed model, on held-out examples of its own."""

    client: ClientIndex
    examples: int | None = Field(default=None, ge=0)
    metrics: Metrics = Field(default_factory=dict)
    """Finite ones only."""
    problem: ShortText | None = None
    """Why there are no metrics, or fewer than expected."""


class Spread(Answer):
    """How far the clients' values of one metric lie apart."""

    clients: int
    """How many have a value."""
    mean: float
    """Weighted by examples."""
    deviation: float
    """Standard deviation, weighted likewise."""
    lowest: float
    highest: float


MAX_CLIENT_EVALUATIONS = 1000
"""Most clients whose own metrics are in a record; the spread is of all."""


class Evaluation(Message):
    """Body of ``PUT /v1/rounds/{r}/evaluation``: closes the record; the same body again changes nothing."""

    job_uid: Name
    term: int = Field(ge=1)
    digest: Sha256
    """The model that was evaluated; another one than the committed is refused."""
    metrics: Metrics = Field(default_factory=dict)
    examples: int | None = Field(default=None, ge=0)
    best: bool = False
    """Whether the model is the best so far; its checkpoint is kept."""
    problem: ShortText | None = None
    """Why there are no metrics, or fewer than expected."""
    clients: Annotated[tuple[ClientEvaluation, ...], Field(max_length=MAX_CLIENT_EVALUATIONS)] = ()
    """With evaluation by the clients: what each measured; the first 1,000 of them."""
    spread: Annotated[dict[Annotated[str, Field(max_length=64)], Spread], Field(max_length=64)] = Field(
        default_factory=dict
    )
    """By name of a metric: how far the clients lie apart."""

    @model_serializer(mode="wrap")
    def _lean(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what no client said: an aggregator of the release before knows nothing of it."""
        document: dict[str, Any] = handler(self)
        return {name: value for name, value in document.items() if name not in {"clients", "spread"} or value}


class RoundRecord(Answer):
    """What is remembered of a committed round: a line of the round log."""

    round: RoundNumber
    attempt: int
    redraw: int
    term: int
    parent: Sha256 | None
    """Digest of the model before; ``None`` for round 0."""
    base: Base | None = None
    """The model that it started from, where that is another one: the best, after the training diverged."""
    digest: Sha256
    model_bytes: int
    participants: list[int]
    contributors: list[Contribution]
    refused: list[RefusedUpdate] = Field(default_factory=list)
    failed: list[FailedClient] = Field(default_factory=list)
    judgements: list[Judgement] = Field(default_factory=list)
    """Contributors whose updates the strategy did not take as they came, by client; at most 1,000."""
    examples: int
    """Sum of the examples behind the folded updates."""
    started_at: datetime
    committed_at: datetime
    duration_seconds: float
    """From the opening of the attempt to the durable commit."""
    commit_seconds: float
    """Of which writing the checkpoint."""
    close_reason: str
    """``ClientsPerRound``, ``AllReported`` or ``Deadline``."""
    expects_evaluation: bool
    metrics: dict[str, float] | None = None
    """Evaluation of the committed model; ``None`` when there was none."""
    evaluation_examples: int | None = None
    evaluation_problem: str | None = None
    client_evaluations: list[ClientEvaluation] = Field(default_factory=list)
    """What clients measured of the committed model, each on its own held-out examples; the first 1,000 of them."""
    spread: dict[str, Spread] = Field(default_factory=dict)
    """By name of a metric: how far the clients lie apart."""
    best: bool = False
    fingerprint: dict[str, str] = Field(default_factory=dict)
    """Versions of the aggregator that the bits of the result may depend on; see also ``machine`` of a contribution."""


class RoundView(Answer):
    """Answer of ``PUT`` and ``GET /v1/rounds/{r}``: where a round is."""

    round: RoundNumber
    state: RoundState
    term: int
    attempt: int
    boot_id: str
    """Identity of this run of the aggregator; uploads have to carry it."""
    reported: list[int] = Field(default_factory=list)
    """Clients whose updates are folded."""
    failed: list[FailedClient] = Field(default_factory=list)
    refused: list[RefusedUpdate] = Field(default_factory=list)
    """At most the last 100."""
    seconds_left: float | None = None
    """Until the deadline, while open."""
    storage: StorageProblem | None = None
    record: RoundRecord | None = None
    """Once committed."""
    replaced: list[ReplacedClient] = Field(default_factory=list)
    """Clients that somebody had replaced, by index; an aggregator of an older release lists none."""
    replication: ReplicationView | None = None
    """While its commit, or its evaluation, waits for standbys."""
    standbys: list[StandbyView] = Field(default_factory=list)
    """Of an aggregator with standbys: how far they are."""


class FailureReport(Message):
    """Body of ``PUT /v1/rounds/{r}/failures/{client}``: this participant will not report in this attempt."""

    job_uid: Name
    term: int = Field(ge=1)
    attempt: int = Field(ge=1)
    boot_id: Name
    reason: Annotated[str, Field(max_length=128)]
    """A member of `fedjob_protocol.reasons.Reason`."""
    message: ShortText


class TensorInfo(Answer):
    """Name, dtype and shape of one tensor of the model."""

    name: str
    dtype: str
    """As in safetensors: ``F32`` or ``F64``."""
    shape: list[int]


class CheckpointInfo(Answer):
    """A committed model."""

    round: RoundNumber
    digest: Sha256
    parent: Sha256 | None
    bytes: int


class AggregatorState(Answer):
    """Answer of ``GET /v1/state``."""

    protocol: int
    version: str
    job_uid: str | None
    """``None`` until a job's first round was opened here."""
    term: int
    boot_id: str
    committed: CheckpointInfo | None
    """The last committed model; ``None`` before round 0."""
    previous: CheckpointInfo | None = None
    best: CheckpointInfo | None = None
    tensors: list[TensorInfo] | None = None
    current: RoundView | None = None
    """The round that was opened or committed last."""
    replica: ReplicaView | None = None
    """Of one of several aggregators: its role. ``committed`` of a standby is what it holds."""


class RoundLog(Answer):
    """Answer of ``GET /v1/rounds?since=``: records of rounds, oldest first."""

    rounds: list[RoundRecord]
    more: bool
    """Whether there are further ones; ask again with ``since`` = the last one's round + 1."""


class Announcement(Answer):
    """The line of JSON that a program prints on standard output once it serves: how a parent learns its address."""

    event: Literal["listening"] = "listening"
    program: str
    url: str
    boot_id: str
    pid: int
