"""Messages between the operator, the aggregator that leads, and its standbys. Paths are in `fedjob_protocol.routes`."""

from typing import Annotated

from pydantic import Field, model_validator

from fedjob_protocol.messages import Base, CheckpointInfo, RoundRecord
from fedjob_protocol.replicas import Acknowledgement, Commit
from fedjob_protocol.wire import Answer, Message, Name, Url

MAX_REPLICAS = 7
"""Most aggregators of one job."""


class Leadership(Message):
    """Body of ``PUT /v1/leadership``: who leads in a term; the same body again changes nothing.

    Without a leader it is the beginning of an election: whoever answers follows nobody of an earlier term any more.
    """

    job_uid: Name
    term: int = Field(ge=1)
    """A higher one wins, a lower one is refused with ``stale-term``. A term has at most one leader."""
    replicas: Annotated[tuple[Name, ...], Field(min_length=1, max_length=MAX_REPLICAS)]
    """Names of all aggregators of the job."""
    acknowledgement: Acknowledgement = Acknowledgement.MAJORITY
    leader: Name | None = None
    leader_boot_id: Name | None = None
    """The run of the leader's program that was chosen; another one has to be chosen again."""
    leader_url: Url | None = None
    """Where standbys reach the leader."""
    committed: Base | None = None
    """The last round that the job's status says is committed; ``None`` before round 0."""

    @model_validator(mode="after")
    def _consistent(self) -> "Leadership":
        if len(set(self.replicas)) != len(self.replicas):
            raise ValueError("replicas: a name is listed twice")
        given = {self.leader is None, self.leader_boot_id is None, self.leader_url is None}
        if len(given) > 1:
            raise ValueError("leader, leaderBootId and leaderUrl go together")
        if self.leader is not None and self.leader not in self.replicas:
            raise ValueError("leader is none of the replicas")
        return self


class Progress(Message):
    """Body of ``PUT /v1/replication/standbys/{name}?wait=``: what a standby holds, which acknowledges it."""

    job_uid: Name
    term: int = Field(ge=1)
    boot_id: Name
    """Of the leader that it was told to follow."""
    newest: Commit | None = None
    closed: int = Field(default=-1, ge=-1)
    """The last round in its round log; -1 if there is none."""
    best: str | None = None
    """Digest of the best model that it holds."""


class Holdings(Answer):
    """Answer of ``PUT /v1/replication/standbys/{name}``: what the leader holds, which a standby copies."""

    term: int
    boot_id: str
    newest: Commit | None
    bytes: int = 0
    """Size of the newest checkpoint."""
    record: RoundRecord | None = None
    """Record of the newest commit, as complete as it is."""
    closed: int = -1
    """The last round in the leader's round log."""
    best: CheckpointInfo | None = None
