"""Clients in containers outside the cluster that register with a job's aggregator, and leave."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import yaml

from tests.e2e.jobs import JOB_SECONDS, MANY_ROUNDS, is_complete, job_selector
from tests.support.kubectl import RESOURCE, Kubectl, command, committed, condition, wait_until
from tests.support.repository import ROOT

EXAMPLE = ROOT / "examples" / "30-external.yaml"
NETWORK = "kind"
TOKEN = "an-agreed-word-of-some-length"
START = "CLIENT_URL=http://$(hostname -i | tr ' ' '\\n' | grep -v :):5000 exec fedjob-client"
"""A container learns its own address only once it runs; it may have one of the newer kind, too."""


@contextmanager
def outsider(image: str, server: str) -> Iterator[str]:
    """Run a client beside the cluster's nodes; give the name of its container."""
    name = f"outsider-{uuid.uuid4().hex[:8]}"
    words = ["--network", NETWORK, "--env", f"SERVER_URL={server}", "--env", f"FEDJOB_REGISTRATION_TOKEN={TOKEN}"]
    words += ["--read-only", "--tmpfs", "/tmp", "--tmpfs", "/home/fedjob"]
    command("docker", "run", "--detach", "--name", name, *words, "--entrypoint", "sh", image, "-c", START)
    try:
        yield name
    finally:
        command("docker", "rm", "--force", name)


def log(container: str) -> str:
    """What a container has printed."""
    return command("sh", "-c", f"docker logs {container} 2>&1")


@pytest.fixture
def server(kubectl: Kubectl) -> str:
    """Where the aggregator of the job "external" is reached from outside: a port of the nodes."""
    kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "door"},
            "spec": {
                "type": "NodePort",
                "selector": {"fedjob.dev/job": "external", "fedjob.dev/role": "aggregator"},
                "ports": [{"port": 9000}],
            },
        }
    )
    port = kubectl.get("service", "door")["spec"]["ports"][0]["nodePort"]
    (node, *_) = kubectl.list("nodes")
    (address,) = (item["address"] for item in node["status"]["addresses"] if item["type"] == "InternalIP")
    return f"http://{address}:{port}"


def test_two_clients_elsewhere_learn_with_two_pods_vanish_and_one_comes_back(kubectl, loaded_images, server):
    kubectl("create", "secret", "generic", "door", f"--from-literal=token={TOKEN}")
    document = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    document["spec"] |= {"rounds": MANY_ROUNDS, "training": {"epochs": 20, "batchSize": 16}}
    kubectl.apply(document)
    with outsider(loaded_images["client"], server) as first, outsider(loaded_images["client"], server):
        status = kubectl.wait_for_job("external", lambda status: committed(status) >= 2, "round 2", JOB_SECONDS)
        assert status["clients"]["ready"] == 4
        assert "201: registered" in log(first)
    lost = kubectl.wait_for_job(
        "external",
        lambda status: (status["clients"]["ready"], status["clients"].get("lost")) == (2, 2),
        "the loss of both outsiders",
        JOB_SECONDS,
    )
    assert lost["clients"]["lostIndices"] == [2, 3]
    gone = committed(lost)
    kubectl.wait_for_job("external", lambda status: committed(status) > gone + 1, "rounds of two", JOB_SECONDS)
    with outsider(loaded_images["client"], server) as again:
        kubectl.wait_for_job("external", lambda status: status["clients"]["ready"] == 3, "its return", 60)
        wait_until(lambda: "trained on" in log(again), "that it takes part again", JOB_SECONDS)
        back = committed(kubectl.status("external"))
        kubectl.patch(RESOURCE, "external", {"spec": {"rounds": back + 3}})
        kubectl.wait_for_job("external", is_complete, "Complete", JOB_SECONDS)
    assert condition(kubectl.status("external"), "Complete")["status"] == "True"
    wait_until(lambda: len(kubectl.names("pods", job_selector("external"))) == 1, "the release of the clients", 60)
