"""What the aggregator has committed against what the status says: no round is repeated or skipped silently."""

from fedjob_operator.core.acceptance import MAX_COUNT
from fedjob_operator.core.scene import Scene
from fedjob_protocol.messages import AggregatorState
from fedjob_protocol.reasons import Reason


def contradiction(scene: Scene, state: AggregatorState) -> tuple[Reason, str] | None:
    """Whether the aggregator's folder is another job's, or has lost or gained what the status does not know.

    Returns:
        The reason and message with which the job fails; ``None`` if all is well.
    """
    status = scene.job.status
    if state.job_uid not in (None, scene.job.metadata.uid):
        return Reason.FOREIGN_VOLUME, (
            f"the aggregator's folder belongs to job {state.job_uid}, not to {scene.job.metadata.uid}; "
            "give it an empty one"
        )
    known = status.rounds.committed
    number, digest = scene.committed()
    expected = status.model.digest if status.model else None
    if number == known and digest != expected:
        return (
            Reason.CHECKPOINT_LOST,
            f"round {number} is {digest} in the aggregator's folder, the status says {expected}",
        )
    current = status.current_round
    ahead = current.number if current else known
    if number < known or number > ahead:
        return Reason.CHECKPOINT_LOST, (
            f"the aggregator's folder ends with round {number}, the status with round {known}; "
            "restore the folder that belongs to this job, or start a new one"
        )
    if current and current.number != known + 1:
        return Reason.INVALID_SPEC, (
            f"the status contradicts itself: round {current.number} is in progress, and round {known} is the last one "
            "that is committed"
        )
    if state.term > MAX_COUNT:
        return Reason.INVALID_SPEC, f"the aggregator has seen term {state.term}, which no operator reigned in"
    return None
