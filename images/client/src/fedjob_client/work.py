"""What the client's task machine talks about: work, destinations, events that come in, commands that go out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from fedjob_protocol.reasons import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkId:
    """The identity of a piece of work: everything that its result depends on."""

    job_uid: str
    round: int
    base_digest: str | None
    """Digest of the model to train; in round 0 of the other job's model to begin with, or ``None``."""
    config_digest: str
    """Digest of the hyperparameters and the seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """Where the model to train is."""

    url: str
    digest: str
    max_bytes: int
    permit: str | None = field(default=None, repr=False)
    """Shown instead of the job's own token, which another job's aggregator must not see."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where the result goes, and until when (seconds on the events' clock)."""

    term: int
    attempt: int
    boot_id: str
    upload_url: str
    failure_url: str
    deadline: float

    @property
    def order(self) -> tuple[int, int]:
        """A higher term wins, then a higher attempt."""
        return self.term, self.attempt

    def is_same_as(self, other: "Target") -> bool:
        """Whether uploads to both count in the same place."""
        return self.order == other.order and self.boot_id == other.boot_id


# Events


@dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """A task was posted; ``model`` is ``None`` in a round 0 that begins with no other job's model."""

    work: WorkId
    model: ModelSource | None
    target: Target


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRequested:
    """A round was cancelled; ``order`` is the term and attempt of who asks, if it said so."""

    round: int
    order: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """The model is there, verified."""

    op: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """The training (or initialisation) ended, and its update is kept."""

    op: int
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingFailed:
    """The training ended without a usable update."""

    op: int
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """The aggregator accepted the update, or the failure report."""

    op: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferFailed:
    """A fetch, an upload or a failure report did not get through, or was refused."""

    op: int
    now: float
    retryable: bool
    message: str
    word: str | None = None
    """The machine word of the refusal, if there was an answer with one."""


Event: TypeAlias = Posted | CancelRequested | Fetched | Trained | TrainingFailed | Delivered | TransferFailed

# Commands


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchModel:
    """Get the model and verify its digest."""

    op: int
    model: ModelSource
    deadline: float
    delay_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Train:
    """Train the fetched model, or make the initial one in round 0; forget the update of any other work."""

    op: int
    work: WorkId


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """Send the kept update."""

    op: int
    target: Target
    delay_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFailure:
    """Tell the aggregator that this client will not report in this attempt."""

    op: int
    target: Target
    reason: Reason
    message: str
    delay_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelWork:
    """Stop the command of that number; its result is not wanted any more."""

    op: int


Command: TypeAlias = FetchModel | Train | Upload | ReportFailure | CancelWork
