"""Whether the training diverges, and the one round from the best model that may mend it.

A model diverges when its loss is not finite, or over ten times the lowest so far; it is the third in a row that counts,
or the first that is not finite. Then one round begins from the best model, with half the learning rate from there on:
it is the next round, with the best model as its base, never a step back. When that does not help, the job fails.
"""

from collections.abc import Mapping
from typing import Final

from fedjob_operator.api.v1alpha1 import (
    CommittedModel,
    Divergence,
    FederatedJob,
    FederatedJobSpec,
    FederatedJobStatus,
    ObjectiveMode,
    Recovery,
)
from fedjob_protocol.messages import Base
from fedjob_protocol.tasks import NON_FINITE_METRICS

FACTOR: Final = 10.0
"""A loss over so many times the lowest is too high."""
ROUNDS: Final = 3
"""So many models in a row with too high a loss are a divergence."""
LEAST_LOSS: Final = 1e-6
"""A lower loss counts as this one: ten times next to nothing is no divergence."""
LOSS: Final = "loss"


def loss_name(spec: FederatedJobSpec) -> str | None:
    """Name of the metric that is watched: the objective's where less is better, else ``loss``."""
    if spec.objective is None:
        return None
    return spec.objective.metric if spec.objective.mode is ObjectiveMode.MIN else LOSS


def watched(
    spec: FederatedJobSpec, before: Divergence | None, metrics: Mapping[str, float], problem: str | None
) -> Divergence | None:
    """Take in the metrics of a committed model.

    Args:
        spec: The spec.
        before: What was known.
        metrics: Finite ones only.
        problem: The record's, which names those that are not finite.
    """
    name = loss_name(spec)
    if name is None:
        return before
    known = before or Divergence()
    if name in metrics:
        lowest = known.lowest_loss
        too_high = lowest is not None and metrics[name] > FACTOR * max(lowest, LEAST_LOSS)
        update = {
            "rounds": known.rounds + 1 if too_high else 0,
            "lowest_loss": metrics[name] if lowest is None else min(lowest, metrics[name]),
        }
        return known.model_copy(update=update)
    if name in _not_finite(problem):
        return known.model_copy(update={"rounds": ROUNDS})
    return before


def _not_finite(problem: str | None) -> list[str]:
    text = problem or ""
    return text.removeprefix(NON_FINITE_METRICS).split(", ") if text.startswith(NON_FINITE_METRICS) else []


def diverges(status: FederatedJobStatus) -> bool:
    """Whether the training diverged, and nothing was done about it yet."""
    return status.divergence is not None and status.divergence.rounds >= ROUNDS


def recovered(status: FederatedJobStatus, *, number: int, newest: bool = False) -> FederatedJobStatus | None:
    """Return the status with the round that begins from the best model; ``None`` where there can be none.

    Args:
        status: The status.
        number: Of the round that begins so.
        newest: Whether the newest model will do where none is the best: the clients' updates diverged, not a model.
    """
    known, best = status.divergence or Divergence(), status.best
    base = CommittedModel(round=best.round, digest=best.digest) if best else status.model if newest else None
    if known.recovery is not None or base is None:
        return None
    recovery = Recovery(round=number, base=CommittedModel(round=base.round, digest=base.digest))
    return status.model_copy(update={"divergence": known.model_copy(update={"rounds": 0, "recovery": recovery})})


def base_of_round(job: FederatedJob, number: int) -> Base | None:
    """The model that a round starts from: the newest, or where it recovers the best; ``None`` for round 0."""
    found = job.status.divergence.recovery if job.status.divergence else None
    model = found.base if found and found.round == number else job.status.model
    return Base(round=model.round, digest=model.digest) if model else None


def learning_rate_factor(status: FederatedJobStatus, number: int) -> float:
    """What the learning rate of a round is multiplied by."""
    found = status.divergence.recovery if status.divergence else None
    return found.learning_rate_factor if found and number >= found.round else 1.0


def describe_divergence(spec: FederatedJobSpec, status: FederatedJobStatus) -> str:
    """Say in which way the training diverged."""
    name = loss_name(spec) or LOSS
    lowest = status.divergence.lowest_loss if status.divergence else None
    last = {metric.name: metric.value for metric in status.metrics}.get(name)
    best = f"; the best model is that of round {status.best.round}" if status.best else ""
    if last is None or lowest is None:
        return f"{name} is not finite{best}"
    return f"{name} was over {FACTOR:g} times the lowest ({lowest:.6g}) for {ROUNDS} rounds, {last:.6g} now{best}"
