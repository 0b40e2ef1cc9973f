"""The round state machine as a table; it does not know which program runs it.

A round goes open -> committing -> committed -> evaluated. Everything that affects these transitions is in this file; an
unlisted pair is an error of whoever caused it.
"""

from enum import StrEnum
from types import MappingProxyType
from typing import Final

from fedjob_protocol.errors import LocalProtocolError


class RoundState(StrEnum):
    """Where a round is."""

    OPEN = "Open"
    """Updates are received, verified and folded."""
    COMMITTING = "Committing"
    """Closed with enough reports; the checkpoint is being written, and written again while storage refuses."""
    COMMITTED = "Committed"
    """The checkpoint is durable; the round waits for its evaluation."""
    EVALUATED = "Evaluated"
    """The record is complete and in the round log; the next round may open."""
    ABANDONED = "Abandoned"
    """This attempt ended below ``minReports``; a higher attempt may follow."""
    CANCELLED = "Cancelled"
    """This attempt was cancelled by the operator; a higher attempt may follow."""


class RoundEvent(StrEnum):
    """What moves a round."""

    REPORT = "Report"
    """An update was folded, or a participant failed, and the round stays open."""
    CLOSE = "Close"
    """Enough reports: at ``clientsPerRound``, when everybody reported or failed, or at the deadline."""
    GIVE_UP = "GiveUp"
    """Below ``minReports`` when everybody reported or failed, or at the deadline."""
    CANCEL = "Cancel"
    COMMIT_FAILED = "CommitFailed"
    """Storage refused the checkpoint; it is tried again."""
    CANNOT_COMMIT = "CannotCommit"
    """The strategy made no model of the updates, and would make none of them again; nothing counts that was written."""
    COMMITTED = "Committed"
    EVALUATED = "Evaluated"
    """Metrics were posted, or none are expected, or evaluation was given up."""
    REOPEN = "Reopen"
    """A higher attempt of the same round."""


TRANSITIONS: Final = MappingProxyType(
    {
        (RoundState.OPEN, RoundEvent.REPORT): RoundState.OPEN,
        (RoundState.OPEN, RoundEvent.CLOSE): RoundState.COMMITTING,
        (RoundState.OPEN, RoundEvent.GIVE_UP): RoundState.ABANDONED,
        (RoundState.OPEN, RoundEvent.CANCEL): RoundState.CANCELLED,
        # A higher attempt replaces an open one, with the same participants.
        (RoundState.OPEN, RoundEvent.REOPEN): RoundState.OPEN,
        (RoundState.COMMITTING, RoundEvent.COMMIT_FAILED): RoundState.COMMITTING,
        (RoundState.COMMITTING, RoundEvent.CANNOT_COMMIT): RoundState.ABANDONED,
        (RoundState.COMMITTING, RoundEvent.COMMITTED): RoundState.COMMITTED,
        (RoundState.COMMITTED, RoundEvent.EVALUATED): RoundState.EVALUATED,
        # Evaluation is posted idempotently.
        (RoundState.EVALUATED, RoundEvent.EVALUATED): RoundState.EVALUATED,
        (RoundState.ABANDONED, RoundEvent.REOPEN): RoundState.OPEN,
        (RoundState.CANCELLED, RoundEvent.REOPEN): RoundState.OPEN,
    }
)
"""Every transition there is."""

DURABLE: Final = frozenset({RoundState.COMMITTED, RoundState.EVALUATED})
"""States whose model survives any crash."""
GIVEN_UP: Final = frozenset({RoundState.ABANDONED, RoundState.CANCELLED})
"""States of an attempt of which nothing is left."""


def advance(state: RoundState, event: RoundEvent) -> RoundState:
    """Return the state after an event.

    Raises:
        LocalProtocolError: The table has no such transition.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise LocalProtocolError(f"round machine: {event} is impossible in state {state}") from None
