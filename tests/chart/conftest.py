"""What tests of the chart share: helm, rendered charts, and an API server that helm can install into."""

import json
import os
import shutil
from collections.abc import Iterator
from itertools import count

import pytest

from tests.chart.helm import Helm
from tests.support.cluster.apiserver import REQUIRE_VARIABLE, ApiServer, find_assets
from tests.support.repository import ROOT

_NUMBERS = count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder."""
    for item in items:
        if item.path.is_relative_to(ROOT / "tests/chart"):
            item.add_marker(pytest.mark.chart)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip all of them from one place, so that the summary has one line; or fail where helm has to be there."""
    if item.path.is_relative_to(ROOT / "tests/chart") and shutil.which("helm") is None:
        line = "no helm on PATH: the chart is not tested"
        if os.environ.get(REQUIRE_VARIABLE) == "1":
            pytest.fail(line, pytrace=False)
        pytest.skip(line)


@pytest.fixture(scope="session")
def helm() -> Helm:
    """Helm without a cluster."""
    return Helm()


@pytest.fixture(scope="module")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An API server of a test file's own that knows nothing of FederatedJobs."""
    assets = find_assets()
    with ApiServer.start(tmp_path_factory.mktemp("api-server"), assets) as server:
        yield server


@pytest.fixture
def installing(api_server: ApiServer) -> Iterator[Helm]:
    """Helm on that API server; releases and CRD are gone after the test."""
    helm = Helm(api_server.kubeconfig(api_server.folder / "helm.kubeconfig"))
    yield helm
    for release in json.loads(helm.run("list", "--all-namespaces", "--output", "json")):
        helm.uninstall(release["name"], release["namespace"])
    deleted = api_server.kubectl("delete", "crd", "federatedjobs.fedjob.dev", "--ignore-not-found")
    assert deleted.returncode == 0, deleted.stderr


@pytest.fixture
def namespace(api_server: ApiServer) -> str:
    """A namespace of the test's own."""
    name = f"test-{next(_NUMBERS)}"
    api_server.create_namespace(name)
    return name
