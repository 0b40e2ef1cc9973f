"""Pods that were asked to end and whose node does not say that they did: it is gone, or cut off.

What runs there may go on running, unseen. A second client of the same index is harmless: attempts, terms and the
identity of updates keep the two apart, and both would send the same bytes. Two writers on one disk are not. So a client
is replaced, and whoever has a volume of its own waits until the cluster says that the old one is gone.
"""

from datetime import datetime, timedelta
from typing import Final

from fedjob_operator.core.observed import PodPhase, PodRole, PodView

SILENCE: Final = timedelta(seconds=30)
"""How long after the end of its grace period a pod, which is not ready any more, counts as unreachable."""


def unreachable_at(pod: PodView) -> datetime | None:
    """Return when a pod counts as unreachable, if it has not ended by then; ``None`` where nothing speaks for it."""
    if pod.phase is not PodPhase.STOPPING or pod.silent_since is None:
        return None
    return pod.silent_since + SILENCE


def is_unreachable(pod: PodView, now: datetime) -> bool:
    """Whether a pod that was asked to end will not say that it did."""
    at = unreachable_at(pod)
    return at is not None and at <= now


def unreachable_message(pod: PodView, *, waits: bool) -> str:
    """Say what is known, and what to do where its successor waits."""
    message = f"its node does not confirm that pod {pod.ordinal} of its place has ended"
    if not waits:
        return f"{message}; it is replaced"
    what = "the model" if pod.role is PodRole.AGGREGATOR else "its data"
    return (
        f"{message}, and the volume with {what} must not have two writers; it goes on when the node is back, or once "
        "the node is deleted or marked out-of-service"
    )
