"""The API server is away, slow to tell, behind, or refuses, while a job runs."""

import threading

import pytest

from tests.faults.api.cases import Case, moments
from tests.faults.api.jobs import ALL, SOME
from tests.support.cluster.calls import CALL

AWAY_SECONDS = 30.0
SHORT_SECONDS = 3.0
"""At more moments: requests are tried again meanwhile, and the operator's Lease is kept."""
STALE_SECONDS = 4.0
BURST = 8
"""Requests that are refused one after the other."""


def later(seconds, act):
    """Do something after a while, and do not wait for it."""
    threading.Timer(seconds, act).start()


def case_at(fault_class, moment, act, *, job, waits=False):
    """A case whose act is told of its run."""
    return Case(
        fault_class=fault_class,
        job=job,
        name=str(moment),
        arm=lambda run: run.at(moment, lambda: act(run)),
        reach="api-proxy" if moment.of == CALL else "direct",
        waits=waits,
    )


def cases_at(fault_class, act, *, of="write", count=3, jobs=(ALL, SOME), waits=False):
    return [
        case_at(fault_class, moment, act, job=job, waits=waits)
        for job in jobs
        for moment in moments(fault_class, job, of, count)
    ]


# Watches


def freeze(run):
    run.proxy.plain.streams.is_frozen = True
    run.happened.append("watches tell nothing any more")


def cut(run):
    cut_off = run.proxy.drop_watches()
    run.happened.append(f"{cut_off} watches were cut off")


def expire(in_stream):
    def act(run):
        run.proxy.plain.expire_watches(4, in_stream=in_stream)
        cut(run)

    return act


def repeat(run):
    run.proxy.plain.streams.repeats = 3
    run.happened.append("each event comes three times")


def lose(every):
    def arm(run):
        run.proxy.plain.streams.lose_every = every
        run.happened.append(f"every {every}. change is not told")

    return arm


def freeze_and_delete_a_client(run):
    """The operator is not told that a participant is gone and another one has come."""
    run.hold(2)
    run.submit()
    run.until_training(2)
    freeze(run)
    run.delete_pod("j-client-1-0")
    run.release(2)


WATCHES = [
    *cases_at("watches frozen", freeze, waits=True),
    Case(
        fault_class="watches frozen",
        job=ALL,
        name="a-client-goes",
        arm=freeze_and_delete_a_client,
        waits=True,
    ),
    *cases_at("watches cut", cut),
    *cases_at("watches answered with 410", expire(in_stream=False), count=2),
    *cases_at("watches answered with 410", expire(in_stream=True), count=1, jobs=[ALL]),
    *(Case(fault_class="events repeated", job=job, arm=repeat) for job in (ALL, SOME)),
    *(
        Case(fault_class="events lost", job=job, name=f"one-of-{every}", arm=lose(every), waits=True)
        for job in (ALL, SOME)
        for every in (2, 3)
    ),
]

# Requests


def go_away(seconds):
    def act(run):
        def leave():
            run.proxy.refuse()
            later(seconds, run.proxy.accept)

        later(0, leave)  # the request that provoked it is cut off, too
        run.happened.append(f"the API server is away for {seconds:g} s")

    return act


def burst(code, *, only=lambda _: True, retry_after=None):
    def act(run):
        left = iter(range(BURST))
        run.proxy.plain.retry_after_seconds = retry_after
        run.proxy.plain.spoil = lambda call: code if only(call) and next(left, None) is not None else None
        run.happened.append(f"{BURST} requests are answered with {code}")

    return act


def go_stale(run):
    run.proxy.go_stale()
    later(STALE_SECONDS, run.proxy.catch_up)
    run.happened.append("the API server answers what was true before")


def go_stale_and_restart(run):
    """A new operator begins with what is no longer true."""
    go_stale(run)
    later(STALE_SECONDS / 4, run.restart_operator)


def is_status(call):
    return call.resource == "federatedjobs/status"


def is_write(call):
    return call.is_write and call.resource != "leases"


REQUESTS_FAIL = [
    *cases_at("server away", go_away(SHORT_SECONDS), waits=True),
    *cases_at("server away", go_away(AWAY_SECONDS), count=1, waits=True),
    *cases_at("writes refused with 409", burst(409, only=is_write), count=2),
    *cases_at("writes refused with 409", burst(409, only=is_status), count=1),
    *cases_at("answers 429", burst(429, retry_after=1), waits=True),
    *cases_at("answers 500", burst(500), waits=True),
    *cases_at("stale answers", go_stale, waits=True),
    *cases_at("stale answers", go_stale_and_restart, count=2, of="call", waits=True),
]


@pytest.mark.parametrize("case", [pytest.param(case, id=case.key) for case in WATCHES])
def test_watches_that_tell_nothing_or_too_much_lose_and_repeat_nothing(judge, case):
    judge(case)


@pytest.mark.parametrize("case", [pytest.param(case, id=case.key) for case in REQUESTS_FAIL])
def test_an_api_server_that_fails_for_a_while_loses_and_repeats_nothing(judge, case):
    judge(case)
