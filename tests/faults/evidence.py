"""What one run of a job leaves behind for the oracles, wherever it ran: read once, never changed."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from fedjob_operator.api.v1alpha1 import FederatedJobStatus
from fedjob_protocol.messages import RoundRecord

ClientRound = tuple[int, int]
"""A client's index, and the round that it had to do with."""


class StatusSeen(NamedTuple):
    """One version of the status, as it was written."""

    term: int
    committed: int
    """Number of the last committed round; -1 before the initial model."""
    size: int
    """Bytes of the status as JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One run of one job."""

    status: FederatedJobStatus
    """The final one."""
    history: tuple[StatusSeen, ...]
    """Every version of the status that was seen, in the order in which they were written."""
    rounds: tuple[RoundRecord, ...]
    """The aggregator's round log."""
    trainings: Counter[ClientRound] = field(default_factory=Counter)
    """How often a client began to train in a round, over all its processes."""
    died: Counter[ClientRound] = field(default_factory=Counter)
    """How often a process of a client ended against its will while a round was not committed."""
    writes: int
    """Writes to the API server; locally, of the file that stands for it."""
    leftovers: tuple[str, ...] = ()
    """Names of what was still there after the job was deleted: processes, pods, temporary files."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """Logs and Events, by name."""
    secrets: Mapping[str, str] = field(default_factory=dict)
    """What must not be in any of the texts, by a name that may be shown: tokens, weights as they would be printed."""
