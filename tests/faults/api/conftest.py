"""The fault runs on a real API server: all that were asked for begin with the first test, several at once."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from tests.faults.api.campaign import UNDISTURBED, Campaign
from tests.faults.api.cases import Case
from tests.faults.api.stage import Stage
from tests.faults.oracles import violations
from tests.faults.report import as_property, judged
from tests.support.cluster.apiserver import find_assets
from tests.support.repository import ROOT

FOLDER = ROOT / "tests/faults/api"
SECONDS = 900
"""Deadline of each test: the run that it asks for may have to wait for others."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder."""
    for item in items:
        if item.path.is_relative_to(FOLDER):
            item.add_marker(pytest.mark.api)
            item.add_marker(pytest.mark.timeout(SECONDS))


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The API server and what is around it."""
    with Stage.open(tmp_path_factory.mktemp("faults"), find_assets()) as stage:
        yield stage


@pytest.fixture(scope="session")
def campaign(stage: Stage, request: pytest.FixtureRequest) -> Iterator[Campaign]:
    """The runs of all tests that were selected."""
    found = (getattr(item, "callspec", None) for item in request.session.items)
    cases = [spec.params["case"] for spec in found if spec is not None and isinstance(spec.params.get("case"), Case)]
    campaign = Campaign(stage, cases)
    yield campaign
    campaign.close()


@pytest.fixture
def judge(campaign: Campaign, request: pytest.FixtureRequest) -> Callable[[Case], None]:
    """Ask all oracles about a run with a fault, and count it."""

    def ask(case: Case) -> None:
        outcome = campaign.outcome(case)
        before = campaign.outcome(UNDISTURBED[case.job]).evidence
        told = violations(before, outcome.evidence, case.allowance) + outcome.problems
        counted = judged(case.fault_class, before, outcome.evidence, told, happened=not outcome.missed)
        request.node.user_properties.append(as_property(replace(counted, where="api")))
        assert outcome.happened, "nothing went wrong: the fault did not happen"
        assert not told, "\n".join([*told, *outcome.happened])

    return ask
