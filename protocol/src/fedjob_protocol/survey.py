"""What ``fedjob partition`` asks the client program, and what it answers."""

from typing import Annotated

from pydantic import Field

from fedjob_protocol.config import DataConfig
from fedjob_protocol.wire import Answer, ClientIndex, Message, Name


class SurveyedClient(Message):
    """One client and its data."""

    index: ClientIndex
    name: Name
    data: DataConfig


class SurveyRequest(Message):
    """Which clients' data are to be counted."""

    seed: Annotated[int, Field(ge=0, le=2**63 - 1)]
    """The job's."""
    clients: tuple[SurveyedClient, ...]


class ClientShare(Answer):
    """What one client has."""

    index: ClientIndex
    name: Name
    examples: int
    """Training examples."""
    labels: tuple[int, ...] | None
    """Of them in each class, from class 0; absent where the data have values."""


class Survey(Answer):
    """What every client has, in the order in which it was asked for."""

    clients: tuple[ClientShare, ...]
