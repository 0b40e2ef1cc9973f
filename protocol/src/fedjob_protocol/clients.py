"""Messages about a job's clients: who somebody had replaced, and who registered itself."""

from datetime import datetime

from pydantic import Field

from fedjob_protocol.wire import Answer, ClientIndex, Name, Url


class ReplacedClient(Answer):
    """A client that somebody had replaced; answer of ``DELETE /v1/clients/{client}``."""

    client: ClientIndex
    generation: int = Field(ge=0, le=1_000_001)
    """How often: which program of this index is, or is to be, there now. The first one is 0."""


class RegisteredClient(Answer):
    """A client that registered itself."""

    client: ClientIndex
    url: Url
    """Where it says that it answers; whoever calls it checks that it does."""
    boot_id: Name
    """Identity of this run of the client."""
    since: datetime
    """When it registered, or came back."""
    is_lost: bool
    """Whether it was not heard of for too long."""


class ReplacedClients(Answer):
    """Answer of ``GET /v1/clients``."""

    clients: list[ReplacedClient]
    """By index; a client that is not listed was never replaced."""
    registered: list[RegisteredClient] | None = None
    """Clients that registered themselves, by index; ``None`` from an aggregator of an older release."""
