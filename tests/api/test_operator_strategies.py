"""Strategies on a real API server: the status names whom they judged, and says why one cannot be used."""

import shutil

import pytest

from fedjob_aggregator.strategies import Strategies
from fedjob_protocol.strategies import ENTRY_POINTS
from tests.support.cluster.jobs import a_steered_job
from tests.support.repository import ROOT

BROKEN = """
from fedjob_aggregator.strategy import RobustStrategy, all_of

class Broken(RobustStrategy):
    least_updates = 1

    def __init__(self, parameters):
        pass

    def select(self, updates):
        return all_of(updates)

    def combine(self, values):
        raise LookupError("no such thing")
"""


@pytest.fixture
def site(tmp_path):
    """A folder in which the package of examples/12-own-strategy is installed, as in an image."""
    shutil.copytree(ROOT / "examples/12-own-strategy/src", tmp_path / "site")
    information = tmp_path / "site/own_strategy-1.0.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: own-strategy\nVersion: 1.0.0\n")
    (tmp_path / "site/broken.py").write_text(BROKEN)
    lines = f"[{ENTRY_POINTS}]\nNesterov = own_strategy:nesterov\nBroken = broken:Broken\n"
    (information / "entry_points.txt").write_text(lines)
    return tmp_path / "site"


def image(*variables):
    """A template that gives the aggregator an image of its own."""
    container = {"name": "aggregator", "image": "my/aggregator:1", "env": list(variables)}
    return {"template": {"spec": {"containers": [container]}}}


def test_the_status_says_whom_a_strategy_rejected_and_by_which_numbers(cluster, home, folder):
    strategy = {"name": "MultiKrum", "parameters": {"byzantine": 1}}
    cluster.submit(home, a_steered_job("j", folder, clients=5, rounds=2, strategy=strategy))
    cluster.until_phase(home, "j", "Complete")
    for row in cluster.status(home, "j")["recentRounds"][1:]:
        assert (row["reported"], row["judged"]) == (5, 1)
        (judgement,) = row["judgements"]
        assert judgement["verdict"] == "Rejected"
        assert judgement["evidence"].startswith("score ")


def test_an_optimizer_on_the_aggregator_survives_its_pod(cluster, home, folder):
    def digests(name, *, kill):
        cluster.submit(home, a_steered_job(name, folder, rounds=4, strategy={"name": "FedAdam"}))
        if kill:
            cluster.until_committed(home, name, 2)
            cluster.crash((home, f"{name}-aggregator-0-0"))
        cluster.until_phase(home, name, "Complete")
        return [row["digest"] for row in cluster.status(home, name)["recentRounds"]]

    assert digests("killed", kill=True) == digests("calm", kill=False)


def test_a_strategy_of_an_image_of_ones_own_runs(cluster, home, folder, site):
    aggregator = image({"name": "PYTHONPATH", "value": str(site)})
    strategy = {"name": "Nesterov", "parameters": {"momentum": 0.25}}
    cluster.submit(home, a_steered_job("j", folder, strategy=strategy, aggregator=aggregator))
    cluster.until_phase(home, "j", "Complete")


def test_a_strategy_that_the_image_lacks_fails_the_job_with_the_aggregators_words(cluster, home, folder):
    assert "Nesterov" not in Strategies().names
    cluster.submit(home, a_steered_job("j", folder, strategy={"name": "Nesterov"}, aggregator=image()))
    cluster.until_phase(home, "j", "Failed")
    status = cluster.status(home, "j")
    assert status["reason"] == "InvalidSpec"
    assert "strategy 'Nesterov' is not known here" in status["message"]


def test_a_strategy_that_raises_fails_the_job_with_its_words(cluster, home, folder, site):
    aggregator = image({"name": "PYTHONPATH", "value": str(site)})
    policy = {"maxAttempts": 1}
    job = a_steered_job("j", folder, strategy={"name": "Broken"}, aggregator=aggregator, roundPolicy=policy)
    cluster.submit(home, job)
    cluster.until_phase(home, "j", "Failed")
    status = cluster.status(home, "j")
    assert status["reason"] == "StrategyFailed"
    assert "strategy Broken raised LookupError: no such thing" in status["message"]
    assert status["rounds"]["committed"] == 0


def test_an_unknown_strategy_without_an_image_of_ones_own_is_refused_by_name(cluster, home, folder):
    cluster.submit(home, a_steered_job("j", folder, strategy={"name": "FedAdm", "parameters": {"tua": 1}}))
    accepted = cluster.until_reason(home, "j", "InvalidSpec")
    assert (accepted["type"], accepted["status"]) == ("Accepted", "False")
    assert 'spec.strategy.name: "FedAdm" is not built in; did you mean "FedAdam"?' in accepted["message"]


def test_an_unknown_parameter_of_a_built_in_strategy_is_refused_by_name(cluster, home, folder):
    cluster.submit(home, a_steered_job("j", folder, strategy={"name": "FedAdam", "parameters": {"tua": 1}}))
    accepted = cluster.until_reason(home, "j", "InvalidSpec")
    assert "spec.strategy.parameters.tua: is no parameter of strategy FedAdam" in accepted["message"]
