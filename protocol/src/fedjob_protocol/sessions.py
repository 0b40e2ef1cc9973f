"""Training sessions of a long-lived server: what people ask for, and what who drives them tells the aggregator."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from fedjob_protocol.wire import Answer, Message, ShortText

MAX_HISTORY = 50
"""Sessions that a report tells of, newest last."""


class SessionState(StrEnum):
    """What a server of sessions does."""

    IDLE = "IDLE"
    CLIENTS_TRAINING = "CLIENTS_TRAINING"


class TrainingRequest(BaseModel):
    """Body of ``POST /training``: one session. Absent fields are the server's."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    rounds: int | None = Field(default=None, ge=1, le=10_000)
    """Rounds of this session."""
    learning_rate: float | None = Field(default=None, gt=0, le=1e6)
    epochs: int | None = Field(default=None, ge=1, le=100_000)
    """Epochs of each client in each round."""
    batch_size: int | None = Field(default=None, ge=1, le=10_000_000)
    num_train_samples: int | None = Field(default=None, ge=1, le=10**9)
    """Most training examples of the data set, before it is divided among the clients."""
    num_validation_samples: int | None = Field(default=None, ge=1, le=10**9)
    """Most held-out examples that models are evaluated on."""


class SessionRecord(Answer):
    """One session, as it ended or is now."""

    number: int
    state: ShortText
    """``Running``, ``Complete`` or ``Failed``, with the reason."""
    clients: int
    first_round: int
    """The first round that it trained."""
    last_round: int
    """The last round that was committed."""
    metric: str | None = None
    """What is compared below."""
    before: float | None = None
    """The metric of the model that the session began with."""
    after: float | None = None
    """The metric of the model that it ended with."""
    digest: str | None = None
    learning_rate: float
    epochs: int
    batch_size: int
    began: datetime
    ended: datetime | None = None


class SessionReport(Message):
    """Body of ``PUT /v1/sessions?wait=``: what who drives the sessions does now; answered when there is an order."""

    state: SessionState
    session: int = Field(ge=0)
    """The session that runs, or ran last; 0 before the first."""
    message: ShortText = ""
    refused: ShortText | None = None
    """Why the session that was ordered last is not begun; absent: nothing was refused since the last report."""
    history: Annotated[tuple[SessionRecord, ...], Field(max_length=MAX_HISTORY)] = ()


class SessionOrder(Answer):
    """Answer of ``PUT /v1/sessions``: the session that somebody asked for, if any."""

    session: int | None = None
    """Its number."""
    request: TrainingRequest | None = None
    clients: int = 0
    """Clients that were there when it was asked for; their indices are 0, 1, 2 …"""
