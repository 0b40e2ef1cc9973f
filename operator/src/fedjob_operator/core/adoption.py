"""Taking over what the aggregator committed: its record becomes part of the status."""

from collections.abc import Mapping
from typing import Final

from fedjob_operator.api.base import MAX_SAFE_INTEGER
from fedjob_operator.api.status import MAX_CONTRIBUTORS, MAX_JUDGEMENTS, MAX_RECENT_ROUNDS, JudgedClient
from fedjob_operator.api.v1alpha1 import (
    BestModel,
    CommittedModel,
    FederatedJobSpec,
    FederatedJobStatus,
    Metric,
    RecentRound,
)
from fedjob_operator.core.divergence import watched
from fedjob_operator.core.scene import Scene
from fedjob_operator.core.stopping import improves, is_due, restarts_patience, usable_metrics
from fedjob_protocol.layout import checkpoint_name
from fedjob_protocol.messages import Judgement, RoundRecord

MAX_NAMED: Final = 10
MAX_NUMBERS: Final = 4
"""Most numbers of a judgement that the status repeats."""


def adopt(scene: Scene, record: RoundRecord) -> FederatedJobStatus:
    """Return the status with a committed and evaluated round in it, and no round in progress."""
    status = scene.job.status
    metrics = usable_metrics(scene.spec, record.metrics or {})
    row = _row(record, metrics).model_copy(update={"evaluation_problem": _problem(scene.spec, record, metrics)})
    update: dict[str, object] = {
        "rounds": status.rounds.model_copy(update={"committed": record.round, "total": scene.spec.rounds}),
        "model": CommittedModel(round=record.round, digest=record.digest, path=checkpoint_name(record.round)),
        "recent_rounds": (*status.recent_rounds, row)[-MAX_RECENT_ROUNDS:],
        "current_round": None,
        "failed_attempts": 0,
    }
    if is_due(scene.spec, record.round):
        update["divergence"] = watched(scene.spec, status.divergence, metrics, record.evaluation_problem)
    if metrics:
        update["metrics"] = row.metrics
        if scene.spec.objective and scene.spec.objective.metric in metrics:
            value = metrics[scene.spec.objective.metric]
            model = BestModel(round=record.round, value=value, digest=record.digest)
            update |= {"best": model} if improves(scene.spec, status, metrics) else {}
            update |= {"last_improvement": model} if restarts_patience(scene.spec, status, metrics) else {}
    return status.model_copy(update=update)


def _row(record: RoundRecord, metrics: Mapping[str, float]) -> RecentRound:
    return RecentRound(
        number=record.round,
        digest=record.digest,
        attempt=record.attempt,
        redraw=record.redraw,
        reported=len(record.contributors),
        contributors=tuple(sorted(item.client for item in record.contributors))[:MAX_CONTRIBUTORS],
        refused=len(record.refused),
        failed=len(record.failed),
        judged=len(record.judgements),
        judgements=tuple(map(_judged, record.judgements[:MAX_JUDGEMENTS])),
        examples=min(record.examples, MAX_SAFE_INTEGER),
        committed_at=record.committed_at,
        duration_seconds=record.duration_seconds,
        metrics=tuple(Metric(name=name, value=value) for name, value in sorted(metrics.items())),
    )


def _problem(spec: FederatedJobSpec, record: RoundRecord, metrics: Mapping[str, float]) -> str | None:
    """What its evaluation lacks; a metric that nobody reports would let ``stop`` and ``best`` wait in silence."""
    wanted = spec.objective.metric if spec.objective else None
    if record.evaluation_problem or not metrics or wanted is None or wanted in metrics:
        return record.evaluation_problem
    names = sorted(metrics)
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return f"there is no metric {wanted!r}, which spec.objective names; there are {', '.join(names[:MAX_NAMED])}{more}"


def _judged(judgement: Judgement) -> JudgedClient:
    numbers = [f"{name[:40]} {value:.4g}" for name, value in judgement.evidence.items()]
    evidence = ", ".join(numbers[:MAX_NUMBERS])
    return JudgedClient(client=judgement.client, verdict=judgement.verdict[:40], evidence=evidence)
