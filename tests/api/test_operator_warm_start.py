"""A job that begins with another job's model, on a real API server: whom it waits for, and what it is given."""

from tests.support.cluster.cluster import eventually
from tests.support.cluster.jobs import a_job, a_steered_job
from tests.support.cluster.steered import hold_file


def begun_with(name, checkpoint="Final", **rest):
    return {"name": "linear", "initFrom": {"federatedJob": {"name": name, "checkpoint": checkpoint, **rest}}}


def test_a_job_waits_without_pods_for_another_one_and_then_begins_with_its_model(cluster, home):
    cluster.submit(home, a_job("second", rounds=1, seed=8, model=begun_with("first")))
    status = eventually(
        lambda: (found := cluster.status(home, "second")).get("reason") == "InitialModelPending" and found,
        "waiting for the first job",
    )
    assert "there is no job first" in status["message"]
    assert cluster.pods(home, "second") == []

    cluster.submit(home, a_job("first", rounds=2))
    cluster.until_phase(home, "first", "Complete")
    second = cluster.until_phase(home, "second", "Complete")

    first = cluster.job(home, "first")
    assert second["origin"] == {
        "job": "first",
        "uid": first["metadata"]["uid"],
        "round": 2,
        "digest": first["status"]["model"]["digest"],
    }
    initial = second["recentRounds"][0]
    assert initial["number"] == 0
    assert second["recentRounds"][1]["number"] == 1


def test_what_can_and_what_cannot_be_begun_with(cluster, home):
    wanted = {
        "again": begun_with("first"),
        "best": begun_with("first", "Best"),
        "gone": begun_with("first", "Round", round=9),
        "other": {**begun_with("first"), "name": "softmax"},
    }
    cluster.submit(home, a_job("first", rounds=1))
    cluster.until_phase(home, "first", "Complete")
    volume = f"first-{cluster.job(home, 'first')['metadata']['uid'][:8]}-aggregator-0"
    claim = {"name": volume, "path": "checkpoints/round-000001.safetensors"}
    wanted["claim"] = {"name": "linear", "initFrom": {"claim": claim}}
    for name, model in wanted.items():
        rest = {"data": {"name": "digits", "maxTrainSamples": 100}} if name == "other" else {}
        cluster.submit(home, a_job(name, rounds=1, clients=1, model=model, **rest))

    cluster.until_phase(home, "again", "Complete")
    cluster.until_phase(home, "claim", "Complete")
    told = {name: cluster.until_phase(home, name, "Failed") for name in ("best", "gone", "other")}

    assert {name: status["reason"] for name, status in told.items()} == {
        "best": "InitialModelLost",
        "gone": "InitialModelLost",
        "other": "ArchitectureMismatch",
    }
    assert "has no best model" in told["best"]["message"]
    assert "does not keep the checkpoint of round 9" in told["gone"]["message"]
    assert "does not fit the model" in told["other"]["message"]
    # The other job's token is in no pod of the job that begins with its model: each has its own and no other.
    uid = cluster.job(home, "again")["metadata"]["uid"]
    (aggregator,) = cluster.pods(home, "again", "aggregator")
    references = [item for item in aggregator["spec"]["containers"][0]["env"] if "valueFrom" in item]
    assert [item["valueFrom"]["secretKeyRef"]["name"] for item in references] == [f"again-{uid[:8]}-token"]


def test_a_round_of_a_job_that_still_runs_can_be_begun_with(cluster, home, folder):
    hold_file(folder, 2).touch()
    cluster.submit(home, a_steered_job("first", folder))
    cluster.until_committed(home, "first", 1)
    model = {**begun_with("first", "Round", round=1), "name": "own"}
    cluster.submit(home, a_steered_job("second", folder, rounds=1, model=model))
    status = cluster.until_phase(home, "second", "Complete")
    assert status["origin"]["digest"] == cluster.status(home, "first")["model"]["digest"]
    hold_file(folder, 2).unlink()
