"""How often the status is written: once per round and a little more, however busy the world is."""

from typing import Final

import pytest

from fedjob_operator.core.platform import Platform
from tests.support.builders import CLUSTER, a_job
from tests.support.world.clients import Habits
from tests.support.world.simulation import no_faults
from tests.support.world.world import Setting, World

ROUNDS: Final = 10
PLATFORM: Final = Platform(images=CLUSTER.images, checks_pods=True)


def writes(seed, *, num_clients=3, platform=PLATFORM, **habits):
    job = a_job().saying(term=0).rounds(ROUNDS).clients(num_clients).evaluated().objective().build()
    setting = Setting(name="budget", job=job, num_clients=num_clients, habits=Habits(**habits), platform=platform)
    world = World(setting, seed, faults=no_faults)
    outcome = world.run()
    assert outcome.finished
    assert outcome.status.rounds.committed == ROUNDS
    return world.store.writes


@pytest.mark.parametrize("seed", range(10))
def test_an_undisturbed_job_writes_one_status_per_round_and_a_few_more(seed):
    """Claim, acceptance, start, end, and what lasts for longer than the brake; the initial model is a round too."""
    assert writes(seed) <= (ROUNDS + 1) + 5


def test_many_clients_need_no_more_writes():
    assert writes(1, num_clients=20) <= (ROUNDS + 1) + 5


def test_long_rounds_show_their_progress_a_few_times():
    """Evaluations of 10 s on average are shown, each in one write."""
    few = writes(2, evaluate_seconds=20.0)
    assert ROUNDS + 1 < few <= 2 * (ROUNDS + 1) + 6


def test_without_the_brake_every_step_would_be_written():
    hasty = Platform(images=CLUSTER.images, checks_pods=True, progress_seconds=0.0)
    assert writes(3, platform=hasty) > 2 * ROUNDS
