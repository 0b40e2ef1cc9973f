"""Messages of the client's ``/v1`` API: what it is asked to do, and what it says of itself."""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from fedjob_protocol.messages import DEFAULT_MAX_MODEL_BYTES, Base, LabelCounts
from fedjob_protocol.wire import Answer, Message, Name, RoundNumber, Sha256, Url


class OptimizerConfig(Message):
    """The client's optimizer."""

    name: Name = "SGD"
    parameters: dict[str, float] = Field(default_factory=dict)


class TrainingConfig(Message):
    """Hyperparameters of one local training; part of the identity of the work."""

    epochs: int = Field(default=1, ge=1, le=1_000_000)
    batch_size: int = Field(default=32, ge=1, le=10_000_000)
    learning_rate: float = Field(default=0.1, gt=0, le=1e6)
    """With the schedule already applied."""
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    proximal_mu: float = Field(default=0.0, ge=0, le=1e6, exclude_if=lambda mu: mu == 0)
    """Weight of FedProx's proximal term; absent for all other strategies."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """For trainers of the user's own."""
    seed: int = Field(ge=0, le=2**63 - 1)
    """Of (job's seed, round, client): never of attempt or process."""


class Destination(Message):
    """Where the result of a task goes; a new one never makes a client train again."""

    term: int = Field(ge=1)
    attempt: int = Field(ge=1)
    boot_id: Name
    """The aggregator's."""
    upload_url: Url
    failure_url: Url
    deadline_seconds: float = Field(gt=0, le=31_536_000)
    """Seconds from now until the upload has to be accepted."""


class TrainTask(Message):
    """Body of ``POST /v1/rounds/{r}/train``. Work identity: (job uid, round, base digest, config digest)."""

    job_uid: Name
    base: Base
    config: TrainingConfig
    model_url: Url
    max_model_bytes: int = Field(default=DEFAULT_MAX_MODEL_BYTES, ge=1)
    destination: Destination


class InitTask(Message):
    """Body of ``POST /v1/init``: make the initial model and upload it as round 0."""

    job_uid: Name
    seed: int = Field(ge=0, le=2**63 - 1)
    destination: Destination


class ModelOrigin(Message):
    """A committed model of another job, which this job begins with."""

    round: RoundNumber
    """The other job's round that committed it."""
    digest: Sha256
    model_url: Url
    permit: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[\x21-\x7e]+$")]
    """Shown in the place of a token: it lets this one model be read; see `fedjob_protocol.permits`."""
    max_model_bytes: int = Field(default=DEFAULT_MAX_MODEL_BYTES, ge=1)


class WarmInitTask(InitTask):
    """Body of ``POST /v1/init`` of a job that begins with another job's model: fetch it and upload it as round 0."""

    origin: ModelOrigin


class TaskState(StrEnum):
    """Where a client's task is."""

    FETCHING = "Fetching"
    TRAINING = "Training"
    UPLOADING = "Uploading"
    REPORTED = "Reported"
    """The aggregator accepted the update."""
    FAILED = "Failed"
    CANCELLED = "Cancelled"


class TaskView(Answer):
    """Answer of ``POST …/train``, ``POST /v1/init`` and ``GET /v1/rounds/{r}`` on a client."""

    round: RoundNumber
    state: TaskState
    term: int
    attempt: int
    epoch: int = 0
    epochs: int = 0
    metrics: dict[str, float] = Field(default_factory=dict)
    """Of the last finished epoch."""
    reason: str | None = None
    message: str | None = None
    trainings: int = 0
    """How often this process trained for this work identity: 0 or 1."""
    transfers_repeated: int = 0
    """How often the model was fetched or the update was sent again."""


class EvaluateTask(Message):
    """Body of ``POST /v1/evaluate?wait=``: evaluate a committed model. Identity: (job uid, base)."""

    job_uid: Name
    base: Base
    model_url: Url
    max_model_bytes: int = Field(default=DEFAULT_MAX_MODEL_BYTES, ge=1)
    parameters: dict[str, Any] = Field(default_factory=dict)


class EvaluationState(StrEnum):
    """Where an evaluation is."""

    RUNNING = "Running"
    DONE = "Done"
    FAILED = "Failed"


NON_FINITE_METRICS = "left out because they are not finite: "
"""How `EvaluationView.message`, and with it `RoundRecord.evaluation_problem`, begins where metrics were left out; their
names follow, with commas between them."""


class EvaluationView(Answer):
    """Answer of ``POST /v1/evaluate``; posting the same task again reads it."""

    base: Base
    state: EvaluationState
    metrics: dict[str, float] = Field(default_factory=dict)
    """Finite ones only."""
    examples: int | None = None
    seconds: float | None = None
    reason: str | None = None
    message: str | None = None
    """What went wrong, or which metrics were left out because they are not finite."""


class ClientInfo(Answer):
    """Answer of ``GET /v1/info``."""

    protocol: int
    version: str
    job_uid: str | None
    role: str
    index: int
    name: str
    group: str
    boot_id: str
    """Identity of this run of the client."""
    backend: Literal["cpu", "gpu"]
    examples: int | None = None
    """Training examples that the client holds; it never claims more."""
    test_examples: int | None = None
    labels: LabelCounts | None = None
    """Training examples of each class, where one data set is divided; nothing is told of data of the client's own."""
    fingerprint: dict[str, str] = Field(default_factory=dict)
