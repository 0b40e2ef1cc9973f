"""Model check of several aggregators: leaders are killed, frozen, doubled and lose their volumes, and no round is lost.

As `test_model_check`, with several aggregators of one job. A round counts once a majority holds it, and then stays, as
long as only one volume is lost at a time. FEDJOB_MODEL_CHECK_STANDBYS sets how many schedules there are in all.
"""

import os
from dataclasses import replace
from functools import partial
from random import Random
from typing import Final

import pytest

from fedjob_aggregator.events import Claim, Event, State, Step
from fedjob_aggregator.leadership import Standing
from fedjob_aggregator.machine import step as real_step
from fedjob_operator.core.decide import decide
from fedjob_operator.core.platform import LOCAL
from tests.support.builders import JobBuilder, a_job
from tests.support.world.replica import Rules
from tests.support.world.simulation import STANDBY_RATES, Faults, draw_faults
from tests.support.world.world import Outcome, Setting, check, play, undisturbed

SCHEDULES: Final = int(os.environ.get("FEDJOB_MODEL_CHECK_STANDBYS", "400"))


def setting(name: str, job: JobBuilder, **fields) -> Setting:
    built = job.build()
    return Setting(name=name, job=built, num_clients=built.spec.client_groups[0].replicas, **fields)


def with_aggregators(replicas: int, ack: str = "Majority") -> JobBuilder:
    return a_job().saying(term=0).having(aggregator={"replicas": replicas, "replication": {"ack": ack}})


REACHES: Final = {"aggregator killed", "aggregator frozen", "volume lost", "operator doubled", "another leader"}
"""What schedules of each kind have to come to see."""

SETTINGS: Final = (
    setting("three aggregators", with_aggregators(3).clients(3)),
    setting("three aggregators, evaluated", with_aggregators(3).clients(2).evaluated().objective()),
    setting("two aggregators", with_aggregators(2).clients(2), reaches=frozenset({"aggregator frozen", "volume lost"})),
    setting("five aggregators", with_aggregators(5).rounds(2).clients(2)),
    setting(
        "three aggregators, and clients that take turns",
        with_aggregators(3).clients(4).policy(clientsPerRound=2).having(clientPods="PerRound").evaluated(),
        gpus=1,
    ),
)

draw_standby_faults = partial(draw_faults, rates=STANDBY_RATES)


@pytest.mark.parametrize("which", SETTINGS, ids=lambda which: which.name)
def test_whatever_becomes_of_the_aggregators_every_round_is_committed_once(which):
    calm = undisturbed(which)
    seen = set[str]()
    for seed in range(-(-SCHEDULES // len(SETTINGS))):
        outcome = check(which, seed, calm, faults=draw_standby_faults)
        seen |= {*(fault.name for fault in outcome.faults), *led_by(outcome)}
    missed = (which.reaches or REACHES) - seen
    assert not missed, f"no schedule came to see: {', '.join(sorted(missed))}"


def led_by(outcome: Outcome) -> set[str]:
    leader = outcome.status.aggregator.leader
    return set() if "-aggregator-0-" in leader else {"another leader"}


# The check itself is checked: with a broken rule, some schedule has to fail.


def is_found(which: Setting, *, within: int, **rules) -> bool:
    calm = undisturbed(which)
    for seed in range(within):
        try:
            play(which, seed, calm, **rules)
        except AssertionError:
            return True
    return False


def leaders_lost(rng: Random) -> Faults:
    """Leaders are frozen and come back, or lose their volumes."""
    rates = {"aggregator frozen": 0.1, "volume lost": 0.1, "request delayed": 0.1, "request lost": 0.1}
    return Faults(rng=rng, rates=rates, budget=30)


def late_words(rng: Random) -> Faults:
    """What an operator says arrives again, or late, when another one has chosen another leader."""
    rates = {
        "request duplicated": 0.3,
        "request delayed": 0.2,
        "aggregator frozen": 0.1,
        "operator doubled": 0.1,
        "answer lost": 0.05,
    }
    return Faults(rng=rng, rates=rates, budget=60)


def without_term_fence(state: State, event: Event) -> Step:
    """Believes whoever speaks last, whatever term that is."""
    if isinstance(event, Claim):
        return Step(state=replace(state, job_uid=event.job_uid, term=event.term))
    return real_step(state, event)


def test_aggregators_without_the_term_fence_are_found():
    assert is_found(SETTINGS[0], within=200, faults=late_words, machine=without_term_fence)
    assert not is_found(SETTINGS[0], within=40, faults=late_words)


def test_a_leader_that_waits_for_nobody_is_found():
    def alone(standing: Standing, _commit, term: int, *, closed: bool = False) -> bool:
        return standing.leads(term)

    assert is_found(SETTINGS[0], within=200, faults=leaders_lost, rules=Rules(is_acknowledged=alone))
    assert not is_found(SETTINGS[0], within=40, faults=leaders_lost)


def test_an_operator_that_promotes_whoever_answers_first_is_found():
    """It takes an aggregator that has not been asked in its term, or lacks what is committed."""

    def hasty(job, seen, now):
        known = job.status.aggregator
        if known is not None and known.boot_id is None and seen.replicas:
            first = next((pod for pod in seen.pods if pod.incarnation in seen.replicas and pod.url), None)
            if first is not None:
                name = f"{job.metadata.name}-aggregator-{first.index}-{first.ordinal}"
                boot = seen.replicas[first.incarnation].state.boot_id
                chosen = known.model_copy(update={"leader": name, "uid": first.incarnation, "boot_id": boot})
                ahead = job.status.model_copy(update={"aggregator": chosen})
                return replace(decide(job, seen, now, platform=LOCAL), status=ahead, actions=())
        return decide(job, seen, now, platform=LOCAL)

    assert is_found(SETTINGS[0], within=200, faults=leaders_lost, decide_=hasty)
