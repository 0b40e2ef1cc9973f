"""GPUs on a cluster: the real scheduler and the kubelet's real device manager, with devices of a fake plugin."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.conftest import make_namespace
from tests.e2e.gpus import GPU, Gpus, all_names, devices_of
from tests.e2e.installation import Installation
from tests.e2e.jobs import (
    JOB_SECONDS,
    LONG_TRAINING,
    MANY_ROUNDS,
    REASON_SECONDS,
    client_selector,
    digits,
    is_complete,
    is_ending,
    job_selector,
    mend,
    running,
    uids_of,
)
from tests.support.kubectl import RESOURCE, Kubectl, committed, condition, wait_until


@pytest.fixture
def gpus(plugin: Gpus) -> Gpus:
    """Two GPUs, whatever the test before made of them."""
    plugin.start()
    plugin.set(2)
    return plugin


def test_clients_get_gpus_of_their_own_and_nobody_else_sees_one(kubectl, gpus):
    kubectl.apply(digits("job", clients=2, rounds=MANY_ROUNDS, group={"gpus": 1}, training=LONG_TRAINING))
    status = kubectl.wait_for_job("job", lambda status: committed(status) >= 1, "round 1", JOB_SECONDS)
    assert status["gpus"] == {"requested": 2, "held": 2, "waiting": 0}
    clients = running(kubectl, client_selector("job"))
    assert {devices_of(kubectl, pod) for pod in clients} == all_names(2)
    for pod in clients:
        resources = kubectl.get("pod", pod)["spec"]["containers"][0]["resources"]
        assert (resources["limits"][GPU], resources["requests"][GPU]) == ("1", "1")
    (aggregator,) = running(kubectl, f"{job_selector('job')},fedjob.dev/role=aggregator")
    assert devices_of(kubectl, aggregator) == "void"
    shown = kubectl("get", "federatedjobs.fedjob.dev", "job", "-o", "wide")
    assert "2/2" in shown.splitlines()[1], shown


def test_a_job_that_waits_for_gpus_says_so_and_starts_when_they_are_free(kubectl, gpus):
    kubectl.apply(digits("first", clients=1, rounds=MANY_ROUNDS, group={"gpus": 1}))
    wait_until(lambda: bool(running(kubectl, client_selector("first"))), "a job that holds a GPU", JOB_SECONDS)
    kubectl.apply(digits("job", clients=2, rounds=2, group={"gpus": 1}, minClients=2))

    def waits(status: dict) -> bool:
        return status.get("gpus") == {"requested": 2, "held": 1, "waiting": 1} and (
            condition(status, "ClientsReady").get("reason") == "GpuUnavailable"
        )

    status = kubectl.wait_for_job("job", waits, "GpuUnavailable", REASON_SECONDS)
    message = condition(status, "ClientsReady")["message"]
    assert f"Insufficient {GPU}" in message
    assert "1 GPU is missing" in message
    kubectl("delete", RESOURCE, "first", "--wait=false")
    kubectl.wait_for_job("job", is_complete, "Complete", JOB_SECONDS)


def test_a_gpu_that_becomes_unhealthy_is_not_given_to_the_next_pod_and_rounds_go_on_without_it(kubectl, gpus):
    quorum = {"minClients": 1, "joinWaitSeconds": 1, "roundPolicy": {"minReports": 1, "deadlineSeconds": 3}}
    kubectl.apply(digits("job", clients=2, rounds=MANY_ROUNDS, group={"gpus": 1}, training=LONG_TRAINING, **quorum))
    kubectl.wait_for_job("job", lambda status: committed(status) >= 1, "round 1", JOB_SECONDS)
    first, second = running(kubectl, client_selector("job"))
    lost = devices_of(kubectl, first)
    gpus.set(2, unhealthy=[lost])
    kubectl("delete", "pod", first, "--wait=false")

    def waits(status: dict) -> bool:
        return status.get("gpus") == {"requested": 2, "held": 1, "waiting": 1}

    before = committed(kubectl.wait_for_job("job", waits, "one waiting client", JOB_SECONDS))
    kubectl.wait_for_job(
        "job", lambda status: waits(status) and committed(status) > before + 1, "rounds without it", JOB_SECONDS
    )
    assert running(kubectl, client_selector("job")) == [second]
    gpus.set(2)
    kubectl.wait_for_job("job", lambda status: status["gpus"]["held"] == 2, "both clients", JOB_SECONDS)


def test_a_plugin_that_goes_away_stops_nothing_that_runs(kubectl, gpus):
    kubectl.apply(digits("job", clients=2, rounds=MANY_ROUNDS, group={"gpus": 1}, training=LONG_TRAINING))
    kubectl.wait_for_job("job", lambda status: committed(status) >= 1, "round 1", JOB_SECONDS)
    uids = uids_of(kubectl, client_selector("job"))
    gpus.stop()
    before = committed(kubectl.status("job"))
    kubectl.wait_for_job("job", lambda status: committed(status) > before + 1, "further rounds", JOB_SECONDS)
    assert uids_of(kubectl, client_selector("job")) == uids


def test_a_job_that_starts_without_the_plugin_waits_for_it(kubectl, plugin):
    plugin.stop()
    kubectl.apply(digits("job", clients=2, rounds=2, group={"gpus": 1}))
    status = kubectl.wait_for_job(
        "job",
        lambda status: condition(status, "ClientsReady").get("reason") == "GpuUnavailable",
        "GpuUnavailable",
        REASON_SECONDS,
    )
    assert f"Insufficient {GPU}" in condition(status, "ClientsReady")["message"]
    plugin.start()
    plugin.set(2)
    kubectl.wait_for_job("job", is_complete, "Complete", JOB_SECONDS)


def test_more_gpus_than_a_node_has_are_named_and_mended(kubectl, gpus):
    kubectl.apply(digits("greedy", rounds=2, clients=2, group={"gpus": 3}))

    def waits(status: dict) -> bool:
        return status.get("reason") == "GpuUnavailable" and status.get("gpus", {}).get("waiting") == 6

    status = kubectl.wait_for_job("greedy", waits, "GpuUnavailable", REASON_SECONDS)
    assert f"Insufficient {GPU}" in status["message"]
    assert status["gpus"] == {"requested": 6, "held": 0, "waiting": 6}
    mend(kubectl, "greedy", {"gpus": 1})
    kubectl.wait_for_job("greedy", is_complete, "Complete", JOB_SECONDS)
    wait_until(lambda: not running(kubectl, client_selector("greedy")), "the return of the GPUs", 30)


@contextmanager
def watched(kubectl: Kubectl, name: str) -> Iterator[list[tuple[int, int]]]:
    """How many client pods a job asks for, and how many GPUs its status says they hold, again and again."""
    seen: list[tuple[int, int]] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.2):
            pods = [pod for pod in kubectl.list("pods", client_selector(name)) if not is_ending(pod)]
            seen.append((len(pods), kubectl.status(name).get("gpus", {}).get("held", 0)))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield seen
    finally:
        over.set()
        looking.join()


TURNS = {
    "rounds": 2,
    "clients": 8,
    "roundPolicy": {"clientsPerRound": 4, "deadlineSeconds": 300},
    "evaluation": {"modes": []},
    "objective": None,
}
"""Four of eight clients in each round."""


@pytest.fixture(scope="module")
def learned(installation: Installation) -> Iterator[str]:
    """Digest of the model of a job whose clients take no turns and have no GPU."""
    kubectl = Kubectl("always")
    make_namespace(kubectl)
    kubectl.apply(digits("always", **TURNS))
    yield kubectl.wait_for_job("always", is_complete, "Complete", JOB_SECONDS)["model"]["digest"]
    kubectl("delete", "namespace", kubectl.namespace, "--wait=false")


def test_eight_clients_take_turns_on_two_gpus_and_learn_what_they_learn_without(kubectl, gpus, learned):
    kubectl.apply(digits("turns", clientPods="PerRound", group={"gpus": 1}, **TURNS))
    with watched(kubectl, "turns") as seen:
        turns = kubectl.wait_for_job("turns", is_complete, "Complete", JOB_SECONDS)
    assert max(held for _, held in seen) == 2
    assert max(pods for pods, _ in seen) <= 4
    assert turns["model"]["digest"] == learned


def test_a_job_suspended_between_two_waves_gives_all_back_and_repeats_the_round(kubectl, gpus, learned):
    kubectl.apply(digits("job", clientPods="PerRound", group={"gpus": 1}, **TURNS))

    def second_wave(status: dict) -> bool:
        """Two clients of round 2 are trained and two hold what they held."""
        current = status.get("currentRound") or {}
        return current.get("number") == 2 and current.get("reported", 0) >= 1

    kubectl.wait_for_job("job", second_wave, "the second wave of round 2", JOB_SECONDS)
    kubectl.patch(RESOURCE, "job", {"spec": {"suspend": True}})
    suspended = kubectl.wait_for_job("job", lambda status: status["phase"] == "Suspended", "Suspended", 60)
    assert not kubectl.names("pods", job_selector("job"))
    assert suspended.get("gpus", {}).get("held", 0) == 0
    kubectl.apply(digits("other", clients=2, rounds=1, group={"gpus": 1}))
    wait_until(lambda: len(running(kubectl, client_selector("other"))) == 2, "another job with both", JOB_SECONDS)
    kubectl("delete", RESOURCE, "other", "--wait=false")
    kubectl.patch(RESOURCE, "job", {"spec": {"suspend": False}})
    resumed = kubectl.wait_for_job("job", is_complete, "Complete", JOB_SECONDS)
    assert resumed["model"]["digest"] == learned


def test_a_pod_that_the_kubelet_refuses_for_its_gpu_is_replaced(kubectl, gpus):
    gpus.set(2, refuses=True)
    kubectl.apply(digits("job", clients=2, rounds=2, group={"gpus": 1}))

    def refused(status: dict) -> bool:
        told = condition(status, "ClientsReady")
        return told.get("reason") == "GpuUnavailable" and "can be given" in told["message"]

    kubectl.wait_for_job("job", refused, "the kubelet's refusal", REASON_SECONDS)
    gpus.set(2)
    status = kubectl.wait_for_job("job", is_complete, "Complete", JOB_SECONDS)
    assert committed(status) == 2


def test_a_client_that_was_given_a_gpu_it_cannot_use_says_so(kubectl, gpus):
    for name, device in (("auto", "Auto"), ("gpu", "GPU")):
        group = {"gpus": 1, "device": device}
        kubectl.apply(
            digits(name, clients=1, rounds=MANY_ROUNDS, group=group, model={"name": "softmax"}, training=LONG_TRAINING)
        )

    def on_the_cpu(status: dict) -> bool:
        told = condition(status, "ClientsReady")
        return (told.get("status"), told.get("reason")) == ("True", "GpuUnavailable") and committed(status) >= 1

    auto = kubectl.wait_for_job("auto", on_the_cpu, "a round on the CPU", JOB_SECONDS)
    assert "asked for a GPU and computing on the CPU: client 0" in condition(auto, "ClientsReady")["message"]

    def waits(status: dict) -> bool:
        told = condition(status, "ClientsReady")
        return (told.get("status"), told.get("reason")) == ("False", "GpuUnavailable") and "no NVIDIA driver" in told[
            "message"
        ]

    kubectl.wait_for_job("gpu", waits, "GpuUnavailable", REASON_SECONDS)
    assert committed(kubectl.status("gpu")) < 1


def test_a_resource_that_no_node_has_is_named(kubectl, gpus):
    template = {"spec": {"containers": [{"name": "client", "resources": {"limits": {"nvidia.com/mig-1g.5gb": 1}}}]}}
    kubectl.apply(digits("job", clients=1, rounds=1, group={"template": template}))
    status = kubectl.wait_for_job(
        "job",
        lambda status: condition(status, "ClientsReady").get("reason") == "GpuUnavailable",
        "GpuUnavailable",
        REASON_SECONDS,
    )
    assert "nvidia.com/mig-1g.5gb" in condition(status, "ClientsReady")["message"]
