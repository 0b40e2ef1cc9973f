"""A status that somebody else wrote: whatever it says, the decision answers, and says what is wrong.

FEDJOB_FORGED_EXAMPLES sets how many there are.
"""

import os
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjob_operator.api.base import MAX_CLIENTS, MAX_ROUNDS, MAX_SAFE_INTEGER
from fedjob_operator.api.v1alpha1 import (
    AggregatorStatus,
    BestModel,
    Clients,
    CommittedModel,
    Condition,
    ConditionStatus,
    ConditionType,
    CurrentRound,
    FederatedJobStatus,
    Gpus,
    Images,
    LayoutEntry,
    Metric,
    Phase,
    ReplacedClient,
    Rounds,
    RoundState,
    Startup,
    dump,
)
from fedjob_operator.core.decide import decide
from fedjob_operator.core.platform import LOCAL
from fedjob_protocol.reasons import Reason
from fedjob_protocol.round import RoundState as AggregatorRound
from tests.support.builders import BOOT, CLUSTER, EPOCH, a_job, at, chain_digest, seen, settled

EXAMPLES = int(os.environ.get("FEDJOB_FORGED_EXAMPLES", "300"))


def maybe(strategy):
    return st.none() | strategy


def some(strategy, most=4):
    return st.lists(strategy, max_size=most).map(tuple)


TIMES = (
    st.sampled_from((EPOCH, at(-1000), at(50)))
    | st.datetimes(timezones=st.just(UTC))
    | st.just(datetime.max.replace(tzinfo=UTC))
)
COUNTS = st.integers(0, 5) | st.integers(0, MAX_SAFE_INTEGER)
AMOUNTS = st.integers(1, 5) | st.integers(1, MAX_SAFE_INTEGER)
ROUND_NUMBERS = st.integers(0, 4) | st.integers(0, MAX_ROUNDS)
INDICES = st.integers(0, 4) | st.integers(0, MAX_CLIENTS - 1)
NUMBERS = st.integers(0, 4) | st.integers(0, MAX_CLIENTS)
TEXTS = st.sampled_from(("", BOOT, "x" * 1024))
DIGESTS = st.sampled_from((chain_digest(0), chain_digest(1), "", "sha256:0", "x" * 128))
VALUES = st.floats(allow_nan=False, allow_infinity=False)
BEST = st.builds(BestModel, round=ROUND_NUMBERS, value=VALUES, digest=DIGESTS)
LAYOUTS = st.just((LayoutEntry(group="clients", first=0, count=3),)) | some(
    st.builds(LayoutEntry, group=st.sampled_from(("clients", "others")), first=INDICES, count=NUMBERS)
)
CURRENT = st.builds(
    CurrentRound,
    number=ROUND_NUMBERS,
    attempt=AMOUNTS,
    redraw=COUNTS,
    state=st.sampled_from(RoundState),
    selected=st.just((0, 1, 2)) | some(INDICES),
    boot_id=maybe(TEXTS),
    started_at=maybe(TIMES),
    deadline=maybe(TIMES),
    reported=NUMBERS,
)
CONDITIONS = st.builds(
    Condition,
    type=st.sampled_from((*ConditionType, "Ready", "Something")),
    status=st.sampled_from(ConditionStatus),
    reason=st.sampled_from((*Reason, "", "NobodySaidSo")),
    message=TEXTS,
    observed_generation=maybe(COUNTS),
    lastTransitionTime=TIMES,
)
STATUSES = st.builds(
    FederatedJobStatus,
    observed_generation=maybe(COUNTS),
    phase=st.sampled_from(Phase),
    reason=maybe(TEXTS),
    message=maybe(TEXTS),
    term=COUNTS,
    rounds=st.builds(Rounds, committed=st.integers(-1, 3) | st.integers(-1, MAX_ROUNDS), total=ROUND_NUMBERS),
    current_round=maybe(CURRENT),
    failed_attempts=COUNTS,
    clients=st.builds(
        Clients,
        desired=NUMBERS,
        ready=NUMBERS,
        lost=NUMBERS,
        lost_indices=some(INDICES),
        late_indices=some(INDICES),
        replaced=some(st.builds(ReplacedClient, index=INDICES, generation=COUNTS, firstOrdinal=COUNTS)),
    ),
    layout=LAYOUTS,
    startup=maybe(st.builds(Startup, attempt=AMOUNTS, beganAt=TIMES, retry_at=maybe(TIMES))),
    gpus=maybe(st.builds(Gpus, requested=COUNTS, held=COUNTS, waiting=COUNTS)),
    metrics=some(st.builds(Metric, name=st.sampled_from(("accuracy", "loss")), value=VALUES)),
    best=maybe(BEST),
    last_improvement=maybe(BEST),
    model=maybe(st.builds(CommittedModel, round=ROUND_NUMBERS, digest=DIGESTS, path=st.none())),
    aggregator=maybe(st.builds(AggregatorStatus, leader=maybe(TEXTS), uid=maybe(TEXTS), replicas=st.integers(0, 7))),
    images=maybe(st.builds(Images, client=maybe(TEXTS), aggregator=maybe(TEXTS))),
    conditions=some(CONDITIONS, most=16),
    start_time=maybe(TIMES),
    suspended_seconds=COUNTS,
    completion_time=maybe(TIMES),
)
JOBS = (
    a_job().having(activeDeadlineSeconds=100, ttlSecondsAfterFinished=10),
    a_job().having(suspend=True),
    a_job().evaluated().objective().having(stop={"target": 0.5, "patienceRounds": 1}, lateJoiners="Refuse"),
    a_job().policy(onQuorumLoss="Fail", minReports=1).having(startupDeadlineSeconds=10),
)
THERE = seen().checked().aggregator(committed=0).ready(0, 1, 2).evaluator()
LOOKS = (
    seen(),
    THERE,
    THERE.round(1, reported=[0]),
    THERE.round(1, AggregatorRound.COMMITTED, reported=[0, 1, 2]),
    THERE.round(1, AggregatorRound.ABANDONED),
    seen().checked().aggregator(committed=3, term=4).ready(1).lost(0, 2),
    seen().aggregator().ready(0, 1).stopping(2).exited(index=7),
)


@given(
    status=STATUSES,
    job=st.sampled_from(JOBS),
    what=st.sampled_from(LOOKS),
    platform=st.sampled_from((LOCAL, CLUSTER)),
    now=st.sampled_from((EPOCH, at(1000))),
)
@settings(max_examples=EXAMPLES, deadline=None)
def test_every_status_gets_an_answer_that_can_be_written(status, job, what, platform, now):
    current = job.build().model_copy(update={"status": status})
    for _ in range(12):
        decision = decide(current, what.observed, now, platform=platform)
        assert FederatedJobStatus.model_validate(dump(decision.status)) == decision.status
        assert decision.wake_at is None or decision.wake_at > now
        if decision.status == current.status:
            return
        current = current.model_copy(update={"status": decision.status})
    raise AssertionError(f"still changing: {current.status}")


def forged(job, **status):
    return settled(job.saying(**status), THERE)[0].status


@pytest.mark.parametrize(
    ("job", "status", "reason", "words"),
    [
        pytest.param(
            a_job().committed(0),
            {"rounds": Rounds(committed=7, total=2)},
            Reason.CHECKPOINT_LOST,
            "ends with round 0, the status with round 7",
            id="more rounds than there are",
        ),
        pytest.param(
            a_job().in_round(1, 0, 1, 2),
            {"rounds": Rounds(committed=7, total=2)},
            Reason.CHECKPOINT_LOST,
            "ends with round 0, the status with round 7",
            id="more rounds than there are, in a round",
        ),
        pytest.param(
            a_job().rounds(9).committed(0),
            {"current_round": CurrentRound(number=5, selected=(0, 1, 2))},
            Reason.INVALID_SPEC,
            "round 5 is in progress, and round 0 is the last one that is committed",
            id="a round far ahead",
        ),
        pytest.param(
            a_job().committed(0),
            {"current_round": CurrentRound(number=1, selected=(0, 1, 9))},
            Reason.INVALID_SPEC,
            "status.currentRound.selected: client 9 does not exist; there are 3",
            id="a client that does not exist",
        ),
        pytest.param(
            a_job().committed(0),
            {"current_round": CurrentRound(number=1, selected=(0, 0, 1))},
            Reason.INVALID_SPEC,
            "names a client twice",
            id="a client twice",
        ),
        pytest.param(
            a_job().committed(0),
            {"layout": (LayoutEntry(group="clients", first=1, count=3),)},
            Reason.INVALID_SPEC,
            "status.layout: group clients begins with client 1, not with 0",
            id="a layout with a gap",
        ),
        pytest.param(
            a_job().committed(0),
            {"term": MAX_SAFE_INTEGER},
            Reason.INVALID_SPEC,
            "terms or attempts",
            id="the last term",
        ),
    ],
)
def test_nonsense_ends_the_job_and_is_named(job, status, reason, words):
    found = forged(job, **status)
    assert (found.phase, found.reason) == (Phase.FAILED, reason)
    assert words in found.message


def test_a_layout_of_groups_that_the_spec_does_not_have_holds_the_job():
    """As if the group had been taken out of the spec, which can be mended."""
    found = forged(a_job().committed(0), layout=(LayoutEntry(group="others", first=0, count=3),))
    assert found.reason == Reason.INVALID_SPEC
    assert found.phase is not Phase.FAILED
    assert 'group "others" of the accepted job is gone' in found.message


def test_conditions_that_we_do_not_know_are_kept_behind_ours():
    strange = Condition(type="Ready", status=ConditionStatus.TRUE, reason="", last_transition_time=EPOCH)
    assert [item.type for item in forged(a_job().committed(0), conditions=(strange,)).conditions][-1] == "Ready"


def test_a_term_that_was_taken_away_is_claimed_again():
    assert forged(a_job().committed(0), term=0).term == 1


def test_more_pods_of_a_client_than_there_can_have_been_were_counted_by_no_operator():
    entry = ReplacedClient(index=0, generation=1, first_ordinal=10**9)
    job, decision = settled(a_job().accepted().saying(clients=Clients(replaced=(entry,))), seen())
    assert decision.finished
    assert job.status.reason == Reason.INVALID_SPEC
    assert "more than 900000 pods" in job.status.message
