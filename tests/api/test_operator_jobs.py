"""The life of a job on a real API server: the operator as a process, its pods as processes."""

import json
import time
from datetime import datetime

from tests.support.cluster.cluster import eventually
from tests.support.cluster.jobs import a_job, a_steered_job
from tests.support.cluster.operators import tracebacks
from tests.support.cluster.steered import hold_file

RELEASED_SECONDS = 30.0
"""How soon pods are gone after they are not needed; within 10 s on a machine that has nothing else to do."""


def digits(name):
    return a_job(
        name,
        clients=3,
        rounds=3,
        model={"name": "mlp", "parameters": {"hiddenSizes": [16]}},
        data={"name": "digits", "partition": {"scheme": "IID"}},
        training={"epochs": 1, "batchSize": 32, "learningRate": 0.1},
        evaluation={"modes": ["Evaluator"]},
        objective={"metric": "accuracy", "mode": "Max"},
    )


def columns(server, namespace, *options):
    """The table of `kubectl get` as a list of rows by column."""
    shown = server.kubectl("get", "federatedjobs", "-n", namespace, *options)
    assert shown.returncode == 0, shown.stderr
    head, *lines = shown.stdout.splitlines()
    starts = [head.index(name) for name in head.split()]
    ends = [*starts[1:], None]
    names = [head[start:end].strip() for start, end in zip(starts, ends, strict=True)]
    return [
        {name: line[start:end].strip() for name, start, end in zip(names, starts, ends, strict=True)} for line in lines
    ]


def test_a_job_on_real_data_runs_to_complete_and_the_columns_tell(cluster, operators, namespace):
    operators.start()  # of all namespaces
    cluster.apply(namespace, digits("mnist"))

    waited = cluster.server.kubectl(
        "wait", "-n", namespace, "--for=condition=Complete", "federatedjob/mnist", "--timeout=90s"
    )

    assert waited.returncode == 0, waited.stderr + cluster.describe(namespace, "mnist")
    (row,) = columns(cluster.server, namespace)
    assert list(row) == ["NAME", "STATE", "ROUNDS", "CLIENTS", "METRIC", "AGE"]
    assert (row["NAME"], row["STATE"], row["ROUNDS"], row["CLIENTS"]) == ("mnist", "Complete", "3/3", "3/3")
    metric, value = row["METRIC"].split()
    assert metric == "accuracy"
    assert 0.2 < float(value) <= 1
    (wide,) = columns(cluster.server, namespace, "-o", "wide")
    assert {"GPUS", "ATTEMPT", "REASON"} <= wide.keys()
    assert wide["REASON"] == "RoundsCompleted"
