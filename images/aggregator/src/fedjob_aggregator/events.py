"""What the round machine knows, what happens to it, and what it wants done. Data only; see `machine` for the rules.

Times: ``now`` is a monotonic clock in seconds, ``at`` the wall clock; both are in the events, the machine has neither.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

from fedjob_protocol.messages import (
    Base,
    Contribution,
    Evaluation,
    FailedClient,
    FailureReport,
    Participant,
    RefusedUpdate,
    RoundRecord,
    RoundSpec,
    StorageProblem,
)
from fedjob_protocol.round import RoundState


class CloseReason(StrEnum):
    """Why a round takes no further reports."""

    CLIENTS_PER_ROUND = "ClientsPerRound"
    ALL_REPORTED = "AllReported"
    DEADLINE = "Deadline"


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """A verified upload."""

    client: int
    examples: int
    bytes: int
    digest: str
    transfer_seconds: float
    train_seconds: float | None
    metrics: Mapping[str, float]
    epochs: tuple[Mapping[str, float], ...] = ()
    machine: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try at a round, until it is committed or replaced."""

    round: int
    spec: RoundSpec
    participants: Mapping[int, Participant]
    """By client index."""
    state: RoundState
    started: float
    """Monotonic seconds."""
    started_at: datetime
    folding: Mapping[int, Update] = field(default_factory=dict)
    """Verified and handed to the writer, in the sums soon; by client index."""
    folded: Mapping[int, Contribution] = field(default_factory=dict)
    """In the sums; by client index."""
    failed: Mapping[int, FailedClient] = field(default_factory=dict)
    refused: tuple[RefusedUpdate, ...] = ()
    """The last of them."""
    weight: int = 0
    """Sum of the weights of what is folded."""
    closing: CloseReason | None = None
    """Set once nothing further is accepted; the round closes when nothing is being folded any more."""
    storage: StorageProblem | None = None

    @property
    def deadline(self) -> float:
        """Monotonic seconds."""
        return self.started + self.spec.deadline_seconds

    @property
    def accepts(self) -> bool:
        """Whether a report can still count."""
        return self.state is RoundState.OPEN and self.closing is None


@dataclass(frozen=True, slots=True, kw_only=True)
class LastRound:
    """The round that was committed last."""

    record: RoundRecord
    state: RoundState
    """Committed or Evaluated."""

    @property
    def is_complete(self) -> bool:
        """Whether nothing can be added to the record any more."""
        return self.state is RoundState.EVALUATED or not self.record.expects_evaluation


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Everything that the machine decides by."""

    boot_id: str
    """Identity of this run of the program."""
    job_uid: str | None = None
    term: int = 0
    """The highest seen."""
    last: LastRound | None = None
    best: Base | None = None
    """The best model, if one is kept: a round may start from it, too."""
    current: Attempt | None = None

    @property
    def committed(self) -> int:
        """The last committed round; -1 before round 0."""
        return -1 if self.last is None else self.last.record.round


# Events. Those of the first group are requests of peers and may be refused; then they change nothing.


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """An operator speaks for a job in its term; comes before its other requests are looked at."""

    job_uid: str
    term: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """``PUT /v1/rounds/{r}``."""

    round: int
    spec: RoundSpec
    now: float
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """``DELETE /v1/rounds/{r}``."""

    round: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFailure:
    """``PUT /v1/rounds/{r}/failures/{client}``."""

    round: int
    client: int
    report: FailureReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluate:
    """``PUT /v1/rounds/{r}/evaluation``."""

    round: int
    evaluation: Evaluation


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """An upload was received and verified and wants to be folded."""

    round: int
    attempt: int
    update: Update


# Facts: they are never refused, and ignored when they come too late to matter.


@dataclass(frozen=True, slots=True, kw_only=True)
class Folded:
    """The writer folded an update."""

    round: int
    attempt: int
    client: int
    now: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SumsLost:
    """The writer could not start the sums, or fold an update to its end: they are of no use any more."""

    round: int
    attempt: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadRefused:
    """An upload to this attempt was refused."""

    round: int
    refused: RefusedUpdate


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadlinePassed:
    """The deadline of an attempt is over."""

    round: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitFailed:
    """The storage refused the checkpoint, or the strategy failed."""

    round: int
    attempt: int
    message: str
    is_definitive: bool = False
    """Whether it is the strategy: it would fail again with the same updates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """The checkpoint and its record are durable."""

    record: RoundRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordClosed:
    """The record of the last round is complete: evaluated, or nobody evaluates it any more."""

    record: RoundRecord


Event: TypeAlias = (
    Claim
    | Open
    | Cancel
    | ReportFailure
    | Evaluate
    | Offer
    | Folded
    | SumsLost
    | UploadRefused
    | DeadlinePassed
    | CommitFailed
    | Committed
    | RecordClosed
)


# Commands, performed in order.


@dataclass(frozen=True, slots=True, kw_only=True)
class StartAttempt:
    """Drop the sums and everything staged; watch the deadline of the new attempt."""

    attempt: Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """Add a verified update to the sums (in round 0: keep it as the initial model), then tell `Folded`."""

    round: int
    attempt: int
    client: int
    weight: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StopUploads:
    """End the uploads that are still on their way with this answer."""

    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """Write the checkpoint, then tell `Committed` or `CommitFailed`."""

    attempt: Attempt
    after_seconds: float = 0.0
    """Wait before, as storage refused it just now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepRecord:
    """Append the record to the round log, and keep its checkpoint if it is the best; then tell `RecordClosed`."""

    record: RoundRecord


Command: TypeAlias = StartAttempt | Fold | StopUploads | Commit | KeepRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What follows from an event."""

    state: State
    commands: tuple[Command, ...] = ()
