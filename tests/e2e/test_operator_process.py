"""The operator as a process: hung in its pod, and run on the developer's machine."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests.e2e.installation import OPERATOR_SELECTOR, Installation
from tests.e2e.jobs import JOB_SECONDS, digits, is_complete
from tests.support.kubectl import committed, wait_until
from tests.support.repository import ROOT

DEPLOYMENT = "deployment/fedjob-operator"
RESTART_SECONDS = 120.0
HANG_ONCE = """\
# Imported by Python at the start of any program: the first look at the job `stuck` never ends, in the first container
# of the pod only, whose writable folder its successor finds.
import pathlib
import time

from fedjob_operator import reconcile

decide = reconcile.decide
mark = pathlib.Path("/home/fedjob/hung")


def blocked(job, *arguments, **named):
    if job.metadata.name == "stuck" and not mark.exists():
        mark.touch()
        time.sleep(3600)
    return decide(job, *arguments, **named)


reconcile.decide = blocked
"""


def restarts(installation: Installation) -> int:
    pods = installation.kubectl.list("pods", OPERATOR_SELECTOR)
    return sum(item["restartCount"] for pod in pods for item in pod["status"].get("containerStatuses", ()))


@pytest.fixture
def operator_that_hangs_once(installation: Installation) -> Iterator[None]:
    """Lay a module over the installed operator that blocks its event loop."""
    there = installation.kubectl
    there.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "hang"},
                 "data": {"sitecustomize.py": HANG_ONCE}})  # fmt: skip
    container = {
        "name": "operator",
        "env": [{"name": "PYTHONPATH", "value": "/hang"}],
        "volumeMounts": [{"name": "hang", "mountPath": "/hang"}],
    }
    pod = {"containers": [container], "volumes": [{"name": "hang", "configMap": {"name": "hang"}}]}
    there("patch", DEPLOYMENT, "--type=strategic", "-p", json.dumps({"spec": {"template": {"spec": pod}}}))
    there("rollout", "status", DEPLOYMENT, "--timeout=120s", seconds=150)
    yield
    there("rollout", "undo", DEPLOYMENT)
    there("rollout", "status", DEPLOYMENT, "--timeout=120s", seconds=150)
    there("delete", "configmap", "hang")


@pytest.mark.usefixtures("operator_that_hangs_once")
def test_an_operator_whose_look_at_a_job_hangs_is_restarted_and_goes_on(kubectl, installation):
    kubectl.apply(digits("bystander", rounds=2000))
    kubectl.wait_for_job("bystander", lambda status: committed(status) >= 1, "a first round", JOB_SECONDS)
    before = restarts(installation)
    kubectl.apply(digits("stuck", rounds=2))
    wait_until(lambda: restarts(installation) > before, "the operator's restart", RESTART_SECONDS)
    kubectl.wait_for_job("stuck", is_complete, "Complete", JOB_SECONDS)
    reached = committed(kubectl.status("bystander"))
    kubectl.wait_for_job("bystander", lambda status: committed(status) > reached, "a further round", JOB_SECONDS)


@pytest.fixture
def no_installed_operator(installation: Installation) -> Iterator[None]:
    """Have nobody drive jobs."""
    installation.kubectl("scale", DEPLOYMENT, "--replicas=0")
    wait_until(lambda: not installation.operator_pods(), "the end of the operator", 60)
    yield
    installation.kubectl("scale", DEPLOYMENT, "--replicas=1")
    installation.kubectl("rollout", "status", DEPLOYMENT, "--timeout=120s", seconds=150)


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
