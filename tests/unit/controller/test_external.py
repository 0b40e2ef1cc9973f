"""Clients that register themselves in the decision: made by nobody, proved before they get work, not waited for."""

from fedjob_operator.core.actions import (
    ConfigureClient,
    CreatePod,
    DeletePod,
    Evaluate,
    FetchInfo,
    ListReplaced,
    ReportFailure,
    StartTask,
    TurnAway,
)
from fedjob_protocol.reasons import Reason
from fedjob_protocol.round import RoundState
from tests.support.builders import a_job, at, decided, of_type, only, record, seen, settled

GROUPS = [{"name": "here", "replicas": 1}, {"name": "outside", "external": {"minClients": 2}}]
JOB = a_job().having(clientGroups=GROUPS, minClients=1, joinWaitSeconds=10).policy(minReports=1)


def test_nobody_makes_or_deletes_them():
    decision = decided(JOB.accepted(), seen())
    assert {action.index for action in of_type(decision, CreatePod)} == {0}
    assert of_type(decided(JOB.accepted(), seen().aggregator().ready(0).outside(1, 2)), DeletePod) == []


def test_who_registered_is_asked_for_all_the_time():
    opened = seen().aggregator(committed=0).ready(0).outside(1, 2).round(1, "Open")
    assert only(decided(JOB.in_round(1, 0, 1, 2), opened), ListReplaced)


def test_one_that_registered_is_asked_who_it_is_with_its_own_token_and_then_told_the_job():
    new = seen().aggregator().ready(0).registered(1)
    asked = only(decided(JOB.accepted(), new), FetchInfo, lambda action: action.index == 1)
    assert (asked.url, asked.boot_id) == ("http://outside-1", "client-boot-1")
    told = only(decided(JOB.accepted(), new.answering(1)), ConfigureClient)
    assert (told.index, told.boot_id) == (1, "client-boot-1")


def test_one_that_registered_evaluates_for_its_own_token_and_a_pod_for_the_jobs():
    job = JOB.having(evaluation={"modes": ["Clients"]}).objective().in_round(1, 0, 1, 2)
    there = seen().aggregator(committed=0).ready(0).outside(1, 2)
    committed = there.round(1, RoundState.COMMITTED, record=record(1, 0, 1, 2, expects_evaluation=True))
    asked = of_type(decided(job, committed), Evaluate)
    assert {action.client: action.boot_id for action in asked} == {0: None, 1: "client-boot-1", 2: "client-boot-2"}


def test_nothing_but_the_question_goes_where_another_program_answers():
    decision = decided(JOB.accepted(), seen().aggregator().ready(0).registered(1).answering(1, who=7), now=at(1))
    assert of_type(decision, ConfigureClient) == []
    assert only(decision, FetchInfo, lambda action: action.index == 1)
    message = decision.status.condition("ClientsReady").message
    assert decision.status.clients.ready == 1
    assert message == "1 of 3 are ready"
    short = JOB.having(minClients=3).accepted()
    decision = decided(short, seen().aggregator().ready(0).registered(1).answering(1, who=7))
    assert "another program than the one that registered answers at http://outside-1" in decision.status.message


def test_the_job_starts_when_all_are_there_or_the_wait_is_over():
    everybody = seen().aggregator().ready(0).outside(1, 2)
    assert settled(JOB.accepted(), everybody, now=at(1))[0].status.start_time is not None
    two = seen().aggregator().ready(0).outside(1).registered(lost=(2,))
    assert settled(JOB.accepted(), two, now=at(9))[0].status.start_time is None
    assert settled(JOB.accepted(), two, now=at(10))[0].status.start_time is not None


def test_who_is_not_there_or_has_not_proved_itself_is_not_chosen():
    there = seen().aggregator(committed=0).ready(0).outside(1).registered(2)
    committed = there.round(0, "Evaluated", reported=[0])
    assert settled(JOB.in_round(0, 0), committed, now=at(20))[0].status.current_round.selected == (0, 1)
    gone = seen().aggregator(committed=0).ready(0).outside(1).registered(lost=(2,)).round(0, "Evaluated", reported=[0])
    job = settled(JOB.in_round(0, 0), gone, now=at(20))[0]
    assert job.status.current_round.selected == (0, 1)
    assert (job.status.clients.lost, job.status.clients.lost_indices) == (1, (2,))


def test_until_the_aggregator_said_who_is_there_nobody_counts_as_gone():
    unknown = seen().aggregator(committed=0).ready(0).round(1, "Open")
    assert of_type(decided(JOB.in_round(1, 0, 1, 2), unknown), ReportFailure) == []


def test_a_participant_that_is_not_heard_of_any_more_is_reported_and_the_others_go_on():
    opened = seen().aggregator(committed=0).ready(0).outside(1).registered(lost=(2,)).round(1, "Open")
    decision = decided(JOB.in_round(1, 0, 1, 2), opened)
    reported = only(decision, ReportFailure)
    assert (reported.client, reported.report.reason) == (2, Reason.CLIENT_LOST)
    assert {action.client for action in of_type(decision, StartTask)} == {0, 1}
    task = only(decision, StartTask, lambda action: action.client == 1)
    assert (task.url, task.boot_id) == ("http://outside-1", "client-boot-1")


def test_the_initial_model_is_made_by_a_client_of_ours_where_there_is_one():
    groups = list(reversed(GROUPS))
    job = JOB.having(clientGroups=groups).accepted()
    begun = settled(job, seen().aggregator().ready(2).outside(0, 1), now=at(1))[0]
    assert begun.status.current_round.selected == (2,)


def test_late_joiners_are_told_that_they_are_refused_once():
    refusing = JOB.having(lateJoiners="Refuse")
    begun = settled(refusing.accepted(), seen().aggregator().ready(0).outside(1).registered(lost=(2,)), now=at(10))[0]
    assert begun.status.clients.late_indices == (2,)
    late = seen().aggregator().ready(0).outside(1).registered(2, 9)
    asked = [action.index for action in of_type(decided(begun, late, now=at(11)), FetchInfo)]
    assert asked == [2, 9]
    known = late.answering(2).answering(9)
    turned = of_type(decided(begun, known, now=at(12)), TurnAway)
    assert [(action.boot_id, action.notice.reason) for action in turned] == [
        ("client-boot-2", Reason.LATE_JOINER),
        ("client-boot-9", Reason.LATE_JOINER),
    ]
    assert of_type(decided(begun, known, now=at(12)), ConfigureClient) == []


def test_who_finds_all_places_taken_is_told_so_though_late_joiners_are_accepted():
    there = seen().aggregator().ready(0).outside(1, 2)
    begun = settled(JOB.accepted(), there, now=at(10))[0]
    assert begun.status.start_time is not None
    known = there.registered(1, 2, 9).answering(9)
    turned = only(decided(begun, known, now=at(12)), TurnAway)
    assert (turned.boot_id, turned.notice.reason) == ("client-boot-9", Reason.LATE_JOINER)
    assert (
        turned.notice.message == f"{begun.metadata.name} has begun without it, and has no place for it: all 3 are taken"
    )


def test_one_of_a_group_for_gpus_that_has_none_is_not_ready():
    groups = [GROUPS[0], {**GROUPS[1], "device": "GPU"}]
    decision = decided(
        JOB.having(clientGroups=groups, minClients=3).accepted(), seen().aggregator().ready(0).outside(1)
    )
    assert decision.status.clients.ready == 1
    assert "client 1: GpuUnavailable" in decision.status.message


def test_who_had_registered_before_the_job_began_is_waited_beside_for_as_long_as_anybody():
    groups = [{"name": "outside", "external": {"minClients": 3}}]
    job = a_job().having(clientGroups=groups, minClients=2, joinWaitSeconds=10).policy(minReports=2)
    since_yesterday = seen().aggregator().outside(0, 1, since=-86_400)
    begun = settled(job.accepted(), since_yesterday, now=at(5))[0]
    assert begun.status.start_time is None
    assert settled(begun, since_yesterday, now=at(14))[0].status.start_time is None
    assert settled(begun, since_yesterday, now=at(15))[0].status.start_time is not None


def refusing(
    index, message="DataError: partition: 1 examples cannot be divided among 2 clients (PUT /v1/job)", **state
):
    """A client that is asked to work for the job and says why it cannot."""
    plain, there = (
        builder.registered(0, 1).answering(0).answering(1)
        for builder in (seen().aggregator(), seen().aggregator(**state))
    )
    told = {action.index: action for action in of_type(decided(OUTSIDE.accepted(), plain), ConfigureClient)}
    for each in index:
        there = there.failing(told[each], word="bad-request", message=message)
    return there


OUTSIDE = a_job().having(clientGroups=[{"name": "outside", "external": {"minClients": 2}}], minClients=2)


def test_a_job_that_too_many_say_they_cannot_work_for_fails_with_their_reason():
    assert decided(OUTSIDE.accepted(), refusing((0,)), now=at(4)).status.phase == "Starting", "it may yet be mended"
    status = decided(OUTSIDE.accepted(), refusing((0,)), now=at(5)).status
    assert (status.phase, status.reason) == ("Failed", "DataError")
    assert "client 0: DataError: partition: 1 examples" in status.message


def test_it_goes_on_where_enough_are_left_or_no_reason_of_that_kind_is_given_or_the_job_runs():
    enough = OUTSIDE.having(minClients=1)
    assert decided(enough.accepted(), refusing((0,)), now=at(9)).status.phase == "Starting"
    for message in ("OOMKilled: x", "nonsense", "LateJoiner: x"):
        assert decided(OUTSIDE.accepted(), refusing((0,), message), now=at(9)).status.phase == "Starting"
    assert decided(OUTSIDE.committed(0), refusing((0, 1), committed=0), now=at(9)).status.phase != "Failed"
