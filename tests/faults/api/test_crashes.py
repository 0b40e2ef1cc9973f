"""The operator is killed right before and right after each of its writes, and each of its calls to pods."""

import pytest

from tests.faults.api.campaign import UNDISTURBED
from tests.faults.api.cases import REQUESTS, Case
from tests.faults.api.jobs import ALL, SOME
from tests.faults.api.run import Moment

MORE = 3
"""A run may have so many requests more than the undisturbed one usually has."""


def killed(job, moment):
    return Case(
        fault_class=f"operator killed at a {moment.of}",
        job=job,
        name=str(moment),
        arm=lambda run: run.at(moment, run.restart_operator, cuts=True),
        reach="api-proxy" if moment.of == "call" else "direct",
    )


def every_one(side):
    return [
        pytest.param(case := killed(job, Moment(of, nth, side)), nth, id=case.key)
        for (job, of), count in REQUESTS.items()
        for nth in range(1, count + MORE + 1)
    ]


@pytest.mark.parametrize(("case", "nth"), every_one("before"))
def test_an_operator_that_dies_before_a_request_loses_and_repeats_nothing(judge, case, nth):
    judge(case)


@pytest.mark.parametrize(("case", "nth"), every_one("after"))
def test_an_operator_that_dies_after_a_request_loses_and_repeats_nothing(judge, case, nth):
    judge(case)


@pytest.mark.parametrize("job", [ALL, SOME])
def test_no_request_of_an_undisturbed_run_is_left_out(campaign, job):
    outcome = campaign.outcome(UNDISTURBED[job])
    assert outcome.writes <= REQUESTS[job, "write"] + MORE
    assert outcome.calls <= REQUESTS[job, "call"] + MORE
