"""The pods as last seen, whatever order watch, lists and our own requests arrive in."""

import copy

import pytest

from fedjob_operator.adapters.kube.cache import PodCache
from fedjob_operator.core.observed import PodPhase
from tests.unit.controller.kube.pod_documents import JOB_UID, pod, ready


@pytest.fixture
def woken():
    return []


@pytest.fixture
def cache(woken):
    return PodCache(woken.append)


def places(cache):
    return sorted((view.index, view.phase) for view in cache.pods(JOB_UID))


def numbered(index, document=pod):
    return document(index=index, uid=f"uid-{index}")


def test_what_is_heard_is_seen_and_wakes_the_job(cache, woken):
    cache.put(numbered(0))
    cache.put(numbered(0, ready))
    assert places(cache) == [(0, PodPhase.READY)]
    assert woken == [JOB_UID, JOB_UID]


def test_what_says_nothing_new_wakes_nobody(cache, woken):
    cache.put(numbered(0))
    again = numbered(0)
    again["metadata"]["resourceVersion"] = "900"
    cache.put(again)
    assert woken == [JOB_UID]


def test_what_is_gone_stays_gone_although_older_news_arrives_late(cache, woken):
    cache.replace(JOB_UID, [numbered(0)], mark=cache.mark())
    cache.remove(numbered(0))
    cache.put(numbered(0, ready))
    assert places(cache) == []
    assert woken == [JOB_UID, JOB_UID]


def test_a_deletion_that_arrives_before_the_answer_to_our_own_request_counts(cache):
    cache.put(numbered(0))
    cache.replace(JOB_UID, [numbered(0)], mark=cache.mark())
    cache.remove(numbered(0))
    stopping = numbered(0)
    stopping["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:09Z"
    cache.put(stopping)
    assert places(cache) == []


def test_an_answer_to_our_own_request_does_not_undo_what_was_heard_since_it_was_asked(cache):
    mark = cache.mark()
    cache.put(numbered(0, ready))
    cache.answered(numbered(0), mark=mark)
    assert places(cache) == [(0, PodPhase.READY)]


def test_an_answer_to_our_own_request_counts_where_nothing_else_was_heard(cache, woken):
    cache.answered(numbered(0), mark=cache.mark())
    cache.answered(numbered(0, ready), mark=cache.mark())
    assert places(cache) == [(0, PodPhase.READY)]
    assert woken == [JOB_UID, JOB_UID]


def test_a_successor_of_the_same_name_is_another_pod(cache):
    cache.put(numbered(0))
    cache.remove(numbered(0))
    cache.put(pod(index=0, uid="uid-another"))
    assert places(cache) == [(0, PodPhase.STARTING)]


def test_a_list_brings_what_the_watch_lost(cache, woken):
    cache.put(numbered(0))
    cache.put(numbered(1))
    woken.clear()
    cache.replace(JOB_UID, [numbered(1, ready), numbered(2)], mark=cache.mark())
    assert places(cache) == [(1, PodPhase.READY), (2, PodPhase.STARTING)]
    assert woken == [JOB_UID]


def test_a_list_does_not_undo_what_was_heard_since_it_was_asked_for(cache):
    cache.put(numbered(0))
    mark = cache.mark()
    cache.put(numbered(0, ready))
    cache.put(numbered(1))
    cache.replace(JOB_UID, [numbered(0)], mark=mark)
    assert places(cache) == [(0, PodPhase.READY), (1, PodPhase.STARTING)]


def test_a_list_that_says_nothing_new_wakes_nobody_but_the_first_time(cache, woken):
    assert not cache.is_listed(JOB_UID)
    cache.replace(JOB_UID, [], mark=cache.mark())
    assert cache.is_listed(JOB_UID)
    cache.replace(JOB_UID, [], mark=cache.mark())
    assert woken == [JOB_UID]


def test_a_forgotten_job_is_not_remembered_by_the_ends_of_its_pods(cache, woken):
    cache.put(numbered(0))
    cache.forget(JOB_UID)
    woken.clear()
    cache.put(numbered(0, ready))
    cache.remove(numbered(0))
    assert (places(cache), woken, cache.all_pods()) == ([], [], ())


def test_pods_of_jobs_that_nobody_knows_leave_nothing(cache):
    cache.put(numbered(0))
    cache.remove(numbered(0))
    assert cache._jobs == {}


def test_only_what_was_heard_of_is_absent(cache, woken):
    cache.absent(JOB_UID, "uid-0")
    cache.put(numbered(0))
    cache.absent(JOB_UID, "uid-0")
    assert (places(cache), len(woken)) == ([], 2)


def test_a_pod_is_found_by_where_it_answers(cache):
    cache.put(numbered(7, ready))
    url = cache.pods(JOB_UID)[0].url
    assert cache.pod_at(url) == ("lab", "mnist-client-7-0")
    assert cache.pod_at("http://10.0.0.99:1") is None


def test_what_is_no_pod_of_a_job_is_not_kept(cache, woken):
    stranger = copy.deepcopy(pod())
    stranger["metadata"]["ownerReferences"] = []
    cache.put(stranger)
    cache.put({})
    assert (cache.all_pods(), woken) == ((), [])
