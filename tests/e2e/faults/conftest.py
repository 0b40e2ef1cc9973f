"""A kind cluster with two workers, and the judge of runs on it."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.conftest import kind_cluster
from tests.e2e.faults.nodes import Nodes
from tests.e2e.faults.run import Run, running
from tests.e2e.installation import Installation
from tests.faults.allowances import Allowance
from tests.faults.evidence import Evidence
from tests.faults.oracles import ORACLES
from tests.faults.report import as_property, judged
from tests.support.kubectl import Kubectl

HERE = Path(__file__).resolve().parent
OWN_CLUSTER = "fedjob-faults"
WORKERS = 2
UNCOUNTED = "O5 few writes"
"""Nobody counts the writes of an operator in its pod; the fault runs on an API server do."""

Judge = Callable[[str, Run], None]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With ``--subset`` keep the first moment of the tests that are marked for it."""
    if config.getoption("--subset"):
        dropped = [item for item in items if item.path.parent == HERE and not _is_of_subset(item)]
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if item not in dropped]


def _is_of_subset(item: pytest.Item) -> bool:
    seed: int = getattr(item, "callspec").params["seed"]  # noqa: B009 - items of pytest do not declare it
    return seed == 0 and item.get_closest_marker("subset") is not None


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """Name of the cluster."""
    with kind_cluster(OWN_CLUSTER, workers=WORKERS) as name:
        workers = Nodes(Kubectl()).workers()
        if len(workers) < WORKERS:
            pytest.fail(f"fault runs on a cluster need {WORKERS} worker nodes; {name} has {len(workers)}")
        yield name


@pytest.fixture
def nodes(kubectl: Kubectl) -> Iterator[Nodes]:
    """The cluster's nodes; all of them are ready, and take pods, when the test is over."""
    nodes = Nodes(kubectl)
    yield nodes
    for node in nodes.workers():
        if not nodes.is_ready(node):
            nodes.start(node)
        nodes.uncordon(node)


@pytest.fixture(scope="session")
def undisturbed(installation: Installation) -> Evidence:
    """The job's run without a fault."""
    with running(installation.kubectl, "undisturbed") as run:
        run.until_complete()
        return run.evidence()


@pytest.fixture
def judge(undisturbed: Evidence, request: pytest.FixtureRequest) -> Judge:
    """Let a run come to its end, ask the oracles about it, and count it."""

    def ask(fault_class: str, run: Run) -> None:
        run.until_complete()
        evidence = run.evidence()
        told = [
            f"{name}: {line}"
            for name, oracle in ORACLES.items()
            if name != UNCOUNTED
            for line in oracle(undisturbed, evidence, Allowance())
        ]
        counted = replace(judged(fault_class, undisturbed, evidence, told, happened=True), where="e2e")
        request.node.user_properties.append(as_property(counted))
        assert not told, "\n".join(told)

    return ask
