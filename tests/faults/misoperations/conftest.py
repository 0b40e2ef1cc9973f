"""What tests of misoperations share: one API server, one fake node, one operator of all namespaces."""

from collections.abc import Iterator, Mapping

import pytest

from tests.faults.misoperations.plays import NAME, Outcome, Play
from tests.faults.misoperations.stage import Stage
from tests.support.cluster.apiserver import find_assets
from tests.support.cluster.jobs import a_job
from tests.support.repository import ROOT

FOLDER = ROOT / "tests/faults/misoperations"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder."""
    for item in items:
        if item.path.is_relative_to(FOLDER):
            item.add_marker(pytest.mark.api)
            item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The API server, the node and the operator, which nothing of all this may disturb."""
    with Stage.open(tmp_path_factory.mktemp("misoperations"), find_assets()) as stage:
        yield stage
        assert stage.complaints() == []


@pytest.fixture(scope="session")
def calm(stage: Stage) -> Mapping[str, Outcome]:
    """What undisturbed jobs come to, by kind."""
    steered, plain = Play(stage), Play(stage)
    steered.train()
    plain.submit(a_job(NAME))
    return {"steered": steered.finish(), "plain": plain.finish()}


@pytest.fixture(scope="session")
def bystander(stage: Stage, calm: Mapping[str, Outcome]) -> Iterator[Play]:
    """A job that trains beside all others, and ends undisturbed: with its first pods, in its first attempt."""
    job = Play(stage)
    job.train(evaluated=True, objective={"metric": "accuracy", "mode": "Max"})
    pods = {pod["metadata"]["uid"] for pod in stage.cluster.pods(job.home, NAME)}
    yield job
    assert {pod["metadata"]["uid"] for pod in stage.cluster.pods(job.home, NAME)} == pods
    assert job.status()["currentRound"]["attempt"] == 1
    assert job.finish() == calm["steered"]
    assert job.status()["term"] == 1
