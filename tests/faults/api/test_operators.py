"""Two operators at once, one that takes over, and one that wakes up when another has taken over."""

import time

import pytest

from tests.faults.api.cases import Case, moments
from tests.faults.api.jobs import ALL, SOME
from tests.support.cluster.calls import CALL
from tests.support.cluster.cluster import eventually

TAKEN_SECONDS = 60.0
"""Deadline for an operator to take a job over from one that is silent; a Lease expires after 15 s."""


def patches(proxy, *, since=0.0):
    """Statuses that were written through a proxy."""
    return [
        call
        for call in proxy.plain.calls
        if call.resource == "federatedjobs/status" and call.code == 200 and call.at > since
    ]


def kill_for_good(run):
    """A second operator waits for the Lease of the first, which dies."""
    run.hold(2)
    run.start_operator(beside=run.operator)
    run.submit()
    run.until_training(2)
    run.operator.kill()
    run.happened.append("the operator was killed for good")
    run.release(2)


def two_that_share(run):
    run.start_operator(beside=run.operator)
    run.happened.append("there are two operators with one Lease")


def two_apart(run):
    run.start_operator()
    run.happened.append("there are two operators with a Lease each")


def pause_at(moment):
    """The operator stands still with a request on its way, until another one has taken over."""

    def arm(run):
        def stand_still():
            run.operator.pause()
            run.happened.append("the operator stood still, and woke up when another had taken over")
            second = run.start_operator(beside=run.operator)
            eventually(lambda: patches(run.proxies[1]), f"a status of {second}", TAKEN_SECONDS)
            woken = time.monotonic()
            run.operator.go_on()
            run.at_end(lambda: no_effect(run, woken))

        run.at(moment, stand_still)

    return arm


def no_effect(run, since):
    """The one that was paused holds no Lease: of what it writes nothing is taken."""
    return [f"{call} of the operator that was paused was taken" for call in patches(run.proxy, since=since)]


CASES = [
    *(
        Case(fault_class="operator killed beside a second one", job=job, arm=kill_for_good, waits=True)
        for job in (ALL, SOME)
    ),
    *(Case(fault_class="two operators with one Lease", job=job, arm=two_that_share, waits=True) for job in (ALL, SOME)),
    *(Case(fault_class="two operators with a Lease each", job=job, arm=two_apart, waits=True) for job in (ALL, SOME)),
    *(
        Case(
            fault_class="paused operator wakes up",
            job=job,
            name=str(moment),
            arm=pause_at(moment),
            reach="api-proxy" if of == CALL else "direct",
            waits=True,
        )
        for job in (ALL, SOME)
        for of in ("write", "call")
        for moment in moments("paused", job, of, 3)
    ),
]


@pytest.mark.parametrize("case", [pytest.param(case, id=case.key) for case in CASES])
def test_two_operators_lose_and_repeat_nothing(judge, case):
    judge(case)
