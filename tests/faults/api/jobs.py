"""The small jobs that the faults on a real API server happen to."""

from pathlib import Path
from typing import Any

from tests.support.cluster.jobs import Document, a_job, steered_template
from tests.support.faults.points import FAULTS_VARIABLE

TRAINER = "tests.support.faults.steady:Steady"
NAME = "j"
ROUNDS = 3
ALL = "all"
"""All three clients take part in every round, and each round is evaluated."""
SOME = "some"
"""Three of six clients take part in a round."""
CLIENTS = {ALL: 3, SOME: 6}
PODS = {ALL: 5, SOME: 7}
"""The clients, the aggregator, and an evaluator where there is one."""


def manifest(which: str, folder: Path, **spec: Any) -> Document:
    """A job.

    Args:
        which: `ALL` or `SOME`.
        folder: Where its trainers note what they do.
        spec: Fields in the place of the usual ones.
    """
    template = steered_template(folder)
    template["spec"]["containers"][0]["env"].append({"name": FAULTS_VARIABLE, "value": "[]"})  # none inside of programs
    evaluated = {"modes": ["Evaluator"], "template": template} if which == ALL else {"modes": []}
    job = a_job(
        NAME,
        clients=CLIENTS[which],
        group={"trainer": TRAINER, "template": template, "backoffLimit": 10},
        **{
            "rounds": ROUNDS,
            "model": {"name": "steady"},
            "training": {"learningRate": 0.05},
            "roundPolicy": {"clientsPerRound": 3, "deadlineSeconds": 60},
            "minClients": CLIENTS[which],
            "aggregator": {"storage": {"retentionPolicy": {"whenDeleted": "Delete"}}},
            "evaluation": evaluated,
            **spec,
        },
    )
    del job["spec"]["data"]
    return job
