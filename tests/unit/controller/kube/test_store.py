"""The resource on the API server: what is read, what is written, and what stands in the way."""

import copy
import json

import pytest

from fedjob_operator.adapters.kube.api import JOBS
from fedjob_operator.adapters.kube.documents import meta, version_of
from fedjob_operator.adapters.kube.store import JobKey, KubeJobStore
from fedjob_operator.api.v1alpha1 import FederatedJob, Metric, Phase, dump
from fedjob_operator.ports import CallError, StatusConflictError, StoreUnavailableError, UnreadableJobError
from fedjob_protocol.reasons import Reason
from tests.support.builders import JobBuilder, at
from tests.unit.controller.kube.fake_api import FakeApi, refused, unavailable

KEY = JobKey(namespace="lab", name="mnist", uid="uid-of-job")


def document(**parts):
    spec = json.loads(json.dumps(JobBuilder().spec))
    metadata = {"name": "mnist", "namespace": "lab", "uid": KEY.uid, "generation": 1, "managedFields": [{}]}
    return {"apiVersion": "fedjob.dev/v1alpha1", "kind": "FederatedJob", "metadata": metadata, "spec": spec, **parts}


@pytest.fixture
def api():
    fake = FakeApi()
    fake.put(JOBS, document())
    return fake


@pytest.fixture
def store(api):
    return KubeJobStore(api, KEY, clock=lambda: at(0))


def change(api, **parts):
    """Change the resource as somebody else would."""
    return api.put(JOBS, {**copy.deepcopy(api.find(JOBS, "mnist")), **parts})


async def test_what_is_written_is_read(api, store):
    job = await store.read()
    written = await store.write_status(job, job.status.model_copy(update={"term": 4, "phase": Phase.STARTING}))
    assert (written.status.term, written.metadata.resource_version) == (4, version_of(api.find(JOBS, "mnist")))
    fresh = await KubeJobStore(api, KEY, clock=lambda: at(0)).read()
    assert fresh == written
    assert api.counts["patch", "federatedjobs"] == 1


async def test_the_first_status_is_written_with_its_defaults(api, store):
    job = await store.read()
    await store.write_status(job, job.status.model_copy(update={"term": 1}))
    held = api.find(JOBS, "mnist")["status"]
    assert held == json.loads(json.dumps(dump(job.status.model_copy(update={"term": 1}))))
    assert held["phase"] == "Pending"


async def test_nothing_is_sent_when_nothing_changes(api, store):
    job = await store.read()
    job = await store.write_status(job, job.status.model_copy(update={"term": 1}))
    assert (await store.write_status(job, job.status)).status.term == 1
    assert api.counts["patch", "federatedjobs"] == 1


@pytest.mark.parametrize(
    "gone",
    [
        lambda api: api.remove(JOBS, "mnist"),
        lambda api: change(api, metadata={**meta(api.find(JOBS, "mnist")), "uid": "another"}),
        lambda api: change(
            api, metadata={**meta(api.find(JOBS, "mnist")), "deletionTimestamp": "2026-01-01T00:00:00Z"}
        ),
    ],
    ids=["deleted", "made anew under its name", "being deleted"],
)
async def test_what_is_gone_is_none(api, store, gone):
    gone(api)
    assert await store.read() is None


async def test_who_did_not_see_a_change_may_not_write(api, store):
    job = await store.read()
    change(api, metadata={**meta(api.find(JOBS, "mnist")), "labels": {"a": "b"}})
    with pytest.raises(StatusConflictError, match="job lab/mnist changed since it was read"):
        await store.write_status(job, job.status.model_copy(update={"term": 1}))
    again = await store.read()
    assert (await store.write_status(again, again.status.model_copy(update={"term": 1}))).status.term == 1


async def test_a_status_is_never_written_to_another_job_of_that_name(api, store):
    job = await store.read()
    api.remove(JOBS, "mnist")
    other = document()
    other["metadata"]["uid"] = "another"
    api.put(JOBS, other)["metadata"]["resourceVersion"] = job.metadata.resource_version
    with pytest.raises(StatusConflictError):
        await store.write_status(job, job.status.model_copy(update={"term": 1}))


async def test_what_was_deleted_meanwhile_is_to_be_read_again(api, store):
    job = await store.read()
    api.remove(JOBS, "mnist")
    with pytest.raises(StatusConflictError):
        await store.write_status(job, job.status.model_copy(update={"term": 1}))


@pytest.mark.parametrize(
    "error", [unavailable(), refused("the server is shutting down"), refused("status.x: Invalid", 422)]
)
async def test_what_cannot_be_read_or_written_now_is_said_to_be_so(api, store, error):
    api.fail("get", error)
    with pytest.raises(StoreUnavailableError, match="job lab/mnist cannot be read"):
        await store.read()
    job = await store.read()
    api.fail("patch", error)
    with pytest.raises(StoreUnavailableError, match="job lab/mnist"):
        await store.write_status(job, job.status.model_copy(update={"term": 1}))


async def test_a_field_that_an_older_crd_drops_is_not_written_again_and_again(api, store):
    patch_status = api.patch_status

    async def pruning(kind, namespace, name, patch):
        patch["status"].pop("failedAttempts", None)
        return await patch_status(kind, namespace, name, patch)

    api.patch_status = pruning
    job = await store.read()
    wanted = job.status.model_copy(update={"failed_attempts": 2})
    written = await store.write_status(job, wanted)
    assert written.status == wanted
    assert (await store.read()).status == wanted


async def test_numbers_that_are_not_finite_never_reach_the_server(api, store):
    job = await store.read()
    metrics = (Metric.model_construct(name="loss", value=float("nan")), Metric(name="accuracy", value=0.5))
    await store.write_status(job, job.status.model_copy(update={"metrics": metrics}))
    assert api.find(JOBS, "mnist")["status"]["metrics"] == [{"name": "accuracy", "value": 0.5}]


# What cannot be read


def nonsense(api, **spec):
    held = api.find(JOBS, "mnist")
    return change(api, spec={**held["spec"], **spec})


def accepted(api):
    return next(item for item in api.find(JOBS, "mnist")["status"]["conditions"] if item["type"] == "Accepted")


async def test_what_cannot_be_read_is_said_in_its_status_with_the_field(api, store):
    nonsense(api, rounds="many", weather=1)
    with pytest.raises(UnreadableJobError, match=r"spec\.rounds"):
        await store.read()
    condition = accepted(api)
    assert (condition["status"], condition["reason"], condition["observedGeneration"]) == (
        "False",
        Reason.INVALID_SPEC,
        1,
    )
    assert "spec.rounds" in condition["message"]
    assert "spec.weather" in condition["message"]
    status = api.find(JOBS, "mnist")["status"]
    assert (status["phase"], status["reason"]) == ("Pending", Reason.INVALID_SPEC)


async def test_it_is_said_once(api, store):
    nonsense(api, rounds="many")
    for _ in range(3):
        with pytest.raises(UnreadableJobError):
            await store.read()
    assert api.counts["patch", "federatedjobs"] == 1


async def test_the_rest_of_its_status_stays_as_it_is(api, store):
    job = await store.read()
    job = JobBuilder().committed(1).build().model_copy(update={"metadata": job.metadata, "spec": job.spec})
    written = await store.write_status(job.model_copy(update={"status": (await store.read()).status}), job.status)
    nonsense(api, rounds="many")
    with pytest.raises(UnreadableJobError):
        await store.read()
    nonsense(api, rounds=2)
    mended = await store.read()
    assert mended.status.rounds == written.status.rounds
    assert mended.status.model == written.status.model


@pytest.mark.parametrize("status", [{"conditions": 7}, {"conditions": [1, {"type": 3}]}, {"rounds": []}])
async def test_a_status_that_is_nonsense_stops_nobody(api, store, status):
    change(api, status=status, spec={})
    with pytest.raises(UnreadableJobError):
        await store.read()
    assert accepted(api)["status"] == "False"


@pytest.mark.parametrize("error", [unavailable(), refused("no"), refused("conflict", 409)])
async def test_that_it_cannot_be_said_changes_nothing(api, store, error):
    nonsense(api, rounds="many")
    api.fail("patch", error)
    with pytest.raises(UnreadableJobError):
        await store.read()


async def test_very_many_problems_are_not_all_listed(api, store):
    nonsense(api, **{f"field{number}": 1 for number in range(500)})
    with pytest.raises(UnreadableJobError, match=r"and 495 more"):
        await store.read()
    assert len(accepted(api)["message"]) <= 1024


# Deleting


async def test_a_job_is_deleted_by_its_unique_id(api, store):
    job = await store.read()
    await store.delete(job)
    assert api.find(JOBS, "mnist") is None
    await store.delete(job)
    other = document()
    other["metadata"]["uid"] = "another"
    api.put(JOBS, other)
    await store.delete(job)
    assert api.find(JOBS, "mnist") is not None


@pytest.mark.parametrize("error", [unavailable(), refused("no")])
async def test_a_job_that_cannot_be_deleted_is_tried_again(api, store, error):
    job = await store.read()
    api.fail("delete", error)
    with pytest.raises(CallError, match="job lab/mnist cannot be deleted"):
        await store.delete(job)


def test_the_resource_of_these_tests_is_one():
    assert FederatedJob.from_document(document()).metadata.uid == KEY.uid
