"""GPUs on a cluster: the real scheduler and the kubelet's real device manager, with devices of a fake plugin."""

from collections.abc import Iterator

import pytest

from tests.e2e.gpus import GPU, NAMESPACE, Gpus, all_names, build_and_load, devices_of
from tests.e2e.jobs import JOB_SECONDS, REASON_SECONDS, client_selector, digits, is_complete, job_selector
from tests.support.kubectl import Kubectl, committed, condition, wait_until

LONG = {"epochs": 60, "batchSize": 16, "learningRate": 0.05}
"""A training of about a second."""


@pytest.fixture(scope="module")
def plugin(cluster: str) -> Iterator[Gpus]:
    """Two GPUs."""
    build_and_load(cluster)
    gpus = Gpus(Kubectl(NAMESPACE))
    gpus.start(2)
    yield gpus
    gpus.stop()
    gpus.kubectl("delete", "namespace", NAMESPACE)


@pytest.fixture
def gpus(plugin: Gpus) -> Iterator[Gpus]:
    """Two GPUs, whatever the test before made of them."""
    plugin.start(2)
    yield plugin
    plugin.start(2)
    plugin.set(2)


def running(kubectl: Kubectl, selector: str) -> list[str]:
    """Names of the pods whose container runs."""
    pods = kubectl.list("pods", selector)
    return sorted(pod["metadata"]["name"] for pod in pods if pod["status"]["phase"] == "Running")


def test_clients_get_gpus_of_their_own_and_nobody_else_sees_one(kubectl, gpus):
    kubectl.apply(digits("job", clients=2, rounds=30, group={"gpus": 1}, training=LONG))
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
    kubectl.apply(digits("job", clients=3, rounds=2, group={"gpus": 1}, minClients=3))

    def waits(status: dict) -> bool:
        return status.get("gpus") == {"requested": 3, "held": 2, "waiting": 1} and (
            condition(status, "ClientsReady").get("reason") == "GpuUnavailable"
        )

    status = kubectl.wait_for_job("job", waits, "GpuUnavailable", REASON_SECONDS)
    assert f"Insufficient {GPU}" in condition(status, "ClientsReady")["message"]
    gpus.set(3)
    kubectl.wait_for_job("job", is_complete, "Complete", JOB_SECONDS)


def test_a_gpu_that_becomes_unhealthy_is_not_given_to_the_next_pod(kubectl, gpus):
    kubectl.apply(digits("job", clients=2, rounds=60, group={"gpus": 1}, training=LONG, minClients=1))
    kubectl.wait_for_job("job", lambda status: committed(status) >= 1, "round 1", JOB_SECONDS)
    first, second = running(kubectl, client_selector("job"))
    lost = devices_of(kubectl, first)
    gpus.set(2, unhealthy=[lost])
    kubectl("delete", "pod", first, "--wait=false")

    def waits(status: dict) -> bool:
        return status.get("gpus") == {"requested": 2, "held": 1, "waiting": 1}

    kubectl.wait_for_job("job", waits, "one waiting client", JOB_SECONDS)
    assert running(kubectl, client_selector("job")) == [second]
    gpus.set(2)
    before = committed(kubectl.status("job"))
    kubectl.wait_for_job("job", lambda status: committed(status) > before + 1, "the next rounds", JOB_SECONDS)


def test_a_plugin_that_goes_away_stops_nothing_that_runs(kubectl, gpus):
    kubectl.apply(digits("job", clients=2, rounds=6, group={"gpus": 1}, training=LONG))
    kubectl.wait_for_job("job", lambda status: committed(status) >= 1, "round 1", JOB_SECONDS)
    gpus.stop()
    kubectl.wait_for_job("job", is_complete, "Complete", JOB_SECONDS)


def test_a_job_that_starts_without_the_plugin_waits_for_it(kubectl, gpus):
    gpus.stop()
    kubectl.apply(digits("job", clients=2, rounds=2, group={"gpus": 1}))
    status = kubectl.wait_for_job(
        "job",
        lambda status: condition(status, "ClientsReady").get("reason") == "GpuUnavailable",
        "GpuUnavailable",
        REASON_SECONDS,
    )
    assert f"Insufficient {GPU}" in condition(status, "ClientsReady")["message"]
    gpus.start(2)
    kubectl.wait_for_job("job", is_complete, "Complete", JOB_SECONDS)


def test_a_finished_job_gives_its_gpus_to_the_next(kubectl, gpus):
    for name in ("first", "second"):
        kubectl.apply(digits(name, clients=2, rounds=2, group={"gpus": 1}))
    for name in ("first", "second"):
        kubectl.wait_for_job(name, is_complete, "Complete", JOB_SECONDS)
    wait_until(lambda: not running(kubectl, "fedjob.dev/role=client"), "the return of the GPUs", 30)
