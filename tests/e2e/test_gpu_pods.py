"""What a group's pods say beyond `gpus`: the real scheduler, kubelet and container runtime do it."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.claims import TEMPLATE, ClaimedGpus, claim_template, prepared_for
from tests.e2e.gpus import GPU, NODE_LABEL, Gpus
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
    running,
)
from tests.e2e.scheduler import second_scheduler
from tests.support.kubectl import Document, Kubectl, committed, condition, wait_until

TAINT = "fedjob.dev/reserved"
TOLERATION = {"key": TAINT, "operator": "Exists", "effect": "NoSchedule"}


@pytest.fixture
def gpus(plugin: Gpus) -> Gpus:
    """Four GPUs."""
    plugin.start()
    plugin.set(4)
    return plugin


@contextmanager
def reserved_node(kubectl: Kubectl) -> Iterator[None]:
    """The node with the GPUs takes only pods that tolerate its taint."""
    (node,) = kubectl.names("nodes", f"{NODE_LABEL}=true")
    kubectl("taint", "node", node, f"{TAINT}=yes:NoSchedule", "--overwrite")
    try:
        yield
    finally:
        kubectl("taint", "node", node, f"{TAINT}:NoSchedule-")


@contextmanager
def classes(kubectl: Kubectl) -> Iterator[None]:
    """A runtime class with an overhead of its own, and a priority."""
    runtime = {"handler": "runc", "overhead": {"podFixed": {"memory": "7Mi"}}}
    made = [
        {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "fedjob-e2e"}, **runtime},
        {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": "fedjob-e2e"},
            "value": 1234,
        },
    ]
    try:
        for document in made:
            kubectl.apply(document)
        yield
    finally:
        for document in made:
            kubectl("delete", document["kind"], "fedjob-e2e", "--ignore-not-found")


def test_node_runtime_priority_and_scheduler_of_the_template_are_what_the_pods_get(kubectl, gpus):
    with reserved_node(kubectl), classes(kubectl), second_scheduler() as scheduler:
        spec = {
            "nodeSelector": {NODE_LABEL: "true"},
            "tolerations": [TOLERATION],
            "runtimeClassName": "fedjob-e2e",
            "priorityClassName": "fedjob-e2e",
            "schedulerName": scheduler,
        }
        others = {"template": {"spec": {"tolerations": [TOLERATION]}}}
        kubectl.apply(digits("without", clients=1, rounds=1, aggregator=others, group={"gpus": 1}))
        storage = {"storage": {"size": "64Mi", "retentionPolicy": {"whenDeleted": "Delete"}}}
        group = {"gpus": 1, "template": {"spec": spec}}
        placed = {"group": group, "aggregator": {**storage, **others}, "evaluation": others}
        kubectl.apply(digits("job", clients=2, rounds=MANY_ROUNDS, training=LONG_TRAINING, **placed))
        kubectl.wait_for_job("job", lambda status: committed(status) >= 1, "round 1", JOB_SECONDS)
        pods = kubectl.list("pods", client_selector("job"))
        assert {pod["spec"]["priority"] for pod in pods} == {1234}
        assert [pod["spec"]["overhead"] for pod in pods] == [{"memory": "7Mi"}] * 2
        events = kubectl.list("events")
        scheduled = [item for item in events if item["reason"] == "Scheduled"]
        by = {item["involvedObject"]["name"]: item.get("reportingComponent") for item in scheduled}
        assert {by[pod["metadata"]["name"]] for pod in pods} == {scheduler}
        (aggregator,) = kubectl.names("pods", f"{job_selector('job')},fedjob.dev/role=aggregator")
        assert by[aggregator] == "default-scheduler"
        told = kubectl.wait_for_job(
            "without", lambda status: "untolerated taint" in str(status), "why it waits", REASON_SECONDS
        )
        assert committed(told) < 0


@pytest.fixture
def claimed(gpus: Gpus) -> Iterator[ClaimedGpus]:
    """A driver, and nothing to claim."""
    driver = ClaimedGpus(gpus.kubectl)
    driver.start()
    yield driver
    driver.stop()


def test_clients_claim_devices_wait_for_them_with_the_schedulers_words_and_give_them_back(kubectl, claimed):
    kubectl.apply(claim_template())
    claimed.set(1, generation=1)
    spec = {
        "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": TEMPLATE}],
        "containers": [{"name": "client", "resources": {"claims": [{"name": "gpu"}]}}],
    }
    group = {"template": {"spec": spec}}
    kubectl.apply(digits("job", clients=2, rounds=MANY_ROUNDS, group=group, training=LONG_TRAINING))
    kubectl.wait_for_job(
        "job",
        lambda status: "cannot allocate all claims" in condition(status, "ClientsReady").get("message", ""),
        "the scheduler's words",
        REASON_SECONDS,
    )
    wait_until(lambda: bool(running(kubectl, client_selector("job"))), "the client that got a device", JOB_SECONDS)
    (first,) = running(kubectl, client_selector("job"))
    assert prepared_for(kubectl, first) == ["claimed-0"]
    variables = kubectl.get("pod", first)["spec"]["containers"][0]["env"]
    assert "NVIDIA_VISIBLE_DEVICES" not in {item["name"] for item in variables}, "left to whoever prepares the device"
    claimed.set(2, generation=2)
    kubectl.wait_for_job("job", lambda status: committed(status) >= 1, "round 1", JOB_SECONDS)
    clients = running(kubectl, client_selector("job"))
    assert sorted(name for pod in clients for name in prepared_for(kubectl, pod)) == ["claimed-0", "claimed-1"]
    kubectl("delete", "federatedjobs.fedjob.dev", "job")
    wait_until(lambda: not kubectl.names("resourceclaims"), "that the devices are given back", JOB_SECONDS)


PERSONAL = {
    "rounds": 3,
    "seed": 7,
    "clients": 2,
    "model": {"name": "mlp", "parameters": {"hiddenSizes": [16]}, "exclude": ["?2"]},
    "roundPolicy": {"clientsPerRound": 1},
    "evaluation": {"modes": []},
    "objective": None,
}
"""Each client keeps its output layer to itself; with this seed a client takes part, pauses, and takes part again."""


def test_what_a_client_keeps_survives_on_its_volume_from_turn_to_turn(kubectl, gpus):
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "16Mi"}}}
    volume = {"volumeClaimTemplates": [{"metadata": {"name": "state"}, "spec": claim}]}
    kept = {
        "containers": [{"name": "client", "volumeMounts": [{"name": "state", "mountPath": "/state"}],
                        "env": [{"name": "FEDJOB_STATE_DIR", "value": "/state"}]}]
    }  # fmt: skip
    kubectl.apply(digits("always", **PERSONAL))
    # All GPUs: the pod of the one that pauses is gone before the other's starts.
    group = {"gpus": 4, **volume, "template": {"spec": kept}}
    kubectl.apply(digits("turns", clientPods="PerRound", group=group, **PERSONAL))
    learned = [kubectl.wait_for_job(name, is_complete, "Complete", JOB_SECONDS) for name in ("turns", "always")]
    assert learned[0]["model"]["digest"] == learned[1]["model"]["digest"]
    claims = [name for name in kubectl.names("pvc", job_selector("turns")) if "-state-" in name]
    assert len(claims) == 2, "more clients than one round takes"


def test_pods_of_the_next_round_are_started_ahead_where_there_is_room(kubectl, gpus):
    turns = {"clientPods": "PerRound", "roundPolicy": {"clientsPerRound": 2}}
    kubectl.apply(digits("job", clients=4, rounds=MANY_ROUNDS, group={"gpus": 1}, training=LONG_TRAINING, **turns))
    kubectl.wait_for_job("job", lambda status: committed(status) >= 1, "round 1", JOB_SECONDS)
    seen: list[Document] = []

    def ahead() -> bool:
        """Whether, during one round, there is a pod of a client that the round did not select."""
        before = kubectl.status("job").get("currentRound")
        pods = [pod for pod in kubectl.list("pods", client_selector("job")) if not is_ending(pod)]
        after = kubectl.status("job").get("currentRound")
        seen.append({"round": after, "pods": [pod["metadata"]["name"] for pod in pods]})
        if not before or not after or before["number"] != after["number"]:
            return False
        there = {int(pod["metadata"]["labels"]["fedjob.dev/index"]) for pod in pods}
        return bool(there - set(after["selected"]))

    wait_until(ahead, lambda: f"a pod of the next round; last seen: {seen[-3:]}", JOB_SECONDS)
    (resources,) = {
        pod["spec"]["containers"][0]["resources"]["limits"][GPU] for pod in kubectl.list("pods", client_selector("job"))
    }
    assert resources == "1"
