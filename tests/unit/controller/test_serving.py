"""Servers of a complete job's model: wished for in the status first, then made, and scaled as the spec says."""

from dataclasses import replace

import pytest

from fedjob_operator.api.v1alpha1 import BestModel, CommittedModel, Serving
from fedjob_operator.core.actions import ServeModel
from fedjob_operator.core.observed import ServersSeen
from fedjob_protocol.reasons import Reason
from tests.support.builders import CLUSTER, EPOCH, a_job, at, chain_digest, decided, of_type, seen, settled
from tests.unit.controller.test_finished import over

NEWEST = CommittedModel(round=2, digest=chain_digest(2))
AGGREGATOR = seen().aggregator(committed=2)
TWO = Serving(replicas=2, service="job-serve", model=NEWEST)


def job(replicas=2, **status):
    return over(a_job().having(serve={"replicas": replicas}).committed(2), **status)


def having(replicas, *, now=EPOCH):
    return replace(AGGREGATOR, observed=replace(AGGREGATOR.observed, servers=ServersSeen(replicas=replicas, at=now)))


def test_the_wish_is_in_the_status_before_anything_is_made():
    first = decided(job(), AGGREGATOR, platform=CLUSTER)
    assert first.status.serving == TWO
    assert of_type(first, ServeModel) == []
    _, then = settled(job(), AGGREGATOR, platform=CLUSTER)
    assert of_type(then, ServeModel) == [ServeModel(replicas=2)]


def test_what_was_made_is_looked_at_again_after_a_while():
    written, decision = settled(job(), having(2), platform=CLUSTER)
    assert (of_type(decision, ServeModel), decision.wake_at) == ([], at(60))
    later = decided(written, having(2), now=at(60), platform=CLUSTER)
    assert of_type(later, ServeModel) == [ServeModel(replicas=2)]


@pytest.mark.parametrize("replicas", [1, 3])
def test_another_number_is_asked_for_as_soon_as_the_spec_has_it(replicas):
    written, decision = settled(job(replicas, serving=TWO), having(2), platform=CLUSTER)
    assert written.status.serving.replicas == replicas
    assert of_type(decision, ServeModel) == [ServeModel(replicas=replicas)]


def test_none_are_left_once_none_are_wanted():
    written, decision = settled(job(0, serving=TWO), having(2), platform=CLUSTER)
    assert of_type(decision, ServeModel) == [ServeModel(replicas=0)]
    gone, decision = settled(written, having(0), platform=CLUSTER)
    assert gone.status.serving is None
    assert decision.actions == ()


def test_a_job_that_never_asked_for_servers_is_not_looked_at_for_them():
    written, decision = settled(job(0), AGGREGATOR, platform=CLUSTER)
    assert written.status.serving is None
    assert of_type(decision, ServeModel) == []


def test_the_best_model_is_served_where_there_is_one():
    best = BestModel(round=1, value=0.9, digest=chain_digest(1))
    written, _ = settled(job(best=best), AGGREGATOR, platform=CLUSTER)
    assert written.status.serving.model == CommittedModel(round=1, digest=chain_digest(1))


def test_a_failed_job_serves_nothing():
    written, decision = settled(job(failed=True, reason=Reason.DIVERGED), AGGREGATOR, platform=CLUSTER)
    assert written.status.serving is None
    assert of_type(decision, ServeModel) == []
