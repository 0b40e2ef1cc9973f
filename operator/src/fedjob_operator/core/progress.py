"""Which differences between two statuses can wait a moment to be written: counts, messages, who is ready.

Nothing that a decision builds on may wait: intents, terms, phases, and whether a condition holds.
"""

from fedjob_operator.api.v1alpha1 import AggregatorStatus, CurrentRound, FederatedJobStatus, RoundState


def is_progress_only(before: FederatedJobStatus, after: FederatedJobStatus) -> bool:
    """Whether all that differs can wait."""
    return _gist(before) == _gist(after)


def _gist(status: FederatedJobStatus) -> FederatedJobStatus:
    """Return the status without what can wait."""
    conditions = tuple(item.model_copy(update={"reason": "", "message": ""}) for item in status.conditions)
    clients = status.clients.model_copy(update={"ready": 0})
    current = status.current_round
    return status.model_copy(
        update={
            "reason": None,
            "message": None,
            "summary": None,
            "gpus": None,
            "aggregator": _leader(status),
            "conditions": conditions,
            "clients": clients,
            "current_round": _intent(current) if current else None,
        }
    )


def _leader(status: FederatedJobStatus) -> AggregatorStatus | None:
    """Which run of an aggregator leads, where there are several."""
    known = status.aggregator
    return AggregatorStatus(boot_id=known.boot_id) if known and known.boot_id else None


def _intent(current: CurrentRound) -> CurrentRound:
    state = RoundState.OPEN if current.state is RoundState.EVALUATING else current.state
    return current.model_copy(update={"reported": 0, "state": state})
