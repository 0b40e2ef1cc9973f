"""Beginning with a checkpoint of another job: which one, what is held meanwhile, and what a client is told."""

from dataclasses import replace

import pytest

from fedjob_operator.api.v1alpha1 import BestModel, JobCheckpoint, Origin, Phase, RecentRound
from fedjob_operator.build.policy import origin_policy
from fedjob_operator.core.actions import CreatePod, FindOrigin, StartTask
from fedjob_operator.core.conditions import describe, finish
from fedjob_operator.core.observed import OriginSeen
from fedjob_operator.core.origin import choose_checkpoint
from fedjob_protocol.reasons import Reason
from fedjob_protocol.tasks import WarmInitTask
from tests.support.builders import EPOCH, UID, a_job, at, chain_digest, decided, of_type, only, seen, settled

ORIGIN = Origin(job="before", uid="other", round=4, digest=chain_digest(4))


def warm():
    return a_job().having(model={"name": "mlp", "initFrom": {"federatedJob": {"name": "before"}}})


def finding(found, what=None):
    begun = what or seen()
    return replace(begun, observed=replace(begun.observed, origin=found))


def another(committed=5, *, best=None, over=True, failed=False):
    """The other job: its last rounds are in the status."""
    rows = tuple(RecentRound(number=number, digest=chain_digest(number)) for number in range(committed + 1))
    builder = a_job().rounds(5).committed(committed).saying(recent_rounds=rows)
    if best is not None:
        builder = builder.saying(best=BestModel(round=best, value=0.9, digest=chain_digest(best)))
    job = builder.build()
    status = job.status
    if over:
        status = finish(status, failed=failed, reason=Reason.ROUNDS_COMPLETED, message="", now=EPOCH)
    return job.model_copy(update={"status": describe(job, status)})


@pytest.mark.parametrize(
    ("ask", "number"),
    [
        ({"checkpoint": "Final"}, 5),
        ({"checkpoint": "Best"}, 2),
        ({"checkpoint": "Round", "round": 4}, 4),
        ({"checkpoint": "Round", "round": 2}, 2),
    ],
)
@pytest.mark.parametrize("failed", [False, True])
def test_the_newest_the_best_and_the_one_before_of_a_finished_job_can_be_begun_with(ask, number, failed):
    found = choose_checkpoint(JobCheckpoint(name="job", **ask), another(best=2, failed=failed))
    assert found.origin == Origin(job="job", uid=UID, round=number, digest=chain_digest(number))


@pytest.mark.parametrize(
    ("ask", "complaint"),
    [
        ({"checkpoint": "Best"}, "has no best model: give it an objective"),
        ({"checkpoint": "Round", "round": 1}, "does not keep the checkpoint of round 1; it has round 4 and 5"),
        ({"checkpoint": "Round", "round": 9}, "does not keep the checkpoint of round 9"),
    ],
)
def test_what_a_finished_job_does_not_keep_never_comes(ask, complaint):
    found = choose_checkpoint(JobCheckpoint(name="job", **ask), another())
    assert found.is_final
    assert complaint in found.message


@pytest.mark.parametrize("checkpoint", ["Best", "Final"])
def test_best_and_final_are_known_when_the_other_job_has_finished(checkpoint):
    found = choose_checkpoint(JobCheckpoint(name="job", checkpoint=checkpoint), another(best=2, over=False))
    assert (found.origin, found.is_final) == (None, False)
    assert "has not finished: it is Running" in found.message


def test_a_round_of_a_running_job_can_be_begun_with_as_soon_as_it_is_committed():
    ask = JobCheckpoint(name="job", checkpoint="Round", round=4)
    assert choose_checkpoint(ask, another(4, over=False)).origin is not None
    before = choose_checkpoint(ask, another(3, over=False))
    assert (before.origin, before.is_final) == (None, False)
    assert "round 4 is waited for" in before.message


def test_nothing_is_held_while_the_other_job_is_waited_for():
    written, decision = settled(warm(), finding(OriginSeen(attempt=0, message="job before has not finished")))
    assert (written.status.phase, written.status.reason) == (Phase.STARTING, Reason.INITIAL_MODEL_PENDING)
    assert "job before has not finished" in written.status.message
    assert of_type(decision, CreatePod) == []
    assert only(decision, FindOrigin).ask == JobCheckpoint(name="before")


def test_the_time_to_start_in_runs_from_when_the_model_was_found():
    waiting, _ = settled(warm(), seen())
    written, decision = settled(waiting, finding(OriginSeen(attempt=0, origin=ORIGIN)), now=at(5000))
    assert written.status.startup.began_at == at(5000)
    assert of_type(decision, CreatePod)


def test_the_choice_is_in_the_status_before_any_pod_is_made():
    waiting, _ = settled(warm(), seen())
    decision = decided(waiting, finding(OriginSeen(attempt=0, origin=ORIGIN)))
    assert decision.status.origin == ORIGIN
    assert of_type(decision, CreatePod) == []


def test_the_choice_is_followed_whatever_is_found_later():
    written, _ = settled(warm(), finding(OriginSeen(attempt=0, origin=ORIGIN)))
    newer = ORIGIN.model_copy(update={"round": 5, "digest": chain_digest(5)})
    again, _ = settled(written, finding(OriginSeen(attempt=0, origin=newer)))
    assert again.status.origin == ORIGIN


def test_a_checkpoint_that_never_comes_fails_the_job_with_the_reason():
    written, _ = settled(warm(), finding(OriginSeen(attempt=0, message="it is not kept", is_final=True)))
    assert (written.status.phase, written.status.reason) == (Phase.FAILED, Reason.INITIAL_MODEL_LOST)
    assert written.status.message == "it is not kept"


def opened():
    begun = finding(OriginSeen(attempt=0, origin=ORIGIN), seen().aggregator().ready(0, 1, 2).round(0))
    return settled(warm(), begun)[0], begun


def test_whoever_makes_the_initial_model_is_told_where_it_is_and_given_a_permit_for_it():
    written, begun = opened()
    served = OriginSeen(attempt=1, origin=ORIGIN, url="http://before", permit="secret")
    _, decision = settled(written, finding(served, begun))
    task = only(decision, StartTask).task
    assert isinstance(task, WarmInitTask)
    assert (task.origin.model_url, task.origin.permit) == ("http://before/v1/models/4", "secret")
    assert (task.origin.round, task.origin.digest) == (4, chain_digest(4))
    assert "secret" not in repr(served)


def test_each_attempt_asks_anew_where_the_model_is_served():
    written, begun = opened()
    _, decision = settled(written, begun)
    assert of_type(decision, StartTask) == []
    assert only(decision, FindOrigin) == FindOrigin(ask=JobCheckpoint(name="before"), attempt=1, origin=ORIGIN)


def test_a_job_whose_model_is_not_served_now_says_so():
    written, begun = opened()
    away = OriginSeen(attempt=1, origin=ORIGIN, message="the aggregator of job before does not serve it now")
    waiting, decision = settled(written, finding(away, begun))
    assert waiting.status.reason == Reason.INITIAL_MODEL_PENDING
    assert only(decision, FindOrigin).attempt == 1


def test_a_job_whose_origin_is_gone_fails():
    written, begun = opened()
    gone = OriginSeen(attempt=1, message="job before is not there any more", is_final=True)
    failed, _ = settled(written, finding(gone, begun))
    assert (failed.status.phase, failed.status.reason) == (Phase.FAILED, Reason.INITIAL_MODEL_LOST)


def test_a_model_on_the_same_machine_is_not_fetched():
    local = ORIGIN.model_copy(update={"path": "/runs/before/model"})
    begun = finding(OriginSeen(attempt=0, origin=local), seen().aggregator().ready(0, 1, 2).round(0))
    _, decision = settled(warm(), begun)
    assert not isinstance(only(decision, StartTask).task, WarmInitTask)


def test_the_network_lets_the_clients_and_nobody_else_of_the_job_reach_the_other_ones_aggregator():
    policy = origin_policy(warm().accepted().build(), ORIGIN)
    spec = policy["spec"]
    assert spec["podSelector"]["matchLabels"] == {"fedjob.dev/job-uid": "other", "fedjob.dev/role": "aggregator"}
    (rule,) = spec["ingress"]
    labels = {"fedjob.dev/job-uid": UID, "fedjob.dev/role": "client"}
    assert rule["from"] == [{"podSelector": {"matchLabels": labels}}]
    assert [owner["uid"] for owner in policy["metadata"]["ownerReferences"]] == [UID]
