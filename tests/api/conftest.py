"""What tests on a real API server share: one server per test process, and a namespace per test.

Each process of the test runner has a server of its own, ready in about 4 s: a CRD belongs to a whole cluster, so tests
side by side on one server would take it away from each other.
"""

from collections.abc import Generator, Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.support.cluster.apiserver import ApiServer, find_assets
from tests.support.cluster.cluster import Cluster
from tests.support.cluster.operator_process import OperatorProcess
from tests.support.cluster.operators import Operators, tracebacks
from tests.support.repository import ROOT

_NUMBERS = count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder."""
    for item in items:
        if item.path.is_relative_to(ROOT / "tests/api"):
            item.add_marker(pytest.mark.api)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip all of them from one place, so that the summary has one line."""
    if item.path.is_relative_to(ROOT / "tests/api"):
        find_assets()


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An API server that knows FederatedJobs, with the controllers that clean up."""
    assets = find_assets()
    with ApiServer.start(tmp_path_factory.mktemp("api-server"), assets) as server:
        server.apply(ROOT / "crds")
        server.start_controllers()
        yield server


@pytest.fixture
def namespace(api_server: ApiServer) -> str:
    """A namespace of the test's own."""
    name = f"test-{next(_NUMBERS)}"
    api_server.create_namespace(name)
    return name


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the end of the logs with a failure."""
    report = yield
    server = getattr(item, "funcargs", {}).get("api_server")
    if report.failed and isinstance(server, ApiServer):
        report.sections.append(("API server", server.logs()))
    for name in ("operators", "shared_operator"):
        operators = getattr(item, "funcargs", {}).get(name)
        if report.failed and isinstance(operators, Operators | OperatorProcess):
            report.sections.append((name, operators.report()))
    return report


@pytest.fixture(scope="session")
def cluster(api_server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The API server with a fake node, on which pods are processes."""
    cluster = Cluster(api_server, tmp_path_factory.mktemp("node"))
    yield cluster
    cluster.close()
    assert cluster.node_errors() == []


@pytest.fixture
def operators(cluster: Cluster, namespace: str, tmp_path: Path) -> Iterator[Operators]:
    """Starts operators; they, and what is in the test's namespace, are gone after the test."""
    operators = Operators(cluster, tmp_path)
    yield operators
    operators.close()
    cluster.clear(namespace)


@pytest.fixture(scope="module")
def shared_operator(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    """One operator of all namespaces for a file of tests that leave it alone; it has nothing to complain about."""
    cluster.clear_all()  # what tests of the CRD left would be driven, too
    operators = Operators(cluster, tmp_path_factory.mktemp("operators"))
    operator = operators.start()
    yield operator
    operators.close()
    assert tracebacks(operator) == [], operator.log()


@pytest.fixture
def home(cluster: Cluster, shared_operator: OperatorProcess, namespace: str) -> Iterator[str]:
    """A namespace that the file's operator looks after; what is in it goes after the test."""
    yield namespace
    cluster.clear(namespace)


@pytest.fixture
def operator(operators: Operators, namespace: str) -> OperatorProcess:
    """An operator of the test's namespace."""
    return operators.start(namespace)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder that trainers look into."""
    path = tmp_path / "steered"
    path.mkdir()
    return path
