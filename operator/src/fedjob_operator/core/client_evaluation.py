"""Evaluation by the clients: each measures a committed model on its own held-out examples, weighted by their number."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum, isfinite, sqrt

from fedjob_operator.api.v1alpha1 import FederatedJobSpec
from fedjob_operator.core.layout import wanted_clients
from fedjob_operator.core.observed import PodRole, PodView
from fedjob_operator.core.scene import Scene
from fedjob_operator.core.stopping import usable_metrics
from fedjob_protocol.messages import MAX_CLIENT_EVALUATIONS, Base, ClientEvaluation, RoundRecord, Spread
from fedjob_protocol.tasks import NON_FINITE_METRICS, EvaluationState, EvaluationView

MAX_EXAMPLES = 2**53
"""Most held-out examples that a client's word is taken for."""
MAX_TOLD = 3
"""Clients whose problem is told in a message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientAnswers:
    """Who answered, and who is still waited for."""

    answers: tuple[ClientEvaluation, ...]
    """By index, with those that failed."""
    pending: tuple[int, ...]
    """Ready, or in the round that is evaluated, and neither lost nor answered; by index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Together:
    """What the clients measured together."""

    metrics: dict[str, float]
    """Means, weighted by examples."""
    spread: dict[str, Spread]
    examples: int
    problem: str | None


def ask_clients(scene: Scene, record: RoundRecord) -> ClientAnswers:
    """Sort the clients by whether they have answered.

    Those are waited for that are ready, and those whose updates are in the model: a pod that never starts holds no
    round up.
    """
    base = Base(round=record.round, digest=record.digest)
    contributors = {item.client for item in record.contributors}
    expected = (scene.pods.ready | contributors) & frozenset(wanted_clients(scene.job)) - scene.pods.lost
    views = {index: view for index, view in scene.seen.client_evaluations.items() if _is_over(view, base)}
    answers = {index: _answer(scene.spec, index, view) for index, view in views.items()}
    return ClientAnswers(
        answers=tuple(answers[index] for index in sorted(answers)),
        pending=tuple(sorted(expected - answers.keys())),
    )


def _is_over(view: EvaluationView, base: Base) -> bool:
    return view.base == base and view.state is not EvaluationState.RUNNING


def _answer(spec: FederatedJobSpec, index: int, view: EvaluationView) -> ClientEvaluation:
    """What a client said, in words that a record can hold: names and numbers are its trainer's own."""
    failed = view.state is EvaluationState.FAILED
    problem = f"{view.reason}: {view.message}" if failed else view.message
    finite = {name: value for name, value in view.metrics.items() if isfinite(value)}
    return ClientEvaluation(
        client=index,
        examples=view.examples if view.examples is not None and 0 <= view.examples <= MAX_EXAMPLES else None,
        metrics={} if failed else usable_metrics(spec, finite),
        problem=problem[:1024] if problem else None,
    )


def together(found: ClientAnswers) -> Together:
    """Put the clients' answers together: means and deviations weighted by examples, and what went wrong.

    A client that does not say how many examples it has counts as one. The sums are exact, so that their order does not
    matter.
    """
    names = sorted({name for item in found.answers for name in item.metrics})
    spreads = {name: _spread([item for item in found.answers if name in item.metrics], name) for name in names[:64]}
    spread = {name: item for name, item in spreads.items() if item is not None}
    return Together(
        metrics={name: item.mean for name, item in spread.items()},
        spread=spread,
        examples=sum(item.examples or 0 for item in found.answers),
        problem=_problem(found, names),
    )


def _spread(items: Sequence[ClientEvaluation], name: str) -> Spread | None:
    """How far the values of a metric lie apart; ``None`` where they are so large that it is no number any more."""
    weights = [1 if item.examples is None else item.examples for item in items]
    weights = weights if any(weights) else [1] * len(items)
    values, total = [item.metrics[name] for item in items], sum(weights)
    try:
        mean = fsum(value * (weight / total) for value, weight in zip(values, weights, strict=True))
        variance = fsum((value - mean) ** 2 * (weight / total) for value, weight in zip(values, weights, strict=True))
    except OverflowError:
        return None
    if not (isfinite(mean) and isfinite(variance)):
        return None
    return Spread(clients=len(items), mean=mean, deviation=sqrt(variance), lowest=min(values), highest=max(values))


def _problem(found: ClientAnswers, names: Sequence[str]) -> str | None:
    """Why there are fewer metrics than expected: those that are finite at no client, then who has none."""
    nowhere = sorted({name for item in found.answers for name in _left_out(item)} - set(names))
    told = [f"client {item.client}: {item.problem}" for item in found.answers if item.problem and not item.metrics]
    told += [f"client {index} did not answer in time" for index in found.pending]
    more = [f"and {len(told) - MAX_TOLD} more"] if len(told) > MAX_TOLD else []
    parts = [NON_FINITE_METRICS + ", ".join(nowhere)] if nowhere else ["; ".join([*told[:MAX_TOLD], *more])]
    return parts[0] or None


def _left_out(item: ClientEvaluation) -> list[str]:
    problem = item.problem or ""
    return problem.removeprefix(NON_FINITE_METRICS).split(", ") if problem.startswith(NON_FINITE_METRICS) else []


def listed(found: ClientAnswers) -> tuple[ClientEvaluation, ...]:
    """The clients' own answers, as many as a record holds."""
    return found.answers[:MAX_CLIENT_EVALUATIONS]


def asked_at(scene: Scene, index: int) -> PodView | None:
    """The pod of a client that is waited for; ``None`` while it is not ready."""
    pod = scene.pods.clients.get(index)
    if pod is None or index not in scene.pods.ready or pod.role is not PodRole.CLIENT:
        return None
    return pod
