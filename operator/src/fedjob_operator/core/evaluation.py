"""A committed round is evaluated before the next is intended: ``stop`` and the best model depend on it."""

from datetime import datetime

from fedjob_operator.api.v1alpha1 import FederatedJobStatus, RoundState
from fedjob_operator.core.actions import Evaluate, RecordEvaluation
from fedjob_operator.core.moments import after
from fedjob_operator.core.observed import PodRole, PodView
from fedjob_operator.core.scene import Scene, Step, progressing
from fedjob_operator.core.stopping import improves, usable_metrics
from fedjob_protocol.messages import Base, EvaluateTask, Evaluation, EvaluationState, RoundRecord
from fedjob_protocol.reasons import Reason
from fedjob_protocol.routes import model_path


def evaluate(scene: Scene, record: RoundRecord, aggregator: PodView) -> Step:
    """Get the evaluator's answer and post it, or give up after the time limit unless ``stop`` needs the result."""
    base = Base(round=record.round, digest=record.digest)
    answer = scene.seen.evaluation
    if answer and answer.base == base and answer.state is EvaluationState.DONE:
        metrics = usable_metrics(scene.spec, answer.metrics)
        return _record(scene, record, aggregator, metrics=metrics, problem=answer.message, count=answer.examples)
    problem = _problem(scene, record, base)
    if problem and scene.spec.stop is None:
        return _record(scene, record, aggregator, metrics={}, problem=problem, count=None)
    status = _evaluating(scene, record, problem)
    limit = _time_limit(scene, record)
    step = Step(status=status, wake_at=limit if scene.now < limit else None)
    evaluator = scene.pods.evaluator
    failed = answer is not None and answer.base == base and answer.state is EvaluationState.FAILED
    if evaluator is None or not scene.pods.evaluator_ready or failed:
        # An evaluation that failed stays so until another evaluator takes over: it is not asked for again and again.
        return step
    task = EvaluateTask(
        job_uid=scene.job.metadata.uid,
        base=base,
        model_url=(aggregator.url or "") + model_path(base.round),
        max_model_bytes=scene.spec.model.max_bytes,
    )
    return step.acting(Evaluate(url=evaluator.url or "", incarnation=evaluator.incarnation, task=task))


def _evaluating(scene: Scene, record: RoundRecord, problem: str | None) -> FederatedJobStatus:
    """Say that the round is being evaluated, what the evaluator waits for, or why nothing goes on without it."""
    status, number = scene.job.status, record.round
    if problem:
        message = f"round {number}: {problem}; `stop` needs its metrics"
        return progressing(scene, status, holds=False, reason=Reason.EVALUATION_FAILED, message=message)
    if status.current_round is not None:
        current = status.current_round.model_copy(update={"state": RoundState.EVALUATING})
        status = status.model_copy(update={"current_round": current})
    found = scene.pods.obstacles.get((PodRole.EVALUATOR, 0))
    if found and found.reason and found.is_specific:
        message = f"round {number} is committed; its evaluator: {found.message}"
        return progressing(scene, status, holds=True, reason=found.reason, message=message)
    message = f"round {number} is committed and being evaluated"
    return progressing(scene, status, holds=True, reason=Reason.EVALUATING, message=message)


def _problem(scene: Scene, record: RoundRecord, base: Base) -> str | None:
    """Why there will be no metrics for this round; ``None`` while there may be."""
    answer = scene.seen.evaluation
    if answer and answer.base == base and answer.state is EvaluationState.FAILED:
        return f"evaluation failed: {answer.reason}: {answer.message}"
    evaluator = scene.pods.evaluator
    if scene.pods.evaluator_lost and evaluator and evaluator.exit:
        return f"the evaluator is lost: {evaluator.exit.reason}: {evaluator.exit.message}"
    if scene.now >= _time_limit(scene, record):
        return f"no evaluation within {scene.spec.evaluation.deadline_seconds} s"
    return None


def _time_limit(scene: Scene, record: RoundRecord) -> datetime:
    """When evaluation is given up: the clock runs while there is an evaluator, not while the job was interrupted."""
    evaluator = scene.pods.evaluator
    began = max(record.committed_at, evaluator.since) if evaluator else record.committed_at
    return after(began, scene.spec.evaluation.deadline_seconds)


def _record(
    scene: Scene,
    record: RoundRecord,
    aggregator: PodView,
    *,
    metrics: dict[str, float],
    problem: str | None,
    count: int | None,
) -> Step:
    evaluation = Evaluation(
        job_uid=scene.job.metadata.uid,
        term=scene.job.status.term,
        digest=record.digest,
        metrics=metrics,
        examples=count,
        best=improves(scene.spec, scene.job.status, metrics),
        problem=problem[:1024] if problem else None,
    )
    action = RecordEvaluation(
        url=aggregator.url or "", incarnation=aggregator.incarnation, round=record.round, evaluation=evaluation
    )
    return Step(status=scene.job.status, actions=(action,))
