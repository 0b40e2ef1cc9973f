"""A job's pods on the API server: what is made, in which order, and what stands in the way."""

import copy
from dataclasses import replace

import pytest

from fedjob_operator.adapters.kube.api import CLAIMS, DEPLOYMENTS, PODS, SECRETS, SERVICES, ApiUnavailableError
from fedjob_operator.adapters.kube.cache import PodCache
from fedjob_operator.adapters.kube.pods import GRACE_SECONDS, KubePods, PodSource
from fedjob_operator.adapters.kube.store import JobKey
from fedjob_operator.api.v1alpha1 import CommittedModel, Serving
from fedjob_operator.build.settings import PodSettings, PolicySettings
from fedjob_operator.core.actions import CreatePod, DeletePod, ServeModel
from fedjob_operator.core.observed import PodPhase, PodRole
from fedjob_operator.ports import CallError
from fedjob_protocol.reasons import Reason
from tests.support.builders import EPOCH, JobBuilder, chain_digest
from tests.unit.controller.kube.fake_api import FakeApi, refused, unavailable

OLD, NEW = "11111111-old", "22222222-new"
AGGREGATOR = CreatePod(role=PodRole.AGGREGATOR, index=0, ordinal=0)
CLIENT = CreatePod(role=PodRole.CLIENT, index=1, ordinal=0)
SETTINGS = PodSettings(client_image="c:1", aggregator_image="a:1")


def job(uid=NEW, **spec):
    built = JobBuilder().having(**spec).accepted().build()
    return built.model_copy(update={"metadata": built.metadata.model_copy(update={"uid": uid, "namespace": "lab"})})


class Place:
    """A job's pods on a fake API server."""

    def __init__(self, api, uid=NEW, settings=SETTINGS):
        self.api = api
        self.woken = []
        self.failed = []
        self.cache = PodCache(self.woken.append)
        source = PodSource(api=api, cache=self.cache, settings=settings)
        self.uid = uid
        self.pods = KubePods(
            source,
            JobKey(namespace="lab", name="job", uid=uid),
            token=f"token of {uid}",
            failed=lambda: self.failed.append(1),
            clock=lambda: EPOCH,
        )

    def view(self):
        return [(pod.role, pod.index, pod.ordinal, pod.phase) for pod in self.pods.pods()]


@pytest.fixture
def api():
    return FakeApi()


@pytest.fixture
def place(api):
    return Place(api)


def made(api):
    return [(plural, name) for verb, plural, name in api.calls if verb == "create"]


async def test_before_the_aggregator_is_made_what_it_needs(api, place):
    await place.pods.create(job(), AGGREGATOR)
    assert made(api) == [
        ("secrets", "job-22222222-token"),
        ("services", "job-aggregator"),
        ("persistentvolumeclaims", "job-22222222-aggregator-0"),
        ("pods", "job-aggregator-0-0"),
    ]
    assert api.find(SECRETS, "job-22222222-token")["stringData"] == {"token": f"token of {NEW}"}
    assert place.view() == [(PodRole.AGGREGATOR, 0, 0, PodPhase.STARTING)]
    assert place.woken == [NEW]


async def test_where_networks_are_to_be_closed_a_policy_is_there_before_the_first_pod(api):
    closed = PolicySettings(operator_namespace="o", operator_labels={"a": "b"}, monitoring_namespace_labels={"c": "d"})
    place = Place(api, settings=replace(SETTINGS, policy=closed))
    await place.pods.create(job(), CLIENT)
    assert made(api)[-2:] == [("networkpolicies", "job-22222222-pods"), ("pods", "job-client-1-0")]


def with_standbys():
    return job(aggregator={"replicas": 3})


async def test_each_aggregator_has_a_volume_of_its_own(api, place):
    for index in range(3):
        await place.pods.create(with_standbys(), CreatePod(role=PodRole.AGGREGATOR, index=index, ordinal=0))
    names = [f"job-22222222-aggregator-{index}" for index in range(3)]
    assert [name for plural, name in made(api) if plural == "persistentvolumeclaims"] == names


async def test_the_volume_of_an_aggregator_with_standbys_is_made_again_with_its_next_pod(api, place):
    await place.pods.create(with_standbys(), AGGREGATOR)
    claim = api.find(CLAIMS, "job-22222222-aggregator-0")
    await api.delete(CLAIMS, "lab", "job-22222222-aggregator-0", uid=claim["metadata"]["uid"])
    await place.pods.create(with_standbys(), CreatePod(role=PodRole.AGGREGATOR, index=0, ordinal=1))
    assert api.find(CLAIMS, "job-22222222-aggregator-0") is not None


async def test_no_pod_is_made_on_a_volume_that_is_going_away(api, place):
    await place.pods.create(with_standbys(), AGGREGATOR)
    api.find(CLAIMS, "job-22222222-aggregator-0")["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    with pytest.raises(CallError, match="is still going away"):
        await place.pods.create(with_standbys(), CreatePod(role=PodRole.AGGREGATOR, index=0, ordinal=1))


async def test_what_all_pods_need_is_made_once(api, place):
    await place.pods.create(job(), AGGREGATOR)
    await place.pods.create(job(), CLIENT)
    assert made(api)[4:] == [("pods", "job-client-1-0")]


async def test_what_somebody_took_away_is_made_again_for_the_next_pod(api, place):
    await place.pods.create(job(), AGGREGATOR)
    api.remove(SECRETS, "job-22222222-token")
    await place.pods.refresh()
    await place.pods.create(job(), CLIENT)
    assert api.find(SECRETS, "job-22222222-token") is not None


async def test_after_a_restart_everything_is_there_already_and_that_is_fine(api, place):
    await place.pods.create(job(), AGGREGATOR)
    again = Place(api)
    await again.pods.create(job(), AGGREGATOR)
    assert again.view() == [(PodRole.AGGREGATOR, 0, 0, PodPhase.STARTING)]


async def test_the_old_jobs_secret_and_volume_are_left_alone(api, place):
    await Place(api, OLD).pods.create(job(OLD), AGGREGATOR)
    for kind, name in ((SERVICES, "job-aggregator"), (PODS, "job-aggregator-0-0")):
        api.remove(kind, name)
    await place.pods.create(job(), AGGREGATOR)
    for kind, name in ((SECRETS, "token"), (CLAIMS, "aggregator-0")):
        assert {uid: api.find(kind, f"job-{uid}-{name}") is not None for uid in (OLD[:8], NEW[:8])} == {
            OLD[:8]: True,
            NEW[:8]: True,
        }


@pytest.mark.parametrize("kind", [SERVICES, PODS], ids=lambda kind: kind.plural)
async def test_what_is_the_old_jobs_is_waited_for(api, place, kind):
    await Place(api, OLD).pods.create(job(OLD), AGGREGATOR)
    for left in (SERVICES, PODS):
        if left is not kind:
            for name in ("job-aggregator", "job-aggregator-0-0"):
                api.remove(left, name)
    with pytest.raises(CallError, match=f"the old job's {kind.plural[:-1]} .* is still going away"):
        await place.pods.create(job(), AGGREGATOR)
    assert place.view() == []
    for name in ("job-aggregator", "job-aggregator-0-0"):
        api.remove(kind, name)
    await place.pods.create(job(), AGGREGATOR)
    assert place.view() != []


async def test_no_pod_is_made_beside_the_old_jobs_token(api, place):
    await Place(api, OLD).pods.create(job(OLD), AGGREGATOR)
    with pytest.raises(CallError):
        await place.pods.create(job(), CLIENT)
    assert api.find(PODS, "job-client-1-0") is None


async def test_secrets_are_never_read(api, place):
    await place.pods.create(job(), AGGREGATOR)
    again = Place(api)
    await again.pods.create(job(), AGGREGATOR)
    assert api.counts["get", "secrets"] == 0
    assert api.counts["list", "secrets"] == 0


async def test_a_volume_that_the_job_names_is_not_made(api, place):
    await place.pods.create(job(aggregator={"storage": {"claimName": "mine"}}), AGGREGATOR)
    assert api.counts["create", "persistentvolumeclaims"] == 0


QUOTA = 'pods "job-client-1-0" is forbidden: exceeded quota: small, requested: pods=1, used: pods=2, limited: pods=2'
POLICY = 'pods "x" is forbidden: violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false'


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (refused(QUOTA), Reason.QUOTA_EXCEEDED),
        (refused(POLICY), Reason.POD_REFUSED),
        (refused('Pod "x" is invalid: spec.containers[0].image: Required value', 422), Reason.POD_REFUSED),
        (refused("unable to create new content in namespace lab because it is being terminated"), None),
        (unavailable(), None),
    ],
)
async def test_why_a_pod_was_not_made(api, place, error, word):
    await place.pods.create(job(), AGGREGATOR)
    api.fail("create", error)
    with pytest.raises(CallError) as caught:
        await place.pods.create(job(), CLIENT)
    assert caught.value.word == word
    assert str(error) in str(caught.value)
    assert "pod job-client-1-0 cannot be created" in str(caught.value)
    assert place.failed == [1]


async def test_a_template_that_is_none_is_said_to_be_so(place):
    template = {"spec": {"containers": "none"}}
    with pytest.raises(CallError) as caught:
        await place.pods.create(job(clientGroups=[{"name": "clients", "replicas": 3, "template": template}]), CLIENT)
    assert caught.value.word == Reason.INVALID_POD_TEMPLATE


# Deleting


def deleting(view):
    return DeletePod(role=view.role, index=view.index, ordinal=view.ordinal, incarnation=view.incarnation)


async def test_a_pod_that_takes_its_time_is_stopping_until_it_is_gone():
    place = Place(FakeApi(graceful=True))
    await place.pods.create(job(), CLIENT)
    await place.pods.delete(deleting(place.pods.pods()[0]))
    assert place.view() == [(PodRole.CLIENT, 1, 0, PodPhase.STOPPING)]
    assert place.api.find(PODS, "job-client-1-0")["metadata"]["deletionGracePeriodSeconds"] == GRACE_SECONDS
    place.cache.remove(place.api.find(PODS, "job-client-1-0"))
    assert place.view() == []


async def test_another_pod_under_that_name_is_left_alone(api, place):
    await place.pods.create(job(), CLIENT)
    old = deleting(place.pods.pods()[0])
    api.remove(PODS, "job-client-1-0")
    await Place(api).pods.create(job(), CLIENT)
    await place.pods.delete(old)
    assert api.find(PODS, "job-client-1-0") is not None
    assert place.view() == []


async def test_a_pod_that_is_gone_already_is_no_longer_seen(api, place):
    await place.pods.create(job(), CLIENT)
    action = deleting(place.pods.pods()[0])
    api.remove(PODS, "job-client-1-0")
    await place.pods.delete(action)
    assert place.view() == []


@pytest.mark.parametrize("error", [unavailable(), refused("no")])
async def test_a_pod_that_cannot_be_deleted_now_is_tried_again(api, place, error):
    await place.pods.create(job(), CLIENT)
    api.fail("delete", error)
    with pytest.raises(CallError, match="pod job-client-1-0 cannot be deleted"):
        await place.pods.delete(deleting(place.pods.pods()[0]))
    assert place.view() == [(PodRole.CLIENT, 1, 0, PodPhase.STARTING)]


# Looking


async def test_a_list_puts_right_what_the_watch_lost(api, place):
    await place.pods.create(job(), AGGREGATOR)
    await place.pods.create(job(), CLIENT)
    api.remove(PODS, "job-client-1-0")
    await place.pods.refresh()
    assert place.view() == [(PodRole.AGGREGATOR, 0, 0, PodPhase.STARTING)]


async def test_a_list_has_only_the_jobs_own_pods(api, place):
    await Place(api, OLD).pods.create(job(OLD), AGGREGATOR)
    await place.pods.refresh()
    assert place.view() == []


async def test_what_cannot_be_listed_is_kept(api, place):
    await place.pods.create(job(), AGGREGATOR)
    api.fail("list", unavailable())
    with pytest.raises(ApiUnavailableError):
        await place.pods.refresh()
    assert len(place.view()) == 1


# Checking

TWO_GROUPS = [{"name": "small", "replicas": 2}, {"name": "big", "replicas": 1}]


async def test_one_pod_of_each_kind_is_checked_and_none_is_made(api, place):
    spec = {"clientGroups": TWO_GROUPS, "evaluation": {"modes": ["Evaluator"]}}
    assert (await place.pods.check(job(**spec))).problem is None
    assert sorted(name for verb, _, name in api.calls if verb == "dry-run") == [
        "job-aggregator-0-0", "job-client-0-0", "job-client-2-0", "job-evaluator-0-0",
    ]  # fmt: skip
    assert api.objects == {}


async def test_a_refusal_names_the_template_it_comes_from(api, place):
    create = api.create

    async def strict(kind, namespace, document, *, dry_run=False):
        if document["metadata"]["name"] == "job-client-2-0":
            raise refused(POLICY)
        return await create(kind, namespace, document, dry_run=dry_run)

    api.create = strict
    check = await place.pods.check(job(clientGroups=TWO_GROUPS))
    assert check.problem == f"spec.clientGroups[1].template: {POLICY}"
    assert check.generation == 1


async def test_what_cannot_even_be_built_is_a_problem_of_its_template(place):
    spec = job(aggregator={"template": {"spec": {"containers": 7}}})
    assert (await place.pods.check(spec)).problem.startswith("spec.aggregator.template: ")


async def test_a_service_account_that_is_not_allowed_is_a_problem(api):
    settings = PodSettings(client_image="c", aggregator_image="a", service_accounts=frozenset({"trainer"}))
    place = Place(api, settings=settings)
    template = {"spec": {"serviceAccountName": "admin"}}
    groups = [{"name": "clients", "replicas": 1, "template": template}]
    assert "admin is not one that the operator allows" in (await place.pods.check(job(clientGroups=groups))).problem


async def test_a_pod_that_is_there_or_has_no_room_now_says_nothing_against_the_template(api, place):
    await place.pods.create(job(), AGGREGATOR)
    api.fail("dry-run", refused(QUOTA), times=1)
    assert (await place.pods.check(job())).problem is None


async def test_without_an_answer_nothing_is_known(api, place):
    api.fail("dry-run", unavailable())
    with pytest.raises(CallError, match="cannot be checked"):
        await place.pods.check(job())


async def test_documents_are_not_shared_between_pods(api, place):
    await place.pods.create(job(), AGGREGATOR)
    before = copy.deepcopy(api.find(PODS, "job-aggregator-0-0"))
    await place.pods.create(job(), CLIENT)
    assert api.find(PODS, "job-aggregator-0-0") == before


def serving(replicas, **spec):
    model = CommittedModel(round=2, digest=chain_digest(2))
    built = job(**spec)
    wish = Serving(replicas=replicas, service="job-serve", model=model)
    return built.model_copy(update={"status": built.status.model_copy(update={"serving": wish})})


async def test_servers_are_made_with_what_they_need_and_then_only_scaled(api, place):
    assert (await place.pods.serve(serving(2), ServeModel(replicas=2))).replicas == 2
    assert made(api) == [
        ("secrets", "job-22222222-token"),
        ("services", "job-serve"),
        ("deployments", "job-serve"),
    ]
    await Place(api).pods.serve(serving(2), ServeModel(replicas=2))
    assert [verb for verb, plural, _ in api.calls if plural == "deployments" and verb in ("update", "replace")] == []
    await place.pods.serve(serving(0), ServeModel(replicas=0))
    assert api.find(DEPLOYMENTS, "job-serve")["spec"]["replicas"] == 0


async def test_servers_of_another_job_of_the_name_are_not_touched(api, place):
    old = serving(2).model_copy(update={"metadata": job(OLD).metadata})
    await Place(api, OLD).pods.serve(old, ServeModel(replicas=2))
    with pytest.raises(CallError, match="is still going away"):
        await place.pods.serve(serving(1), ServeModel(replicas=1))
    assert api.find(DEPLOYMENTS, "job-serve")["spec"]["replicas"] == 2


async def test_servers_run_under_no_service_account_that_is_not_allowed(api):
    place = Place(api, settings=replace(SETTINGS, service_accounts=frozenset({"good"})))
    evaluation = {"template": {"spec": {"serviceAccountName": "mighty"}}}
    with pytest.raises(CallError, match="mighty") as caught:
        await place.pods.serve(serving(1, evaluation=evaluation), ServeModel(replicas=1))
    assert caught.value.word == Reason.INVALID_POD_TEMPLATE
    assert made(api) == []
