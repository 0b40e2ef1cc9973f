"""What the round in progress needs: opened, tasks given, watched, evaluated, adopted, tried again.

The order is fixed by two rules. The intent is in the status before any call that follows from it. And what the
aggregator has committed is true: the status follows it, never the other way round.
"""

from datetime import datetime

from fedjob_operator.api.resolve import min_clients, min_reports
from fedjob_operator.api.v1alpha1 import (
    ConditionType,
    CurrentRound,
    FederatedJobStatus,
    LateJoiners,
    OnQuorumLoss,
    RoundState,
)
from fedjob_operator.core.actions import ReportFailure, WatchRound
from fedjob_operator.core.adoption import adopt
from fedjob_operator.core.divergence import describe_divergence, recovered
from fedjob_operator.core.evaluation import evaluate
from fedjob_operator.core.layout import client_indices, wanted_clients
from fedjob_operator.core.leadership import await_standbys
from fedjob_operator.core.moments import after
from fedjob_operator.core.observed import PodRole, PodView
from fedjob_operator.core.quorum import at_hand, definitive_reason, draw, missing_clients, retry_delay
from fedjob_operator.core.scene import Scene, Step, failed, progressing
from fedjob_operator.core.tasks import open_round, start_task
from fedjob_operator.core.turns import takes_turns
from fedjob_operator.core.warm_start import search_for_model
from fedjob_protocol.errors import KINDS, Word
from fedjob_protocol.messages import AggregatorState, FailureReport, RoundView
from fedjob_protocol.reasons import Reason
from fedjob_protocol.round import RoundState as AggregatorRound


def intend(scene: Scene, status: FederatedJobStatus) -> Step:
    """Write the intent of the next round into the status, if enough clients are there."""
    number = status.rounds.committed + 1
    if at_hand(scene.job, scene.pods) < _enough(scene, number):
        message = _who_is_missing(scene)
        return Step(status=progressing(scene, status, holds=False, reason=Reason.WAITING_FOR_CLIENTS, message=message))
    return Step(status=_intent(scene, status, number=number, attempt=1, redraw=0))


def begin_again(scene: Scene, status: FederatedJobStatus) -> Step:
    """The training diverged: the next round begins from the best model, once; the second time the job fails."""
    why = describe_divergence(scene.spec, status)
    recovering = recovered(status, number=status.rounds.committed + 1)
    if recovering is None:
        return failed(scene, status, Reason.DIVERGED, why)
    return intend(scene, recovering)


def _enough(scene: Scene, number: int) -> int:
    """How many clients have to be ready for a round; one makes the initial model."""
    return 1 if number == 0 else min_clients(scene.spec)


def _who_is_missing(scene: Scene) -> str:
    needed = min_clients(scene.spec)
    there, word = at_hand(scene.job, scene.pods), "left" if takes_turns(scene.spec) else "ready"
    return f"{there} of {needed} needed clients are {word}; {missing_clients(scene.job, scene.pods)}"


def drive(scene: Scene, current: CurrentRound, aggregator: PodView, state: AggregatorState) -> Step:
    """Advance the round of the intent by what was seen of it."""
    status = scene.job.status
    if scene.committed()[0] == current.number:
        return _finish_committed(scene, current, aggregator)
    view = scene.view(current.number)
    if view is not None and view.replication is not None:
        return await_standbys(scene, aggregator, view)
    if current.boot_id != state.boot_id:
        # The aggregator was restarted: whatever it had folded is gone. Same participants, and no client trains again.
        return Step(status=_intent(scene, status, number=current.number, again=current))
    if view is not None and view.attempt > current.attempt:
        return Step(status=_intent(scene, status, number=current.number, again=current, attempt=view.attempt + 1))
    if view is not None and view.attempt == current.attempt:
        if view.state is AggregatorRound.ABANDONED:
            return _after_failure(scene, current, _failures(view), view=view)
        if view.state is AggregatorRound.CANCELLED:
            return Step(status=_intent(scene, status, number=current.number, again=current))
        if view.term == status.term:
            return _collect(scene, current, aggregator, view)
    return _open(scene, current, aggregator)


def _intent(
    scene: Scene,
    status: FederatedJobStatus,
    *,
    number: int,
    attempt: int = 1,
    redraw: int = 0,
    again: CurrentRound | None = None,
) -> FederatedJobStatus:
    """Return the status with a new attempt: of ``again`` with the same participants, else with a new choice."""
    if again is not None:
        attempt, redraw = max(attempt, again.attempt + 1), again.redraw
    selected = again.selected if again else draw(scene.job, scene.pods, round_number=number, redraw=redraw)
    current = CurrentRound(
        number=number,
        attempt=attempt,
        redraw=redraw,
        selected=selected,
        boot_id=scene.state.boot_id if scene.state else None,
        started_at=scene.now,
    )
    if scene.pods.ready.issuperset(selected):
        current = _opened(scene, current)
    if status.start_time is None:
        status = _started(scene, status)
    status = status.model_copy(update={"current_round": current})
    reason = Reason.ROUND_IN_PROGRESS if current.state is RoundState.OPEN else Reason.PROVISIONING
    return progressing(scene, status, holds=True, reason=reason, message=_progress_message(current, status))


def _started(scene: Scene, status: FederatedJobStatus) -> FederatedJobStatus:
    """The job starts: who is not ready now is late, which may matter."""
    update: dict[str, object] = {"start_time": scene.now, "startup": None}
    if scene.spec.late_joiners is LateJoiners.REFUSE:
        late = tuple(index for index in client_indices(status.layout) if index not in scene.pods.ready)
        update["clients"] = status.clients.model_copy(update={"late_indices": late})
    return status.model_copy(update=update)


def _opened(scene: Scene, current: CurrentRound) -> CurrentRound:
    deadline = after(scene.now, scene.spec.round_policy.deadline_seconds)
    return current.model_copy(update={"state": RoundState.OPEN, "deadline": deadline})


def _progress_message(current: CurrentRound, status: FederatedJobStatus) -> str:
    if current.number == 0:
        return "making the initial model"
    tries = f", attempt {current.attempt}" if current.attempt > 1 else ""
    recovery = status.divergence.recovery if status.divergence else None
    origin = ""
    if recovery is not None and recovery.round == current.number:
        factor = recovery.learning_rate_factor
        origin = f", from the model of round {recovery.base.round} with {factor:g} times the learning rate"
    return f"round {current.number}{tries} with {len(current.selected)} clients{origin}"


def _open(scene: Scene, current: CurrentRound, aggregator: PodView) -> Step:
    """Open the round once its participants are ready, or their time for that is over."""
    status = scene.job.status
    step = None if _goes_on(scene, current) else _await_participants(scene, current)
    if step is not None:
        return step
    if current.state is not RoundState.OPEN:
        opened = _opened(scene, current)
        status = status.model_copy(update={"current_round": opened})
        message = _progress_message(opened, status)
        return Step(status=progressing(scene, status, holds=True, reason=Reason.ROUND_IN_PROGRESS, message=message))
    action = open_round(scene, current, aggregator)
    failure = scene.seen.failures.get(action.key)
    match failure.word if failure else None:
        case Word.ROUND_CONFLICT | Word.STALE_ATTEMPT:
            return Step(status=_intent(scene, status, number=current.number, again=current))
        case Word.WRONG_JOB:
            return failed(scene, status, Reason.FOREIGN_VOLUME, failure.message if failure else "")
        case Word.WRONG_BASE | Word.WRONG_ROUND:
            return failed(scene, status, Reason.CHECKPOINT_LOST, failure.message if failure else "")
        case (
            Word.BAD_REQUEST
        ):  # such as a strategy that the aggregator's image does not have: it would be the same again
            return failed(scene, status, Reason.INVALID_SPEC, failure.message if failure else "")
        case _:
            return Step(status=status, actions=(action,))


def _goes_on(scene: Scene, current: CurrentRound) -> bool:
    """Whether the aggregator has this attempt open; where clients take turns, some may be back home by then."""
    view = scene.view(current.number)
    is_open = view is not None and (view.state, view.attempt) == (AggregatorRound.OPEN, current.attempt)
    return is_open and takes_turns(scene.spec)


def _await_participants(scene: Scene, current: CurrentRound) -> Step | None:
    """Wait for the participants; ``None`` once the round can be opened for them.

    Nobody waits for those that wait for room on a node themselves, as soon as one is ready: their turn comes when
    others give back what they hold.
    """
    wanted = frozenset(wanted_clients(scene.job)) - scene.pods.lost - scene.pods.absent
    absent = [index for index in current.selected if index in wanted and index not in scene.pods.ready]
    starting = [index for index in absent if index not in scene.pods.queued]
    limit = _latest_opening(scene, current)
    present = scene.pods.ready.intersection(current.selected)
    if starting and scene.now < limit:
        return Step(status=_provisioning(scene, current, starting), wake_at=limit)
    if absent and not present and not starting:
        return Step(status=_provisioning(scene, current, absent))  # the cluster has no room for a single one
    queued = len(absent) - len(starting)
    needed = 1 if current.number == 0 else min_reports(scene.spec)
    if not present or len(present) + queued < needed:
        return _after_failure(scene, current, missing_clients(scene.job, scene.pods), view=None)
    return None


def _latest_opening(scene: Scene, current: CurrentRound) -> datetime:
    """When a round opens without those of its participants who are not ready.

    With enough clients for the job to go on, and for a round to be committed, it waits no longer than the start of the
    job did: one that never came would otherwise hold up every round that it is chosen for.
    """
    seconds = scene.spec.startup_deadline_seconds
    needed = 1 if current.number == 0 else max(min_clients(scene.spec), min_reports(scene.spec))
    if len(scene.pods.ready) >= needed:
        seconds = min(seconds, scene.spec.join_wait_seconds)
    return after(current.started_at or scene.now, seconds)


def _provisioning(scene: Scene, current: CurrentRound, absent: list[int]) -> FederatedJobStatus:
    """Say what the participants wait for, where it is something to mend."""
    status = scene.job.status
    found = [scene.pods.obstacles.get((PodRole.CLIENT, index)) for index in absent]
    blocked = next(
        ((index, item) for index, item in zip(absent, found, strict=True) if item and item.is_specific), None
    )
    message = _progress_message(current, status)
    if at_hand(scene.job, scene.pods) < _enough(scene, current.number):
        message = f"{message} waits: {_who_is_missing(scene)}"
        return progressing(scene, status, holds=False, reason=Reason.WAITING_FOR_CLIENTS, message=message)
    if blocked is None or blocked[1].reason is None:
        return progressing(scene, status, holds=True, reason=Reason.PROVISIONING, message=message)
    message = f"{message} waits for client {blocked[0]}: {blocked[1].message}"
    return progressing(scene, status, holds=True, reason=blocked[1].reason, message=message)


def _collect(scene: Scene, current: CurrentRound, aggregator: PodView, view: RoundView) -> Step:
    """Give tasks to those who have none, report those who are lost, and watch."""
    status = scene.job.status
    if len(view.reported) != current.reported:
        current = current.model_copy(update={"reported": len(view.reported)})
        status = status.model_copy(update={"current_round": current})
    if view.storage is not None:
        message = f"round {current.number} cannot be committed: {view.storage.message}; trying again"
        status = progressing(scene, status, holds=False, reason=Reason.CHECKPOINT_FAILED, message=message)
    else:
        message = _progress_message(current, status)
        status = progressing(scene, status, holds=True, reason=Reason.ROUND_IN_PROGRESS, message=message)
    step = Step(status=status)
    if view.state is AggregatorRound.OPEN:
        wanted = frozenset(wanted_clients(scene.job))
        for index in _pending(current, view):
            step = _assign(scene, step, current, index, aggregator, view, is_wanted=index in wanted)
    watch = WatchRound(
        url=aggregator.url or "",
        incarnation=aggregator.incarnation,
        round=current.number,
        attempt=current.attempt,
        settled=len(view.reported) + len(view.failed) if takes_turns(scene.spec) else None,
    )
    return step.acting(watch)


def _pending(current: CurrentRound, view: RoundView) -> list[int]:
    settled = {*view.reported, *(failure.client for failure in view.failed)}
    return [index for index in current.selected if index not in settled]


def _assign(
    scene: Scene,
    step: Step,
    current: CurrentRound,
    index: int,
    aggregator: PodView,
    view: RoundView,
    *,
    is_wanted: bool,
) -> Step:
    pod = scene.pods.clients.get(index)
    if not is_wanted:
        return step.acting(_report(scene, current, index, aggregator, Reason.CLIENT_LOST, "the job was scaled down"))
    if index in scene.pods.lost:
        why = pod.exit.message if pod and pod.exit else "its pods ended too often"
        reason = pod.exit.reason if pod and pod.exit and pod.exit.reason in _CAUSES else Reason.CLIENT_LOST
        return step.acting(_report(scene, current, index, aggregator, reason, why))
    if index in scene.pods.absent:
        why = scene.pods.obstacles[PodRole.CLIENT, index].message
        return step.acting(_report(scene, current, index, aggregator, Reason.CLIENT_LOST, why))
    if pod is None or index not in scene.pods.ready:
        return step
    ack = scene.seen.acks.get(index)
    wanted = (pod.incarnation, current.number, scene.job.status.term, current.attempt, view.boot_id)
    if ack and (ack.incarnation, ack.round, ack.term, ack.attempt, ack.boot_id) == wanted:
        return step
    if current.number == 0 and (search := search_for_model(scene, current.attempt, step)):
        return search
    task = start_task(scene, current, client=pod, aggregator=aggregator, view=view)
    failure = scene.seen.failures.get(task.key)
    if failure and failure.word in _HOPELESS and pod.boot_id is None:  # outside, it may just have been started again
        return step.acting(_report(scene, current, index, aggregator, Reason.PROTOCOL_MISMATCH, failure.message))
    return step.acting(task)


_CAUSES = frozenset({Reason.DATA_ERROR, Reason.TRAINER_ERROR, Reason.OOM_KILLED, Reason.PROTOCOL_MISMATCH})
"""Reasons of a pod's end that say more than that the client is lost."""
_HOPELESS = frozenset(
    word for word, kind in KINDS.items() if not kind.retryable and word not in (Word.STALE_TERM, Word.STALE_ATTEMPT)
)
"""Answers to a task that would be the same again."""


def _report(
    scene: Scene, current: CurrentRound, index: int, aggregator: PodView, reason: Reason, message: str
) -> ReportFailure:
    report = FailureReport(
        job_uid=scene.job.metadata.uid,
        term=scene.job.status.term,
        attempt=current.attempt,
        boot_id=current.boot_id or "-",
        reason=reason,
        message=message[:1024],
    )
    return ReportFailure(
        url=aggregator.url or "", incarnation=aggregator.incarnation, client=index, round=current.number, report=report
    )


def _finish_committed(scene: Scene, current: CurrentRound, aggregator: PodView) -> Step:
    """The round is committed: evaluate it if that is due, then adopt it."""
    view = scene.view(current.number)
    record = view.record if view else None
    if view is None or record is None:
        # Committed before this operator's first look, and the view is not here yet.
        watch = WatchRound(
            url=aggregator.url or "",
            incarnation=aggregator.incarnation,
            round=current.number,
            attempt=current.attempt,
        )
        return Step(status=scene.job.status, actions=(watch,))
    if view.replication is not None:
        return await_standbys(scene, aggregator, view)
    if record.expects_evaluation and view.state is not AggregatorRound.EVALUATED:
        return evaluate(scene, record, aggregator)
    return Step(status=adopt(scene, record))


def _failures(view: RoundView) -> str:
    return "; ".join(f"client {failure.client}: {failure.reason}: {failure.message}" for failure in view.failed[:3])


def _after_failure(scene: Scene, current: CurrentRound, why: str, *, view: RoundView | None) -> Step:
    """An attempt ended below ``minReports``: draw again, wait, or give the job up."""
    status, policy = scene.job.status, scene.spec.round_policy
    count = status.failed_attempts + 1
    needed = 1 if current.number == 0 else min_reports(scene.spec)
    got = len(view.reported) if view else 0
    message = f"round {current.number}, attempt {current.attempt}: {got} of {needed} needed reports"
    message = f"{message}; {why}" if why else f"{message} at the deadline"
    if count < policy.max_attempts:
        return _redraw(scene, current, count)
    hopeless = definitive_reason(view.failed if view else [], participants=len(current.selected), needed=needed)
    if hopeless is Reason.NON_FINITE_UPDATE and scene.spec.objective is not None and current.number > 0:
        return _exploded(scene, current, message)
    if hopeless or policy.on_quorum_loss is OnQuorumLoss.FAIL:
        return failed(scene, status, hopeless or Reason.QUORUM_LOST, message)
    return _wait_for_quorum(scene, current, count, message, needed)


def _exploded(scene: Scene, current: CurrentRound, why: str) -> Step:
    """No model diverged, but the clients' updates did: they are not finite, in each attempt."""
    status = recovered(scene.job.status, number=current.number, newest=True)
    if status is None:
        return failed(scene, scene.job.status, Reason.DIVERGED, why)
    status = status.model_copy(update={"failed_attempts": 0})
    again = _intent(scene, status, number=current.number, attempt=current.attempt + 1, redraw=current.redraw + 1)
    return Step(status=again)


def _redraw(scene: Scene, current: CurrentRound, count: int) -> Step:
    status = scene.job.status.model_copy(update={"failed_attempts": count})
    attempt, redraw = current.attempt + 1, current.redraw + 1
    return Step(status=_intent(scene, status, number=current.number, attempt=attempt, redraw=redraw))


def _wait_for_quorum(scene: Scene, current: CurrentRound, count: int, message: str, needed: int) -> Step:
    needed = max(needed, _enough(scene, current.number))
    is_short = at_hand(scene.job, scene.pods) < needed
    message = f"{message}; {_who_is_missing(scene)}" if is_short else message
    status = progressing(scene, scene.job.status, holds=False, reason=Reason.QUORUM_LOST, message=message)
    condition = status.condition(ConditionType.PROGRESSING)
    since = condition.last_transition_time if condition else scene.now
    due = after(since, retry_delay(count, scene.spec.round_policy.max_attempts))
    if scene.now < due:
        return Step(status=status, wake_at=due)
    if is_short:
        return Step(status=status)
    return _redraw(scene, current, count)
