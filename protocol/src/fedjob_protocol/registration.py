"""Clients that register themselves: what they and the aggregator say to each other, and the token that each gets.

A client that registered is called with a token of its own, and calls with it: the job's token, which may open rounds,
is never sent to an address that somebody gave. Both sides of it are made from the job's token and the client's boot id,
so nobody has to remember them.
"""

import hmac
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from fedjob_protocol.wire import Answer, ClientIndex, Message, Name, ShortText, Url

HEARTBEAT_SECONDS: Final = 10.0
"""How often a registered client tells that it is there."""
LOST_SECONDS: Final = 30.0
"""A registered client that was not heard of for so long is lost, until it is heard of again."""

EXTERNAL_GROUPS_VARIABLE: Final = "FEDJOB_EXTERNAL_GROUPS"
"""Environment variable of an aggregator with its `ExternalGroups` as JSON; absent: whoever registers gets the next
index."""
REGISTRATION_TOKEN_VARIABLE: Final = "FEDJOB_REGISTRATION_TOKEN"  # noqa: S105 - the variable's name
"""Environment variable with what a client shows to register. An aggregator with groups has one of each group, by
`registration_variable`."""


class ExternalGroup(Message):
    """A group whose clients register themselves: its indices in the job."""

    group: Name
    first: ClientIndex
    count: Annotated[int, Field(ge=1, le=10_000)]


class ExternalGroups(Message):
    """All such groups of a job, in the order of the manifest."""

    groups: tuple[ExternalGroup, ...]


class RegisteredAnswer(BaseModel):
    """Answer of ``POST /clients``."""

    model_config = ConfigDict(extra="ignore")

    client_url: str
    registered: int
    """How many clients are registered now."""
    client: int | None = None
    """Index of the client; ``None`` where it has none, since it gave no ``boot_id``."""
    token: str | None = None
    """What this client is called with, and calls with, from now on; ``None``: nothing is asked for."""
    heartbeat_seconds: float = HEARTBEAT_SECONDS


class Heartbeat(Message):
    """Body of ``PUT /v1/clients``: a registered client is still there."""

    client_url: Url
    boot_id: Name


class HeartbeatAnswer(Answer):
    """Answer of ``PUT /v1/clients``."""

    client: ClientIndex | None
    round: int | None
    """The round that is open, or was committed last; ``None`` before the first."""
    connected: int
    """Clients that are there now."""
    status: ShortText | None = None
    """Of a server of training sessions: ``IDLE`` or ``CLIENTS_TRAINING``."""


class TurnedAway(Message):
    """Body of ``POST /v1/turned-away`` on a client: the job is over, or goes on without it."""

    job_uid: Name
    reason: Name
    """``LateJoiner``; of a job that is over, its phase: ``Complete`` or ``Failed``."""
    message: ShortText


def client_token(job_token: str | None, boot_id: str) -> str | None:
    """The token of one registered client; ``None`` where the job asks for none.

    Args:
        job_token: The job's.
        boot_id: The client's own, which only it and the aggregator know.
    """
    if job_token is None:
        return None
    return hmac.digest(job_token.encode(), f"client/{boot_id}".encode(), "sha256").hex()


def registration_variable(position: int) -> str:
    """Environment variable of an aggregator with what clients of its n-th external group show."""
    return f"{REGISTRATION_TOKEN_VARIABLE}_{position}"
