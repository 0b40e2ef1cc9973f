"""The leader of three aggregators is gone, at seeded moments, also with its volume: a standby takes its place."""

import random

import pytest

from tests.e2e.faults.run import ROUNDS, running

SEEDS = range(3)


def leader_of(run):
    """The pod that leads."""
    return run.kubectl.get("pod", run.kubectl.status(run.name)["aggregator"]["leader"])


@pytest.mark.parametrize("seed", SEEDS)
def test_the_leader_is_killed(kubectl, nodes, judge, seed):
    with running(kubectl, "job", aggregators=3) as run:
        run.until_committed(random.Random(seed).randrange(ROUNDS - 2))
        nodes.kill(leader_of(run), "fedjob-aggregator")
        judge("leader of three aggregators killed", run)


@pytest.mark.subset
@pytest.mark.parametrize("seed", SEEDS)
def test_the_leader_is_gone_with_its_volume(kubectl, judge, seed):
    with running(kubectl, "job", aggregators=3) as run:
        run.until_committed(0)
        pod = leader_of(run)
        (claim,) = [
            volume["persistentVolumeClaim"]["claimName"]
            for volume in pod["spec"]["volumes"]
            if "persistentVolumeClaim" in volume
        ]
        gone = [f"pvc/{claim}", f"pod/{pod['metadata']['name']}"]
        # In one call and early: a complete job keeps one copy, and nobody takes the place of the leader.
        run.until_committed(random.Random(seed).randrange(ROUNDS // 2))
        kubectl("delete", *gone, "--wait=false", "--grace-period=0", "--force")
        judge("leader of three aggregators gone with its volume", run)
