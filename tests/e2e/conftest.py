"""A kind cluster with our images and the installed chart, and a namespace for each test."""

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.gpus import NAMESPACE, Gpus, load_plugin
from tests.e2e.installation import OPERATOR_NAMESPACE, OPERATOR_SELECTOR, Installation, images
from tests.support.kubectl import RESOURCE, CommandError, Kubectl, command
from tests.support.repository import ROOT

HERE = Path(__file__).resolve().parent
TOOLS = ("docker", "kind", "kubectl", "helm")
OWN_CLUSTER = "fedjob-e2e"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs a cluster."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """Name of a kind cluster: the one in KIND_CLUSTER_NAME, or one that is made for the session."""
    with kind_cluster(OWN_CLUSTER) as name:
        yield name


@contextmanager
def kind_cluster(name: str, *, workers: int = 0) -> Iterator[str]:
    """Have a kind cluster: the one in KIND_CLUSTER_NAME, or one of this name and so many further nodes."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        line = f"end-to-end tests need {', '.join(missing)} on PATH"
        if os.environ.get("FEDJOB_REQUIRE_CLUSTER"):
            pytest.fail(line)
        pytest.skip(line)
    name = os.environ.get("KIND_CLUSTER_NAME", name)
    if name in command("kind", "get", "clusters").split():
        yield name
        return
    node_image = os.environ.get("KIND_NODE_IMAGE")
    roles = ["control-plane", *["worker"] * workers]
    kind = {"kind": "Cluster", "apiVersion": "kind.x-k8s.io/v1alpha4", "nodes": [{"role": role} for role in roles]}
    create = ["kind", "create", "cluster", "--name", name, "--config", "-"]
    command(*create, *(["--image", node_image] if node_image else []), text=json.dumps(kind), seconds=600)
    yield name
    command("kind", "delete", "cluster", "--name", name)


@pytest.fixture(scope="session")
def loaded_images(cluster: str) -> dict[str, str]:
    """Our images, built from this checkout and loaded into the cluster, by program."""
    tag = os.environ.get("FEDJOB_E2E_TAG")
    if tag is None:
        tag = "e2e"
        command("make", "images", f"TAG={tag}", cwd=ROOT, seconds=1800)
        command("kind", "load", "docker-image", "--name", cluster, *images(tag).values(), seconds=600)
    return images(tag)


@pytest.fixture(scope="session")
def installation(cluster: str, loaded_images: dict[str, str]) -> Iterator[Installation]:
    """The chart, installed in a namespace of its own for the whole session."""
    installed = Installation(images=loaded_images, namespace=OPERATOR_NAMESPACE)
    installed.install()
    yield installed
    installed.uninstall()


@pytest.fixture
def kubectl(installation: Installation, request: pytest.FixtureRequest) -> Iterator[Kubectl]:
    """Kubectl in a fresh namespace under the restricted profile; what was seen is printed if the test fails."""
    tool = Kubectl(f"e2e-{uuid.uuid4().hex[:8]}")
    make_namespace(tool)
    yield tool
    report = getattr(request.node, "report_of_call", None)
    if report is not None and report.failed:
        diagnose(tool, installation.namespace)
    tool("delete", "namespace", tool.namespace, "--wait=false")


@pytest.fixture(scope="session")
def plugin(cluster: str) -> Iterator[Gpus]:
    """A device plugin, not running unless a test started it; from then on to the end of the session."""
    load_plugin(cluster)
    gpus = Gpus(Kubectl(NAMESPACE))
    yield gpus
    gpus.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found")


def make_namespace(tool: Kubectl) -> None:
    """Make a namespace in which only pods of the restricted profile may run."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    tool.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": tool.namespace, "labels": labels}})


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Let fixtures know whether their test failed."""
    outcome: Any = yield
    report = outcome.get_result()
    if report.when == "call":
        item.report_of_call = report  # type: ignore[attr-defined] - pytest's own way to hand it to fixtures


def diagnose(tool: Kubectl, operator_namespace: str) -> None:
    """Print what a person would look at."""
    looks = [
        (tool, ("get", RESOURCE, "-o", "yaml")),
        (tool, ("get", "pods,pvc,services", "-o", "wide")),
        (tool, ("get", "events", "--sort-by=.lastTimestamp")),
        (tool, ("logs", "--prefix", "--tail=40", "--all-containers", "-l", "app.kubernetes.io/name=fedjob")),
        (tool.within(operator_namespace), ("get", "pods", "-o", "wide")),
        (tool.within(operator_namespace), ("logs", "--tail=200", "-l", OPERATOR_SELECTOR)),
    ]
    for kubectl_there, arguments in looks:
        print(f"--- kubectl -n {kubectl_there.namespace} {' '.join(arguments)}")
        try:
            print(kubectl_there(*arguments))
        except (CommandError, subprocess.TimeoutExpired) as error:
            print(error)
