"""Which checkpoint of another job a job begins with, and how a client gets it."""

from fedjob_operator.api.enums import Checkpoint
from fedjob_operator.api.v1alpha1 import FederatedJob, JobCheckpoint, Origin
from fedjob_operator.core.conditions import is_finished
from fedjob_operator.core.observed import OriginSeen
from fedjob_operator.core.scene import Scene
from fedjob_protocol.routes import model_path
from fedjob_protocol.tasks import ModelOrigin


def choose_checkpoint(ask: JobCheckpoint, other: FederatedJob, *, attempt: int = 0) -> OriginSeen:
    """Return the checkpoint that a job begins with, as the other job's status has it.

    Best and Final are known only when the other job has finished; a round's as soon as it is committed. Kept are the
    newest checkpoint, the one before, and the best.

    Args:
        ask: What the spec names.
        other: The other job, as it is now.
        attempt: Goes into the answer.
    """
    status, name = other.status, other.metadata.name
    over = is_finished(status)
    if ask.checkpoint is not Checkpoint.ROUND and not over:
        return OriginSeen(attempt=attempt, message=f"job {name} has not finished: it is {status.phase}")
    best = {status.best.round: status.best.digest} if status.best else {}
    newest = {status.model.round: status.model.digest} if status.model else {}
    kept = {row.number: row.digest for row in status.recent_rounds[-2:]} | best | newest
    wanted = {
        Checkpoint.BEST: status.best.round if status.best else None,
        Checkpoint.FINAL: status.model.round if status.model else None,
        Checkpoint.ROUND: ask.round,
    }[ask.checkpoint]
    if wanted is not None and wanted in kept:
        origin = Origin(job=name, uid=other.metadata.uid, round=wanted, digest=kept[wanted])
        return OriginSeen(attempt=attempt, origin=origin)
    if ask.checkpoint is Checkpoint.ROUND and not over and (ask.round or 0) > status.rounds.committed:
        message = f"job {name} has committed {max(status.rounds.committed, 0)} rounds, round {ask.round} is waited for"
        return OriginSeen(attempt=attempt, message=message)
    return OriginSeen(attempt=attempt, message=_why_never(ask, other, sorted(kept)), is_final=True)


def _why_never(ask: JobCheckpoint, other: FederatedJob, kept: list[int]) -> str:
    name, has = other.metadata.name, f"; it has round {' and '.join(map(str, kept))}" if kept else ""
    if ask.checkpoint is Checkpoint.BEST:
        return f"job {name} has no best model: give it an objective, or take its checkpoint Final{has}"
    if ask.checkpoint is Checkpoint.FINAL:
        return f"job {name} ended with {other.status.phase} before it had a model"
    return f"job {name} does not keep the checkpoint of round {ask.round}{has}"


def served_origin(scene: Scene, attempt: int) -> ModelOrigin | None:
    """What a client is told of the other job's model; ``None`` where none comes over the network."""
    origin, found = scene.job.status.origin, found_for(scene, attempt)
    if origin is None or found is None or found.url is None or found.permit is None:
        return None
    return ModelOrigin(
        round=origin.round,
        digest=origin.digest,
        model_url=found.url + model_path(origin.round),
        permit=found.permit,
        max_model_bytes=scene.spec.model.max_bytes,
    )


def found_for(scene: Scene, attempt: int) -> OriginSeen | None:
    """What was found for an attempt at round 0, if anything was."""
    found = scene.seen.origin
    return found if found and found.attempt == attempt else None
