"""Pods that have a node and do not begin: who is asked about, how often, and what is made of the answers."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from fedjob_operator.adapters.kube import holdups
from fedjob_operator.adapters.kube.api import EVENTS
from fedjob_operator.adapters.kube.cache import PodCache
from fedjob_operator.adapters.kube.holdups import HoldUps, told_by
from fedjob_operator.adapters.kube.view import held_up_since_node
from fedjob_operator.core.observed import PodRole, Waiting
from fedjob_protocol.reasons import Reason
from tests.support.builders import EPOCH
from tests.support.virtual_time import now, run
from tests.unit.controller.kube.fake_api import FakeApi, refused, unavailable
from tests.unit.controller.kube.pod_documents import JOB_UID, condition, pod, ready, terminated, waiting

CREATING = "ContainerCreating"
MISSING = 'MountVolume.SetUp failed for volume "s" : configmap "sites" not found'
NODE_AT = EPOCH.isoformat()


def creating(index=0, role=PodRole.CLIENT, *, sandbox="False", word=CREATING, **more):
    """A pod that was given its node when the test's clock began."""
    document = waiting(word, role=role, index=index, uid=f"uid-{role}-{index}", **more)
    document["status"]["conditions"] = [
        condition("PodScheduled", "True", lastTransitionTime=NODE_AT),
        condition("PodReadyToStartContainers", sandbox),
    ]
    return document


def event(message=MISSING, *, about="uid-client-0", reason="FailedMount", last="2026-01-01T00:01:00Z", **more):
    involved = {"kind": "Pod", "uid": about}
    return {
        "metadata": {"name": f"{about}.{reason}.{abs(hash(message))}", "namespace": "lab"},
        "involvedObject": involved,
        "type": "Warning",
        "reason": reason,
        "message": message,
        "lastTimestamp": last,
        **more,
    }


@pytest.mark.parametrize("word", [CREATING, "PodInitializing"])
def test_a_pod_with_a_node_and_no_container_is_held_up_since_it_has_the_node(word):
    assert held_up_since_node(creating(word=word)) == EPOCH


@pytest.mark.parametrize(
    "document",
    [
        pod(),
        ready(),
        terminated(1),
        waiting("ImagePullBackOff"),
        creating(sandbox="True"),  # its volumes are mounted; it may pull a large image
        creating() | {"metadata": creating()["metadata"] | {"deletionTimestamp": "2026-01-01T00:00:09Z"}},
        {"status": {"phase": "Pending", "conditions": "nonsense"}},
    ],
    ids=["new", "ready", "ended", "says-why", "pulls", "is-stopping", "broken"],
)
def test_other_pods_are_not(document):
    assert held_up_since_node(document) is None


@pytest.mark.parametrize("reason", ["FailedMount", "FailedAttachVolume", "FailedMapVolume"])
def test_the_words_of_whoever_mounts_volumes_are_passed_on(reason):
    assert told_by([event(reason=reason)]) == Waiting(reason=Reason.VOLUME_MOUNT_FAILED, message=f"{reason}: {MISSING}")


def test_a_pod_without_a_sandbox_says_why_too():
    found = told_by([event('no runtime for "kata"', reason="FailedCreatePodSandBox")])
    assert found == Waiting(reason=Reason.CONTAINER_CANNOT_RUN, message='FailedCreatePodSandBox: no runtime for "kata"')


def test_the_newest_warning_counts_and_one_that_only_sums_up_does_not():
    older = event("secret first is missing", last="2026-01-01T00:01:00Z")
    newer = event("secret second is missing", last=None, series={"lastObservedTime": "2026-01-01T00:02:00.000000Z"})
    summary = event("Unable to attach or mount volumes: unmounted volumes=[s]", last="2026-01-01T00:03:00Z")
    assert "second" in told_by([newer, older, summary]).message
    assert "unmounted volumes=[s]" in told_by([summary]).message


@pytest.mark.parametrize(
    "events",
    [[], [event(reason="BackOff")], [{"reason": 7, "message": {}}], [{}]],
    ids=["none", "another", "broken", "empty"],
)
def test_events_that_say_nothing_about_it_are_no_answer(events):
    assert told_by(events) is None


def test_words_of_a_peer_are_bounded_and_harmless():
    found = told_by([event("\x1b[31mred" + "x" * 100_000)])
    assert len(found.message) <= 1024
    assert "\x1b" not in found.message


class World:
    def __init__(self):
        self.api = FakeApi()
        self.cache = PodCache(self.changed)
        self.hold_ups = HoldUps(self.api, self.cache, namespace="lab", job_uid=JOB_UID, clock=now)
        self.woken = 0

    def changed(self, _uid):
        self.woken += 1
        self.hold_ups.stir()

    def why(self, index=0, role=PodRole.CLIENT):
        return next(view.waiting for view in self.cache.pods(JOB_UID) if (view.role, view.index) == (role, index))

    def asked(self):
        """Unique ids of the pods that Events were listed of, in order."""
        return [what.split(",")[0].split("=")[1] for verb, kind, what in self.api.calls if (verb, kind) == LIST]


LIST = ("list", "events")
MOUNT_FAILED = Waiting(reason=Reason.VOLUME_MOUNT_FAILED, message=f"FailedMount: {MISSING}")


@asynccontextmanager
async def watching(*documents):
    world = World()
    for document in documents:
        world.cache.put(document)
    task = asyncio.get_running_loop().create_task(world.hold_ups.run())
    try:
        yield world
    finally:
        task.cancel()
        await asyncio.wait({task})


def test_a_pod_that_takes_its_time_is_asked_about_only_after_a_while():
    async def scenario():
        async with watching(creating()) as world:
            world.api.put(EVENTS, event())
            await asyncio.sleep(holdups.PATIENCE.total_seconds() - 0.1)
            assert (world.asked(), world.why()) == ([], None)
            await asyncio.sleep(0.2)
            assert (world.asked(), world.why()) == (["uid-client-0"], MOUNT_FAILED)

    run(scenario())


def test_a_job_whose_pods_begin_asks_nothing():
    async def scenario():
        async with watching() as world:
            for second in range(30):
                await asyncio.sleep(1)
                world.cache.put(creating(second))
                world.cache.put(ready(index=second, uid=f"uid-client-{second}"))
            assert world.asked() == []

    run(scenario())


def test_only_events_about_the_very_pod_and_only_warnings_count():
    async def scenario():
        async with watching(creating()) as world:
            world.api.put(EVENTS, event(about="uid-of-another"))
            world.api.put(EVENTS, event("mounted at last", type="Normal"))
            await asyncio.sleep(11)
            assert world.why() is None

    run(scenario())


def test_events_are_listed_at_most_every_quarter_of_a_minute_however_many_pods_are_held_up():
    async def scenario():
        async with watching(*(creating(index) for index in range(50))) as world:
            await asyncio.sleep(10 + 10 * holdups.PAUSE_SECONDS - 1)
            assert len(world.asked()) == 10 * holdups.PODS_PER_LOOK
            assert len(set(world.asked())) == 10 * holdups.PODS_PER_LOOK, "each has its turn"

    run(scenario())


def test_the_aggregator_is_asked_about_first():
    async def scenario():
        aggregator = creating(0, PodRole.AGGREGATOR)
        async with watching(*(creating(index) for index in range(5)), aggregator) as world:
            await asyncio.sleep(11)
            assert world.asked() == ["uid-aggregator-0", "uid-client-0", "uid-client-1"]

    run(scenario())


def test_the_reason_goes_with_what_held_it_up():
    async def scenario():
        async with watching(creating()) as world:
            world.api.put(EVENTS, event())
            await asyncio.sleep(11)
            world.cache.put(creating(sandbox="True"))
            assert world.why() is None
            world.cache.put(ready(index=0, uid="uid-client-0"))
            assert world.why() is None

    run(scenario())


def test_the_reason_stays_when_the_pod_is_heard_of_again_and_goes_when_nobody_says_so_any_more():
    async def scenario():
        async with watching(creating()) as world:
            held = world.api.put(EVENTS, event())
            await asyncio.sleep(11)
            again = creating()
            again["metadata"]["resourceVersion"] = "900"
            world.cache.put(again)
            assert world.why() == MOUNT_FAILED
            world.api.remove(EVENTS, held["metadata"]["name"])
            await asyncio.sleep(holdups.PAUSE_SECONDS)
            assert world.why() is None

    run(scenario())


def test_what_is_found_out_wakes_the_job_once():
    async def scenario():
        async with watching(creating()) as world:
            world.api.put(EVENTS, event())
            await asyncio.sleep(9)
            before = world.woken
            await asyncio.sleep(60)
            assert world.woken == before + 1

    run(scenario())


@pytest.mark.parametrize("error", [unavailable(), refused("events is forbidden")], ids=["unavailable", "refused"])
def test_events_that_cannot_be_listed_are_asked_for_again(error):
    async def scenario():
        async with watching(creating()) as world:
            world.api.put(EVENTS, event())
            world.api.fail("list", error)
            await asyncio.sleep(11)
            assert world.why() is None
            await asyncio.sleep(holdups.REFUSED_SECONDS)
            assert world.why() == MOUNT_FAILED

    run(scenario())


def test_an_operator_that_may_not_list_events_asks_rarely():
    async def scenario():
        async with watching(creating()) as world:
            world.api.fail("list", refused("events is forbidden"), times=100)
            await asyncio.sleep(3600)
            assert len(world.asked()) <= 3600 / holdups.REFUSED_SECONDS

    run(scenario())
