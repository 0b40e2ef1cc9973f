"""What happens to nodes, at seeded moments: the model is that of the undisturbed run."""

import random

import pytest

from tests.e2e.faults.run import ROUNDS, running

SEEDS = range(3)


def node_of(run, role):
    """The node of a job's first pod of a role."""
    return run.pods(role)[0]["spec"]["nodeName"]


def early(seed):
    """A round that is committed when something happens."""
    return random.Random(seed).randrange(ROUNDS // 2)


@pytest.mark.subset
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("unit", ["kubelet", "containerd"])
def test_a_service_of_every_worker_is_restarted(kubectl, nodes, judge, unit, seed):
    with running(kubectl, "job") as run:
        run.until_committed(early(seed))
        for node in nodes.workers():
            nodes.restart_service(node, unit)
        judge(f"{unit} restarted", run)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_node_of_clients_is_drained_and_they_move(kubectl, nodes, judge, seed):
    with running(kubectl, "job") as run:
        run.until_committed(early(seed))
        (home,) = {node_of(run, "aggregator")}
        away = next(node for node in nodes.workers() if node != home)
        nodes.drain(away)
        judge("node of clients drained", run)
        assert {pod["spec"]["nodeName"] for pod in run.pods()} <= {home}


@pytest.mark.parametrize("seed", SEEDS)
def test_the_aggregator_waits_for_its_drained_node_and_goes_on(kubectl, nodes, judge, seed):
    with running(kubectl, "job") as run:
        run.until_committed(early(seed))
        home = node_of(run, "aggregator")
        nodes.drain(home)
        told = run.until_reason("Unschedulable")
        assert "aggregator" in told or "node" in told
        nodes.uncordon(home)
        judge("node of the aggregator drained", run)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("which", ["node of the aggregator", "other node"])
def test_a_node_stops_and_is_started_again(kubectl, nodes, judge, which, seed):
    with running(kubectl, "job") as run:
        run.until_committed(early(seed))
        home = node_of(run, "aggregator")
        stopped = home if which == "node of the aggregator" else next(node for node in nodes.workers() if node != home)
        nodes.stop(stopped)
        nodes.start(stopped)
        judge(f"{which} stopped", run)
