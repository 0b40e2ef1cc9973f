"""Messages about clients that somebody had replaced."""

from pydantic import Field

from fedjob_protocol.wire import Answer, ClientIndex


class ReplacedClient(Answer):
    """A client that somebody had replaced; answer of ``DELETE /v1/clients/{client}``."""

    client: ClientIndex
    generation: int = Field(ge=0, le=1_000_001)
    """How often: which program of this index is, or is to be, there now. The first one is 0."""


class ReplacedClients(Answer):
    """Answer of ``GET /v1/clients``."""

    clients: list[ReplacedClient]
    """By index; a client that is not listed was never replaced."""
