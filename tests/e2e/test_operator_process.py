"""The operator as a process: hung, and run outside the cluster."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests.e2e.installation import Installation
from tests.e2e.jobs import JOB_SECONDS, digits, is_complete
from tests.support.kubectl import command, committed, wait_until
from tests.support.repository import ROOT

RESTART_SECONDS = 120


def freeze_operator(installation: Installation, cluster: str) -> None:
    """Stop the operator's process from outside its container, as the kernel would under a debugger."""
    (name,) = installation.operator_pods()
    pod = installation.kubectl.get("pod", name)
    node = pod["spec"]["nodeName"]
    assert node.startswith(cluster)
    container = pod["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
    state = json.loads(command("docker", "exec", node, "crictl", "inspect", container))
    command("docker", "exec", node, "kill", "-STOP", str(state["info"]["pid"]))


def restarts(installation: Installation) -> int:
    pods = installation.kubectl.list("pods", "app.kubernetes.io/name=fedjob-operator")
    return sum(item["restartCount"] for pod in pods for item in pod["status"].get("containerStatuses", ()))


def test_an_operator_that_hangs_is_restarted_and_goes_on(kubectl, installation, cluster):
    kubectl.apply(digits("hung", rounds=200))
    kubectl.wait_for_job("hung", lambda status: committed(status) >= 2, "a second round", JOB_SECONDS)
    before = restarts(installation)
    freeze_operator(installation, cluster)
    wait_until(lambda: restarts(installation) > before, "the operator's restart", RESTART_SECONDS)
    reached = committed(kubectl.status("hung"))
    kubectl.wait_for_job("hung", lambda status: committed(status) > reached, "a further round", JOB_SECONDS)


@pytest.fixture
def no_installed_operator(installation: Installation) -> Iterator[None]:
    """Have nobody drive jobs."""
    deployment = "deployment/fedjob-operator"
    installation.kubectl("scale", deployment, "--replicas=0")
    wait_until(lambda: not installation.operator_pods(), "the end of the operator", 60)
    yield
    installation.kubectl("scale", deployment, "--replicas=1")
    installation.kubectl("rollout", "status", deployment, "--timeout=120s", seconds=150)


@pytest.mark.usefixtures("no_installed_operator")
def test_an_operator_outside_the_cluster_drives_jobs_through_the_api_server(kubectl, loaded_images, tmp_path):
    images = f"--client-image {loaded_images['client']} --aggregator-image {loaded_images['aggregator']}"
    arguments = f"{images} --health-port 0 --metrics-port 0 --namespaces {kubectl.namespace}"
    with (tmp_path / "log").open("w") as log:
        running = subprocess.Popen(
            ["make", "run", f"ARGS={arguments}"],
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
        )
        try:
            kubectl.apply(digits("outside", rounds=3))
            kubectl.wait_for_job("outside", is_complete, "Complete", JOB_SECONDS)
        finally:
            os.killpg(running.pid, signal.SIGTERM)
            running.wait(timeout=30)
            print((tmp_path / "log").read_text()[-4000:])
