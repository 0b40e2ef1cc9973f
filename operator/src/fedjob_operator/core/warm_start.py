"""Beginning with a checkpoint of another job: waiting for it, and then for whoever serves it.

The choice is written into the status before any pod is made, and followed after a crash: a job that begins with the
newest model of another one begins with the same model however often it is started. Nothing is held while it waits.
"""

from datetime import datetime

from fedjob_operator.api.v1alpha1 import ConditionType, FederatedJob
from fedjob_operator.core.actions import FindOrigin
from fedjob_operator.core.conditions import finish, set_condition
from fedjob_operator.core.observed import Observed
from fedjob_operator.core.origin import found_for
from fedjob_operator.core.scene import Scene, Step, failed, progressing
from fedjob_operator.core.startup import begin_startup
from fedjob_protocol.reasons import Reason


def await_origin(job: FederatedJob, seen: Observed, now: datetime) -> Step | None:
    """Look for the checkpoint before any pod is made; ``None`` once it is known, or where none is wanted."""
    origin, status = job.spec.model.init_from, job.status
    if origin is None or origin.federated_job is None or status.origin or status.start_time or status.model:
        return None
    action = FindOrigin(ask=origin.federated_job, attempt=0, origin=None)
    found = seen.origin if seen.origin and seen.origin.attempt == 0 else None
    if found and found.origin:
        status = status.model_copy(update={"origin": found.origin})
        return Step(status=begin_startup(status, attempt=1, now=now))
    if found and found.is_final:
        reason = Reason.INITIAL_MODEL_LOST
        return Step(status=finish(status, failed=True, reason=reason, message=found.message, now=now))
    failure = seen.failures.get(action.key)
    message = failure.message if failure else found.message if found else "looking for it"
    status = set_condition(
        status,
        ConditionType.PROGRESSING,
        holds=False,
        reason=Reason.INITIAL_MODEL_PENDING,
        message=f"the initial model: {message}",
        now=now,
    )
    return Step(status=status, actions=(action,))


def search_for_model(scene: Scene, attempt: int, step: Step) -> Step | None:
    """Before a client is asked for the initial model: find out where it is served; ``None`` once that is known."""
    origin, wanted = scene.job.status.origin, scene.spec.model.init_from
    if origin is None or origin.path is not None or wanted is None or wanted.federated_job is None:
        return None
    found = found_for(scene, attempt)
    if found and found.url and found.permit:
        return None
    action = FindOrigin(ask=wanted.federated_job, attempt=attempt, origin=origin)
    if found and found.is_final:
        return failed(scene, step.status, Reason.INITIAL_MODEL_LOST, found.message)
    message = found.message if found else ""
    if not message:
        return step.acting(action)
    text = f"the initial model: {message}"
    status = progressing(scene, step.status, holds=False, reason=Reason.INITIAL_MODEL_PENDING, message=text)
    return Step(status=status, actions=step.actions, wake_at=step.wake_at).acting(action)
