"""What becomes of the participants of an attempt: whose updates count, who failed, what was refused. Pure."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from fedjob_aggregator.admission import known
from fedjob_aggregator.events import Attempt, Folded
from fedjob_protocol.errors import WRONG_IN_ITSELF, Word
from fedjob_protocol.messages import Contribution, FailedClient, RefusedUpdate, RoundSpec, Weighting
from fedjob_protocol.reasons import Reason

KEPT_REFUSALS: Final = 100
"""Refused uploads that an attempt remembers: the last ones."""


def weight(spec: RoundSpec, examples: int) -> int:
    """What the values of an update are multiplied by."""
    return examples if spec.weighting is Weighting.EXAMPLES else 1


def with_folded(current: Attempt, event: Folded) -> Attempt:
    """An update has got into the sums."""
    update = current.folding[event.client]
    participant = current.participants[update.client]
    contribution = Contribution(
        client=update.client,
        name=participant.name,
        examples=update.examples,
        bytes=update.bytes,
        digest=update.digest,
        received_seconds=event.now - current.started,
        transfer_seconds=update.transfer_seconds,
        train_seconds=update.train_seconds,
        metrics=dict(update.metrics),
        epochs=[dict(epoch) for epoch in update.epochs],
        labels=participant.labels,
        machine=update.machine,
    )
    return replace(
        current,
        folding={client: other for client, other in current.folding.items() if client != event.client},
        folded={**current.folded, event.client: contribution},
        weight=current.weight + weight(current.spec, update.examples),
    )


def with_refused(current: Attempt, refused: RefusedUpdate) -> Attempt:
    """An upload was refused; its client has failed if sending the same again would not help."""
    current = replace(current, refused=(*current.refused, refused)[-KEPT_REFUSALS:])
    client = refused.client
    counts = client in current.participants and client not in current.failed and known(current, client) is None
    if not counts or refused.word not in WRONG_IN_ITSELF:
        return current
    reason = Reason.NON_FINITE_UPDATE if refused.word == Word.NON_FINITE else Reason.UPDATE_REFUSED
    return with_failed(current, client, reason, f"{refused.word}: {refused.detail}"[:1024])


def with_failed(current: Attempt, client: int, reason: str, message: str) -> Attempt:
    """A client has failed in this attempt."""
    failed = FailedClient(client=client, reason=reason, message=message)
    return replace(current, failed={**current.failed, client: failed})


def with_missing(current: Attempt) -> Attempt:
    """Who is missing at the deadline has failed by it."""
    message = f"no verified update within {current.spec.deadline_seconds:g} s"
    missing = [client for client in current.participants if client not in current.folded]
    return with_all_failed(current, missing, Reason.DEADLINE_EXCEEDED, message)


def with_all_failed(current: Attempt, clients: Iterable[int], reason: Reason, message: str) -> Attempt:
    """Clients have failed for one reason; who failed before keeps its own."""
    failed = {client: FailedClient(client=client, reason=reason, message=message) for client in clients}
    return replace(current, failed={**failed, **current.failed})
