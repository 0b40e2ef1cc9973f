"""A committed round is evaluated before the next is intended: ``stop`` and the best model depend on it."""

from dataclasses import dataclass
from datetime import datetime

from fedjob_operator.api.v1alpha1 import EvaluationMode, FederatedJobStatus, RoundState
from fedjob_operator.core.actions import Evaluate, RecordEvaluation
from fedjob_operator.core.client_evaluation import ClientAnswers, ask_clients, asked_at, listed, together
from fedjob_operator.core.layout import needs_evaluator
from fedjob_operator.core.moments import after
from fedjob_operator.core.observed import PodRole, PodView
from fedjob_operator.core.scene import Scene, Step, progressing
from fedjob_operator.core.stopping import improves, usable_metrics
from fedjob_protocol.messages import Base, ClientEvaluation, Evaluation, RoundRecord, Spread
from fedjob_protocol.reasons import Reason
from fedjob_protocol.routes import model_path
from fedjob_protocol.tasks import NON_FINITE_METRICS, EvaluateTask, EvaluationState

CLIENTS_PREFIX = "clients/"
"""Before the names of the clients' metrics where there is an evaluator, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """What one of those who evaluate has to say."""

    metrics: dict[str, float] | None = None
    """``None`` while they are waited for, or where there will be none."""
    examples: int | None = None
    problem: str | None = None
    """Why there are no metrics, or fewer than expected."""
    actions: tuple[Evaluate, ...] = ()
    waiting: str = ""
    """For whom, where that is worth telling."""
    clients: tuple[ClientEvaluation, ...] = ()
    spread: dict[str, Spread] | None = None

    @property
    def is_pending(self) -> bool:
        """Whether there may still be metrics."""
        return self.metrics is None and self.problem is None


def evaluate(scene: Scene, record: RoundRecord, aggregator: PodView) -> Step:
    """Get the answers and post them, or give up after the time limit unless ``stop`` needs the result."""
    asks_clients = EvaluationMode.CLIENTS in scene.spec.evaluation.modes
    parts = []
    if needs_evaluator(scene.job) or not asks_clients:
        parts.append(_by_evaluator(scene, record, aggregator))
    if asks_clients:
        parts.append(_by_clients(scene, record, aggregator))
    failed = next((part.problem for part in parts if part.metrics is None and part.problem), None)
    pending = any(part.is_pending for part in parts)
    if pending or (failed and scene.spec.stop is not None):
        limit = _time_limit(scene, record)
        status = _evaluating(scene, record, failed if not pending else None, parts)
        step = Step(status=status, wake_at=limit if scene.now < limit else None)
        return step.acting(*(action for part in parts for action in part.actions))
    return _record(scene, record, aggregator, parts)


def _by_evaluator(scene: Scene, record: RoundRecord, aggregator: PodView) -> _Part:
    base = Base(round=record.round, digest=record.digest)
    answer = scene.seen.evaluation
    if answer and answer.base == base and answer.state is EvaluationState.DONE:
        return _Part(metrics=dict(answer.metrics), examples=answer.examples, problem=answer.message)
    problem = _problem(scene, record, base)
    evaluator = scene.pods.evaluator
    failed = answer is not None and answer.base == base and answer.state is EvaluationState.FAILED
    if evaluator is None or not scene.pods.evaluator_ready or failed:
        # An evaluation that failed stays so until another evaluator takes over: it is not asked for again and again.
        return _Part(problem=problem)
    task = _task(scene, record, aggregator)
    action = Evaluate(url=evaluator.url or "", incarnation=evaluator.incarnation, task=task)
    return _Part(problem=problem, actions=(action,))


def _by_clients(scene: Scene, record: RoundRecord, aggregator: PodView) -> _Part:
    found = ask_clients(scene, record)
    measured = together(found)
    over = scene.now >= _time_limit(scene, record)
    if found.pending and not over:
        count = len(found.answers)
        waiting = f"{count} of {count + len(found.pending)} clients have evaluated it"
        return _Part(actions=_questions(scene, record, aggregator, found), waiting=waiting)
    if not measured.metrics and not (measured.problem or "").startswith(NON_FINITE_METRICS):
        why = measured.problem or "no client has held-out examples"
        actions = _questions(scene, record, aggregator, found)
        return _Part(problem=f"no client evaluated it: {why}", actions=actions)
    return _Part(
        metrics=measured.metrics,
        examples=measured.examples,
        problem=measured.problem,
        clients=listed(found),
        spread=measured.spread,
    )


def _questions(scene: Scene, record: RoundRecord, aggregator: PodView, found: ClientAnswers) -> tuple[Evaluate, ...]:
    task = _task(scene, record, aggregator)
    pods = {index: pod for index in found.pending if (pod := asked_at(scene, index))}
    return tuple(
        # Whoever registered itself is called with a token of its own, as for a task.
        Evaluate(url=pod.url or "", incarnation=pod.incarnation, boot_id=pod.boot_id, task=task, client=index)
        for index, pod in pods.items()
    )


def _task(scene: Scene, record: RoundRecord, aggregator: PodView) -> EvaluateTask:
    return EvaluateTask(
        job_uid=scene.job.metadata.uid,
        base=Base(round=record.round, digest=record.digest),
        model_url=(aggregator.url or "") + model_path(record.round),
        max_model_bytes=scene.spec.model.max_bytes,
    )


def _evaluating(scene: Scene, record: RoundRecord, problem: str | None, parts: list[_Part]) -> FederatedJobStatus:
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
    told = "; ".join(["", *(part.waiting for part in parts if part.waiting)])
    message = f"round {number} is committed and being evaluated{told}"
    return progressing(scene, status, holds=True, reason=Reason.EVALUATING, message=message)


def _problem(scene: Scene, record: RoundRecord, base: Base) -> str | None:
    """Why there will be no metrics of the evaluator for this round; ``None`` while there may be."""
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
    """When evaluation is given up: the clock runs while somebody can evaluate, not while the job was interrupted."""
    began = record.committed_at
    if needs_evaluator(scene.job):
        began = max(began, scene.pods.evaluator.since) if scene.pods.evaluator else began
    else:
        ready = [scene.pods.clients[index].since for index in scene.pods.ready]
        began = max(began, min(ready)) if ready else began
    return after(began, scene.spec.evaluation.deadline_seconds)


def _record(scene: Scene, record: RoundRecord, aggregator: PodView, parts: list[_Part]) -> Step:
    """Post what there is: the evaluator's metrics under their names; the clients', too, unless it has the names."""
    first, *others = parts
    merged = dict(first.metrics or {})
    for part in others:
        merged |= {f"{CLIENTS_PREFIX}{name}": value for name, value in (part.metrics or {}).items()}
    metrics = usable_metrics(scene.spec, merged)
    problem = next((part.problem for part in parts if part.problem), None)
    spread = next((part.spread for part in parts if part.spread), {})
    evaluation = Evaluation(
        job_uid=scene.job.metadata.uid,
        term=scene.job.status.term,
        digest=record.digest,
        metrics=metrics,
        examples=first.examples,
        best=improves(scene.spec, scene.job.status, metrics),
        problem=problem[:1024] if problem else None,
        clients=tuple(item for part in parts for item in part.clients),
        spread={name: item for name, item in spread.items() if 1 <= len(name) <= 64},
    )
    action = RecordEvaluation(
        url=aggregator.url or "", incarnation=aggregator.incarnation, round=record.round, evaluation=evaluation
    )
    return Step(status=scene.job.status, actions=(action,))
