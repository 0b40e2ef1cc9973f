"""Pods of a job are killed and deleted at seeded moments."""

import random

import pytest

from tests.faults.api.cases import Case, moments
from tests.faults.api.jobs import ALL, CLIENTS, ROUNDS, SOME

AGGREGATOR = "j-aggregator-0-0"


def at(fault_class, job, moment, act):
    """A case whose act happens at a request of the operator."""

    def arm(run):
        run.at(moment, lambda: act(run))
        run.hold(ROUNDS)
        run.submit()
        run.until_struck()
        let_end(run)

    return Case(fault_class=fault_class, job=job, name=str(moment), arm=arm, reach="api-proxy")


def while_training(fault_class, job, act, name):
    """A case whose act happens in the middle of a round, when the participants train."""

    def arm(run):
        run.hold(2, ROUNDS)
        run.submit()
        run.until_training(2)
        act(run)
        run.release(2)
        let_end(run)

    return Case(fault_class=fault_class, job=job, name=f"training-{name}", arm=arm)


def let_end(run):
    """Let the last round end when all pods are back: the job says at its end whether they are."""
    run.until_ready()
    run.release(ROUNDS)


def some_clients(run, seed, count):
    """Names of so many of a job's clients, drawn by a seed."""
    indices = random.Random(f"{seed} {run.which}").sample(range(CLIENTS[run.which]), count)
    return [f"j-client-{index}-0" for index in sorted(indices)]


def kill_clients(count):
    def act(run):
        for name in some_clients(run, "killed", count):
            run.kill_pod(name)

    return act


def delete_clients(count):
    def act(run):
        for name in some_clients(run, "deleted", count):
            run.delete_pod(name)

    return act


JOBS = (ALL, SOME)
CASES = [
    *(
        at("aggregator killed", job, moment, lambda run: run.kill_pod(AGGREGATOR))
        for job in JOBS
        for moment in moments("aggregator killed", job, "call", 4)
    ),
    *(
        at("aggregator pod deleted", job, moment, lambda run: run.delete_pod(AGGREGATOR))
        for job in JOBS
        for moment in moments("aggregator deleted", job, "call", 3)
    ),
    *(
        at("clients killed", job, moment, kill_clients(1))
        for job in JOBS
        for moment in moments("clients killed", job, "call", 3)
    ),
    *(
        at("client pods deleted", job, moment, delete_clients(1))
        for job in JOBS
        for moment in moments("clients deleted", job, "call", 3)
    ),
    *(
        while_training("clients killed", job, kill_clients(count), f"{count}-of-{CLIENTS[job]}")
        for job in JOBS
        for count in range(1, CLIENTS[job] + 1, 2)
    ),
    *(
        while_training("client pods deleted", job, delete_clients(count), f"{count}-of-{CLIENTS[job]}")
        for job in JOBS
        for count in range(1, CLIENTS[job] + 1, 2)
    ),
]


@pytest.mark.parametrize("case", [pytest.param(case, id=case.key) for case in CASES])
def test_pods_that_end_lose_and_repeat_nothing(judge, case):
    judge(case)
