"""The operator as a process on the developer's machine."""

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests.e2e.installation import Installation
from tests.e2e.jobs import JOB_SECONDS, digits, is_complete
from tests.support.kubectl import wait_until
from tests.support.repository import ROOT


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
