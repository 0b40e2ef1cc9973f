"""The decision: if the world looked like this, what should be done, and what should the status say.

`decide` is called by the reconcile loop of the operator and of ``fedjob run`` at every look at the world. It is level
triggered: what it returns depends on the job and on what was seen, not on what happened before. Whatever it is given it
answers: specs and statuses can be edited by anybody who may.
"""

from dataclasses import dataclass
from datetime import datetime

from fedjob_operator.api.resolve import min_clients
from fedjob_operator.api.v1alpha1 import ConditionType, FederatedJob, FederatedJobStatus, OnQuorumLoss
from fedjob_operator.core.acceptance import accept, accepted, as_accepted, forged, misfit, pods_checked, refused
from fedjob_operator.core.actions import Action
from fedjob_operator.core.conditions import describe, finish, is_finished, is_suspended
from fedjob_operator.core.contradictions import contradiction
from fedjob_operator.core.divergence import diverges
from fedjob_operator.core.external import farewells
from fedjob_operator.core.failures import DEFINITIVE
from fedjob_operator.core.finished import look_after
from fedjob_operator.core.layout import wanted_clients
from fedjob_operator.core.leadership import lead
from fedjob_operator.core.moments import after
from fedjob_operator.core.observed import Observed, PodPhase
from fedjob_operator.core.phases import TERMINAL
from fedjob_operator.core.platform import LOCAL, Platform
from fedjob_operator.core.pods import plan_pods, release_pods
from fedjob_operator.core.quorum import may_start, missing_clients
from fedjob_operator.core.readiness import observe
from fedjob_operator.core.replacement import listening, with_replacements
from fedjob_operator.core.rounds import begin_again, drive, intend
from fedjob_operator.core.scene import Scene, Step, failed
from fedjob_operator.core.startup import wait_to_retry, watch_startup
from fedjob_operator.core.stopping import verdict
from fedjob_operator.core.suspension import resume, suspend
from fedjob_operator.core.warm_start import await_origin
from fedjob_protocol.reasons import Reason


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


def decide(job: FederatedJob, seen: Observed, now: datetime, *, platform: Platform = LOCAL) -> Decision:
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
    over = is_finished(job.status)
    if job.metadata.deletion_timestamp is not None:
        return Decision(status=job.status, finished=over)
    if over and not platform.looks_after_finished:
        return Decision(status=job.status, actions=(*release_pods(seen), *farewells(job, seen)), finished=True)
    if over:
        step = look_after(job, seen, now, platform).acting(*farewells(job, seen))
        return Decision(status=step.status, actions=step.actions, wake_at=step.wake_at, finished=True)
    step = _unfinished(job, seen, now, platform)
    status = _following(job, step.status)
    status = describe(job, status)
    return Decision(status=status, actions=step.actions, wake_at=step.wake_at, finished=status.phase in TERMINAL)


def _following(job: FederatedJob, status: FederatedJobStatus) -> FederatedJobStatus:
    """Return the status with what is copied from the spec; a round that is open is finished, also beyond the last."""
    if not status.layout and status.condition(ConditionType.ACCEPTED) is None:
        return status  # nothing is known of this spec yet
    current, generation = status.current_round, job.metadata.generation
    total = max(job.spec.rounds, current.number if current else 0)
    if (status.observed_generation, status.rounds.total) == (generation, total):
        return status
    rounds = status.rounds.model_copy(update={"total": total})
    return status.model_copy(update={"observed_generation": generation, "rounds": rounds})


def _unfinished(job: FederatedJob, seen: Observed, now: datetime, platform: Platform) -> Step:
    """Which part of a job's life it is in."""
    status = job.status
    if problem := forged(status):
        return Step(status=finish(status, failed=True, reason=Reason.INVALID_SPEC, message=problem, now=now))
    if not status.layout:
        return accept(job, seen, now, platform)
    if job.spec.suspend:
        return suspend(job, seen, now, platform)
    if problem := misfit(job, platform):
        return Step(status=refused(job, status, Reason.INVALID_SPEC, problem, now))
    if is_suspended(status):
        if platform.checks_pods and (waiting := pods_checked(job, seen, now)):
            return waiting
        return resume(job, accepted(job, status, now), now)
    job = as_accepted(job, platform)
    if (now_accepted := accepted(job, job.status, now)) is not job.status:
        job = job.model_copy(update={"status": now_accepted})
    if status.start_time is None and status.startup and status.startup.retry_at:
        return wait_to_retry(job, status.startup, seen, now, platform)
    if waiting := await_origin(job, seen, now):
        return waiting
    return _train(job, seen, now, platform)


def _train(job: FederatedJob, seen: Observed, now: datetime, platform: Platform) -> Step:
    """Make the pods that are wanted, and bring the rounds on as far as what was seen allows."""
    if (noted := with_replacements(job, seen)) is not job.status:
        return Step(status=noted)
    pods = plan_pods(job, seen, now)
    scene = Scene(job=job, seen=seen, pods=pods, now=now, platform=platform)
    step = _advance(scene)
    if not is_finished(step.status):
        step = watch_startup(scene, step)
    status = observe(scene, step.status)
    if is_finished(status):
        return Step(status=status)
    if status.startup and status.startup.retry_at:
        return Step(status=status, wake_at=step.wake_at)
    step = listening(scene, Step(status=status, actions=(*pods.actions, *step.actions), wake_at=step.wake_at))
    return step.waking(pods.wake_at).waking(_active_until(job, status))


def _advance(scene: Scene) -> Step:
    """Bring the rounds on."""
    status = scene.job.status
    if broken := _hopeless(scene):
        return failed(scene, status, *broken)
    led = lead(scene)
    if led.step is not None:
        return led.step
    state, aggregator = scene.state, scene.aggregator
    if state is None or aggregator is None:
        return Step(status=status)
    if state.term > status.term or status.term < 1:
        # Somebody reigned after us, or our status is older than the aggregator's volume: claim a higher term first.
        return Step(status=status.model_copy(update={"term": max(state.term, 0) + 1}))
    if broken := contradiction(scene, state):
        return failed(scene, status, *broken)
    step = Step(status=status, actions=led.actions)
    if status.current_round is not None:
        driven = drive(scene, status.current_round, aggregator, state)
        step = driven.acting(*led.actions)
    return _next(scene, step) if step.status.current_round is None else step


def _next(scene: Scene, step: Step) -> Step:
    """After a committed round, or before the first: done, or the intent of the next. One patch does both."""
    if is_finished(step.status):
        return step
    if done := verdict(scene.spec, step.status):
        return Step(status=finish(step.status, failed=False, reason=done[0], message=done[1], now=scene.now))
    if broken := _too_few_left(scene):
        return failed(scene, step.status, *broken)
    if diverges(step.status):
        return begin_again(scene, step.status)
    if step.status.start_time is None:
        start, at = may_start(scene.job, scene.pods, scene.now)
        if not start:
            return step.waking(at)
    return intend(scene, step.status)


def _active_until(job: FederatedJob, status: FederatedJobStatus) -> datetime | None:
    """When the job's time is over; it does not run while the job is suspended."""
    limit = job.spec.active_deadline_seconds
    if limit is None or status.start_time is None:
        return None
    return after(status.start_time, limit + status.suspended_seconds)


_UNUSABLE = frozenset({Reason.FOREIGN_VOLUME, Reason.CHECKPOINT_LOST})
"""Ends of an aggregator whose folder it would not open the next time, either."""


def _hopeless(scene: Scene) -> tuple[Reason, str] | None:
    """Whether the job can never go on: its time is over, or too many clients ended for a reason that stays."""
    until = _active_until(scene.job, scene.job.status)
    if until is not None and scene.now >= until:
        return Reason.ACTIVE_DEADLINE_EXCEEDED, f"the job ran longer than {scene.spec.active_deadline_seconds} s"
    for pod in scene.pods.aggregators.values():
        ended = pod.exit if pod.phase is not PodPhase.READY else None
        if ended and ended.reason in _UNUSABLE:
            return ended.reason, ended.message
    lost = [scene.pods.clients[index].exit for index in sorted(scene.pods.lost)]
    refusing = scene.pods.refusing.values() if scene.job.status.start_time is None else ()
    causes = [*(end for end in lost if end and end.reason in DEFINITIVE), *refusing]
    left = len(wanted_clients(scene.job)) - len(causes)
    if causes and left < min_clients(scene.spec):
        return causes[0].reason, f"{len(causes)} clients cannot take part; {missing_clients(scene.job, scene.pods)}"
    return None


def _too_few_left(scene: Scene) -> tuple[Reason, str] | None:
    """Whether too many clients are lost for any further round, where the job is to fail then."""
    if scene.spec.round_policy.on_quorum_loss is not OnQuorumLoss.FAIL:
        return None
    lost = len(scene.pods.lost)
    if len(wanted_clients(scene.job)) - lost >= min_clients(scene.spec):
        return None
    return Reason.QUORUM_LOST, f"{lost} clients are lost; {missing_clients(scene.job, scene.pods)}"
