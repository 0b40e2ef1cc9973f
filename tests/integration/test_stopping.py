"""Example 41: a job that diverges goes back to its best model once, stops by itself, or fails and keeps the best."""

import json

import pytest

from fedjob_protocol.layout import checkpoint_name
from fedjob_protocol.weights import decode
from tests.support.repository import ROOT
from tests.support.runs import Folder, fedjob

EXAMPLE = ROOT / "examples/41-stopping.yaml"


def run(folder, *overrides):
    arguments = [part for override in overrides for part in ("--set", override)]
    done = fedjob("run", EXAMPLE, "--dir", folder / "run", "-o", "json", *arguments, cwd=folder)
    return done.returncode, json.loads(done.stdout.splitlines()[-1])["status"]


def test_the_example_diverges_goes_back_and_reaches_its_target(tmp_path):
    code, status = run(tmp_path)
    assert (code, status["phase"], status["reason"]) == (0, "Complete", "TargetReached"), status["message"]
    rounds = Folder(tmp_path / "run").rounds()
    (again,) = [record for record in rounds if record.base is not None]
    losses = {record.round: record.metrics["loss"] for record in rounds[1:]}
    before = range(again.round - 3, again.round)
    assert all(losses[number] > 10 * losses[again.base.round] for number in before)
    assert again.base.digest == rounds[again.base.round].digest
    assert again.parent == rounds[again.round - 1].digest, "a step ahead, never back"
    recovery = status["divergence"]["recovery"]
    assert (recovery["round"], recovery["base"]["round"]) == (again.round, again.base.round)
    assert losses[again.round] < losses[again.base.round]
    assert status["best"]["round"] == status["model"]["round"] == max(losses)


@pytest.mark.parametrize(("rate", "epochs"), [(0.5, 1), (1000, 100)])
def test_when_half_the_learning_rate_does_not_help_the_job_fails_and_keeps_the_best_model(tmp_path, rate, epochs):
    """With the higher one the clients' own updates are not finite: no model of the kind is ever committed."""
    code, status = run(tmp_path, f"spec.training.learningRate={rate}", f"spec.training.epochs={epochs}")
    assert (code, status["phase"], status["reason"]) == (1, "Failed", "Diverged"), status["message"]
    assert status["divergence"]["recovery"]["learningRateFactor"] == 0.5
    if "best" in status:
        kept = tmp_path / "run/aggregator" / checkpoint_name(status["best"]["round"])
        assert decode(kept.read_bytes())[0].keys() == {"b", "w"}
        assert status["best"]["round"] < status["model"]["round"]
    else:
        assert status["rounds"]["committed"] == 0


def test_patience_ends_a_job_that_does_not_get_better(tmp_path):
    code, status = run(
        tmp_path,
        "spec.training.learningRate=0.05",
        'spec.stop={"patienceRounds": 3, "minDelta": 0.5}',
    )
    assert (code, status["reason"]) == (0, "NoImprovement")
    assert status["rounds"]["committed"] == status["lastImprovement"]["round"] + 3
    assert status["best"]["round"] > status["lastImprovement"]["round"], "small steps count for the best model"


def test_an_objective_that_nobody_reports_is_named_in_every_round(tmp_path):
    code, status = run(tmp_path, "spec.rounds=2", "spec.objective={metric: accuracy, mode: Max}")
    assert (code, status["phase"]) == (0, "Complete")
    told = [row.get("evaluationProblem") for row in status["recentRounds"] if row["number"] > 0]
    names = "there are loss, r2, rmse"
    assert told == [f"there is no metric 'accuracy', which spec.objective names; {names}"] * 2
