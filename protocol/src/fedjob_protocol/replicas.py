"""What is said of an aggregator that has standbys: who leads, who holds which commit."""

from enum import StrEnum

from pydantic import Field

from fedjob_protocol.wire import Answer, Message, Name, RoundNumber, Sha256


class ReplicaRole(StrEnum):
    """What one of several aggregators does."""

    LEADER = "Leader"
    """Opens rounds, receives updates, commits."""
    STANDBY = "Standby"
    """Copies what the leader commits, and takes no rounds."""


class Acknowledgement(StrEnum):
    """Who must hold a checkpoint before its round is committed."""

    MAJORITY = "Majority"
    """A majority of the aggregators, the leader counted."""
    NONE = "None"
    """The leader alone."""


class Commit(Message):
    """The newest checkpoint that an aggregator holds; one that no majority holds yet may still be replaced."""

    round: RoundNumber
    digest: Sha256
    parent: Sha256 | None
    term: int
    """In which term a leader stood for it; the higher one is the one that may have been acknowledged."""


class StandbyView(Answer):
    """One standby, as the leader sees it."""

    name: Name
    committed: int = -1
    """The newest round that it holds of the leader's; -1 if there is none."""
    silent_seconds: float = 0.0
    """Seconds since it was heard of, or since this leader began to lead."""


class ReplicaView(Answer):
    """One of several aggregators, as it sees itself."""

    name: Name
    role: ReplicaRole
    leader: Name | None
    """Who leads, as far as it was told; ``None``: nobody, or it was not told."""
    term: int
    """The term that it was told this in; 0: it was not told."""
    newest: Commit | None
    """What it holds."""
    closed: int = -1
    """The last round whose complete record, with metrics, is in its log; -1 if there is none."""
    standbys: list[StandbyView] = Field(default_factory=list)
    """Of the leader: the others."""


class ReplicationView(Answer):
    """Something is durable on the leader and waits until enough aggregators hold it."""

    holders: int
    """Aggregators that hold it, the leader counted."""
    needed: int
    """Aggregators that must hold it."""
    seconds: float
    """How long it has waited."""
