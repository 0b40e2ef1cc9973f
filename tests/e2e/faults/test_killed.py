"""Programs killed by SIGKILL in their pods, at seeded moments: the model is that of the undisturbed run."""

import random

import pytest

from tests.e2e.faults.run import CLIENTS, ROUNDS, running
from tests.support.kubectl import wait_until

SEEDS = range(3)
"""How often each is killed, in runs of their own."""


def moment(*parts: object) -> random.Random:
    """What is drawn for one run."""
    return random.Random(" ".join(map(str, parts)))


def was_restarted(there, name):
    return any(item["restartCount"] for item in there.get("pod", name)["status"]["containerStatuses"])


@pytest.mark.subset
@pytest.mark.parametrize("seed", SEEDS)
def test_the_operator_is_killed(kubectl, installation, nodes, judge, seed):
    with running(kubectl, "job") as run:
        run.until_committed(moment("operator", seed).randrange(ROUNDS - 1))
        (pod,) = installation.kubectl.list("pods", "app.kubernetes.io/name=fedjob-operator")
        before = pod["status"]["containerStatuses"][0]["restartCount"]
        nodes.kill(pod, "fedjob-operator")
        judge("operator killed", run)
    name = pod["metadata"]["name"]
    wait_until(
        lambda: installation.kubectl.get("pod", name)["status"]["containerStatuses"][0]["restartCount"] > before,
        "the restart of the operator",
        60,
    )


@pytest.mark.subset
@pytest.mark.parametrize("seed", SEEDS)
def test_the_aggregator_is_killed(kubectl, nodes, judge, seed):
    with running(kubectl, "job") as run:
        run.until_committed(moment("aggregator", seed).randrange(ROUNDS - 1))
        (pod,) = run.pods("aggregator")
        nodes.kill(pod, "fedjob-aggregator")
        wait_until(lambda: was_restarted(kubectl, pod["metadata"]["name"]), "the aggregator's restart", 60)
        judge("aggregator killed", run)


@pytest.mark.subset
@pytest.mark.parametrize("seed", SEEDS)
def test_clients_are_killed(kubectl, nodes, judge, seed):
    drawn = moment("clients", seed)
    with running(kubectl, "job") as run:
        run.until_committed(drawn.randrange(ROUNDS - 2))
        for pod in drawn.sample(run.pods("client"), 1 + seed % CLIENTS):
            nodes.kill(pod, "fedjob-client")
        judge("clients killed", run)
