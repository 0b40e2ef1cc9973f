"""Which model is the best so far, and whether the job is done."""

from collections.abc import Mapping

from fedjob_operator.api.status import MAX_METRICS
from fedjob_operator.api.v1alpha1 import BestModel, FederatedJobSpec, FederatedJobStatus, Objective, ObjectiveMode
from fedjob_protocol.reasons import Reason

MAX_METRIC_NAME = 64
"""Longest name of a metric, in characters."""


def is_due(spec: FederatedJobSpec, round_number: int) -> bool:
    """Whether a round is evaluated: every ``periodRounds``-th, and the last; never the initial model."""
    if not spec.evaluation.modes or round_number == 0:
        return False
    return round_number % spec.evaluation.period_rounds == 0 or round_number == spec.rounds


def is_better(objective: Objective, value: float, best: BestModel | None, *, min_delta: float = 0.0) -> bool:
    """Whether a value improves on another by more than ``min_delta`` (by anything at all where that is 0)."""
    if best is None:
        return True
    gain = value - best.value if objective.mode is ObjectiveMode.MAX else best.value - value
    return gain > min_delta


def improves(spec: FederatedJobSpec, status: FederatedJobStatus, metrics: Mapping[str, float]) -> bool:
    """Whether a model with these metrics is the best so far; without an objective none is."""
    if spec.objective is None or spec.objective.metric not in metrics:
        return False
    return is_better(spec.objective, metrics[spec.objective.metric], status.best)


def restarts_patience(spec: FederatedJobSpec, status: FederatedJobStatus, metrics: Mapping[str, float]) -> bool:
    """Whether these metrics improve by more than ``stop.minDelta`` on the last ones that did."""
    if spec.objective is None or spec.stop is None or spec.objective.metric not in metrics:
        return False
    value = metrics[spec.objective.metric]
    return is_better(spec.objective, value, status.last_improvement, min_delta=spec.stop.min_delta)


def usable_metrics(spec: FederatedJobSpec, metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics that a status can hold: at most `MAX_METRICS`, with names that are neither empty nor too long.

    The names are a trainer's own words. The objective's metric is the last to be left out.
    """
    wanted = spec.objective.metric if spec.objective else None
    names = sorted(metrics, key=lambda name: (name != wanted, name))
    usable = [name for name in names if 1 <= len(name) <= MAX_METRIC_NAME]
    return {name: metrics[name] for name in usable[:MAX_METRICS]}


def verdict(spec: FederatedJobSpec, status: FederatedJobStatus) -> tuple[Reason, str] | None:
    """Return why the job is complete, or ``None`` while it is not. Looks at committed, evaluated rounds only."""
    committed = status.rounds.committed
    if early := _stops_early(spec, status):
        return early
    if committed >= spec.rounds:
        return Reason.ROUNDS_COMPLETED, f"all {spec.rounds} rounds are committed"
    return None


def _stops_early(spec: FederatedJobSpec, status: FederatedJobStatus) -> tuple[Reason, str] | None:
    stop, objective = spec.stop, spec.objective
    if stop is None or objective is None:
        return None
    reached = {metric.name: metric.value for metric in status.metrics}.get(objective.metric)
    if stop.target is not None and reached is not None:
        ahead = reached - stop.target if objective.mode is ObjectiveMode.MAX else stop.target - reached
        if ahead >= 0:
            return Reason.TARGET_REACHED, f"{objective.metric} {reached:.6g} reached the target {stop.target:g}"
    last = status.last_improvement
    waited = status.rounds.committed - last.round if last else 0
    if last and stop.patience_rounds is not None and waited >= stop.patience_rounds:
        return Reason.NO_IMPROVEMENT, (
            f"{objective.metric} has not improved on {last.value:.6g} of round {last.round} for {waited} rounds"
        )
    return None
