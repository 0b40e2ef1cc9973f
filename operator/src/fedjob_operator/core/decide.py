"""The decision: if the world looked like this, what should be done, and what should the status say.

`decide` is called by the reconcile loop of the operator and of ``fedjob run`` at every look at the world. It is level
triggered: what it returns depends on the job and on what was seen, not on what happened before.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import ValidationError

from fedjob_operator.api.resolve import layout, min_clients, num_clients
from fedjob_operator.api.v1alpha1 import (
    Clients,
    ConditionType,
    FederatedJob,
    FederatedJobStatus,
    OnQuorumLoss,
    Rounds,
)
from fedjob_operator.core.actions import Action, open_key, state_key, watch_key
from fedjob_operator.core.conditions import describe, finish, is_finished, set_condition
from fedjob_operator.core.observed import Failure, Observed, PodPhase, PodView
from fedjob_operator.core.phases import TERMINAL
from fedjob_operator.core.platform import LOCAL, Platform
from fedjob_operator.core.pods import PodPlan, declared_clients, plan_pods, release_pods
from fedjob_operator.core.quorum import DEFINITIVE, may_start, missing_clients
from fedjob_operator.core.rounds import drive, intend
from fedjob_operator.core.scene import Scene, Step, failed
from fedjob_operator.core.stopping import verdict
from fedjob_operator.core.tasks import training_config
from fedjob_protocol.messages import AggregatorState, OptimizerConfig
from fedjob_protocol.reasons import Reason

UNREACHABLE_AFTER = timedelta(seconds=5)
"""How long calls of the aggregator go without an answer before the status says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do now."""

    status: FederatedJobStatus
    """What the status should say; written if it differs from the job's."""
    actions: tuple[Action, ...] = ()
    """To be performed; each is idempotent."""
    wake_at: datetime | None = None
    """When to look again although nothing happened."""
    finished: bool = False
    """Complete or Failed."""


def decide(job: FederatedJob, seen: Observed, now: datetime, *, platform: Platform = LOCAL) -> Decision:  # noqa: ARG001
    """Decide what to do for a job.

    Args:
        job: The resource as last read or written.
        seen: What was observed since.
        now: The time, in UTC.
        platform: Where the job's programs run.

    Returns:
        The status that follows from what was seen, and the actions that bring the job on. Actions depend only on
        intents that are in ``job.status`` already.
    """
    if is_finished(job.status):
        return Decision(status=job.status, actions=release_pods(seen), finished=True)
    if not job.status.layout:
        return _decision(job, _accept(job, now))
    pods = plan_pods(job, seen, now)
    scene = Scene(job=job, seen=seen, pods=pods, now=now)
    step = _advance(scene)
    if is_finished(step.status):
        return _decision(job, Step(status=step.status))
    status = _observe_conditions(scene, step.status)
    step = Step(status=status, actions=(*pods.actions, *step.actions), wake_at=step.wake_at)
    return _decision(job, step.waking(pods.wake_at).waking(_active_until(job, status)))


def _decision(job: FederatedJob, step: Step) -> Decision:
    status = describe(job, step.status)
    return Decision(status=status, actions=step.actions, wake_at=step.wake_at, finished=status.phase in TERMINAL)


def _accept(job: FederatedJob, now: datetime) -> Step:
    """Fix the layout, or refuse a spec that no client could be given."""
    status = job.status
    try:
        training_config(job, round_number=1, index=0)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        section = "spec.training.optimizer" if error.title == OptimizerConfig.__name__ else "spec.training"
        message = f"{section}.{where}: {first['msg']}"
        return Step(status=finish(status, failed=True, reason=Reason.INVALID_SPEC, message=message, now=now))
    desired = num_clients(job.spec)
    status = status.model_copy(
        update={
            "layout": layout(job.spec),
            "observed_generation": job.metadata.generation,
            "rounds": Rounds(committed=status.rounds.committed, total=job.spec.rounds),
            "clients": Clients(desired=desired),
        }
    )
    message = f"{desired} clients, {job.spec.rounds} rounds"
    return Step(
        status=set_condition(
            status, ConditionType.ACCEPTED, holds=True, reason=Reason.ACCEPTED, message=message, now=now
        )
    )


def _advance(scene: Scene) -> Step:
    """Bring the rounds on as far as what was seen allows."""
    status = scene.job.status
    if broken := _hopeless(scene):
        return failed(scene, status, *broken)
    state, aggregator = scene.state, scene.aggregator
    if state is None or aggregator is None:
        return Step(status=status)
    if state.term > status.term:
        # Somebody reigned after us, or our status is older than the aggregator's volume: claim a higher term first.
        return Step(status=status.model_copy(update={"term": state.term + 1}))
    if broken := _contradiction(scene, state):
        return failed(scene, status, *broken)
    if status.current_round is not None:
        step = drive(scene, status.current_round, aggregator, state)
        return _next(scene, step) if step.status.current_round is None else step
    return _next(scene, Step(status=status))


def _next(scene: Scene, step: Step) -> Step:
    """After a committed round, or before the first: done, or the intent of the next. One patch does both."""
    if is_finished(step.status):
        return step
    if done := verdict(scene.spec, step.status):
        return Step(status=finish(step.status, failed=False, reason=done[0], message=done[1], now=scene.now))
    if broken := _too_few_left(scene):
        return failed(scene, step.status, *broken)
    if step.status.start_time is None:
        start, at = may_start(scene.job, scene.pods, scene.now)
        if not start:
            return step.waking(at)
    return intend(scene, step.status)


def _active_until(job: FederatedJob, status: FederatedJobStatus) -> datetime | None:
    """When the job's time is over."""
    limit = job.spec.active_deadline_seconds
    if limit is None or status.start_time is None:
        return None
    return status.start_time + timedelta(seconds=limit)


def _hopeless(scene: Scene) -> tuple[Reason, str] | None:
    """Whether the job can never go on: its time is over, or too many clients ended for a reason that stays."""
    until = _active_until(scene.job, scene.job.status)
    if until is not None and scene.now >= until:
        return Reason.ACTIVE_DEADLINE_EXCEEDED, f"the job ran longer than {scene.spec.active_deadline_seconds} s"
    pod = scene.pods.aggregator
    if pod and pod.exit and pod.exit.reason in (Reason.FOREIGN_VOLUME, Reason.CHECKPOINT_LOST):
        return pod.exit.reason, pod.exit.message
    lost = [scene.pods.clients[index].exit for index in sorted(scene.pods.lost)]
    causes = [end for end in lost if end and end.reason in DEFINITIVE]
    left = len(declared_clients(scene.job)) - len(causes)
    if causes and left < min_clients(scene.spec):
        return causes[0].reason, f"{len(causes)} clients cannot take part; {missing_clients(scene.job, scene.pods)}"
    return None


def _too_few_left(scene: Scene) -> tuple[Reason, str] | None:
    """Whether too many clients are lost for any further round, where the job is to fail then."""
    if scene.spec.round_policy.on_quorum_loss is not OnQuorumLoss.FAIL:
        return None
    lost = len(scene.pods.lost)
    if len(declared_clients(scene.job)) - lost >= min_clients(scene.spec):
        return None
    return Reason.QUORUM_LOST, f"{lost} clients are lost; {missing_clients(scene.job, scene.pods)}"


def _contradiction(scene: Scene, state: AggregatorState) -> tuple[Reason, str] | None:
    """Whether the aggregator's folder is another job's, or has lost or gained what the status does not know."""
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
    ahead = status.current_round.number if status.current_round else known
    if number < known or number > ahead:
        return Reason.CHECKPOINT_LOST, (
            f"the aggregator's folder ends with round {number}, the status with round {known}; "
            "restore the folder that belongs to this job, or start a new one"
        )
    return None


def _observe_conditions(scene: Scene, status: FederatedJobStatus) -> FederatedJobStatus:
    """Bring counts and readiness up to date."""
    pods, job = scene.pods, scene.job
    clients = Clients(
        desired=len(declared_clients(job)),
        ready=len(pods.ready),
        lost=len(pods.lost),
        lost_indices=tuple(sorted(pods.lost)),
    )
    if clients != status.clients:
        status = status.model_copy(update={"clients": clients})
    enough = clients.ready >= min_clients(job.spec)
    status = set_condition(
        status,
        ConditionType.CLIENTS_READY,
        holds=enough,
        reason=Reason.CLIENTS_READY if enough else Reason.WAITING_FOR_CLIENTS,
        message=f"{clients.ready} of {clients.desired} are ready"
        + ("" if enough else f"; {missing_clients(job, pods)}"),
        now=scene.now,
    )
    holds, reason, message = _aggregator_condition(pods, scene)
    return set_condition(
        status, ConditionType.AGGREGATOR_READY, holds=holds, reason=reason, message=message, now=scene.now
    )


def _aggregator_condition(pods: PodPlan, scene: Scene) -> tuple[bool, Reason, str]:
    pod = pods.aggregator
    if pod and pod.exit:
        return False, pod.exit.reason, f"the aggregator ended: {pod.exit.message}; it is started again"
    if pod is None or pod.phase is not PodPhase.READY:
        return False, Reason.AGGREGATOR_STARTING, "the aggregator is starting"
    if silence := _silence(scene, pod):
        return False, Reason.AGGREGATOR_UNREACHABLE, f"the aggregator does not answer: {silence.message}"
    if scene.state is None:
        return False, Reason.AGGREGATOR_STARTING, "the aggregator is starting"
    return True, Reason.AGGREGATOR_READY, ""


def _silence(scene: Scene, aggregator: PodView) -> Failure | None:
    """The call of the aggregator that has had no answer for a while, if there is one."""
    keys = [state_key(aggregator.incarnation)]
    if current := scene.job.status.current_round:
        keys.append(open_key(aggregator.incarnation, current.number, scene.job.status.term, current.attempt))
        keys.append(watch_key(aggregator.incarnation, current.number, current.attempt))
    failures = [scene.seen.failures[key] for key in keys if key in scene.seen.failures]
    silent = (item for item in failures if item.word is None and scene.now - item.since >= UNREACHABLE_AFTER)
    return next(silent, None)
