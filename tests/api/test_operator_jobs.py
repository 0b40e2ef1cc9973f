"""The life of a job on a real API server: the operator as a process, its pods as processes."""

import base64
import time
from datetime import datetime

import pytest
import requests

from tests.support.cluster.access import ApiError
from tests.support.cluster.cluster import eventually
from tests.support.cluster.jobs import a_job, a_steered_job
from tests.support.cluster.operators import tracebacks
from tests.support.cluster.steered import hold_file

RELEASED_SECONDS = 10.0
"""How soon the pods of a finished job are gone."""


def digits(name):
    return a_job(
        name,
        clients=3,
        rounds=3,
        model={"name": "mlp", "parameters": {"hiddenSizes": [16]}},
        data={"name": "digits", "partition": {"scheme": "IID"}},
        training={"epochs": 1, "batchSize": 32, "learningRate": 0.1},
        evaluation={"modes": ["Evaluator", "Clients"]},
        objective={"metric": "accuracy", "mode": "Max"},
    )


def columns(server, namespace, *options):
    """The table of `kubectl get` as a list of rows by column."""
    shown = server.kubectl("get", "federatedjobs", "-n", namespace, *options)
    assert shown.returncode == 0, shown.stderr
    head, *lines = shown.stdout.splitlines()
    starts = [head.index(name) for name in head.split()]
    ends = [*starts[1:], None]
    names = [head[start:end].strip() for start, end in zip(starts, ends, strict=True)]
    return [
        {name: line[start:end].strip() for name, start, end in zip(names, starts, ends, strict=True)} for line in lines
    ]


def uid(cluster, namespace, name):
    return cluster.job(namespace, name)["metadata"]["uid"]


def time_of(text):
    return datetime.fromisoformat(text)


def test_a_job_on_real_data_runs_to_complete_and_the_columns_tell(cluster, home):
    cluster.apply(home, digits("mnist"))

    waited = cluster.server.kubectl("wait", "-n", home, "--for=condition=Complete", "fj/mnist", "--timeout=90s")

    assert waited.returncode == 0, waited.stderr + cluster.describe(home, "mnist")
    (row,) = columns(cluster.server, home)
    assert list(row) == ["NAME", "STATE", "ROUNDS", "CLIENTS", "METRIC", "AGE"]
    assert (row["NAME"], row["STATE"], row["ROUNDS"], row["CLIENTS"]) == ("mnist", "Complete", "3/3", "3/3")
    metric, value = row["METRIC"].split()
    assert metric == "accuracy"
    assert 0.2 < float(value) <= 1
    (wide,) = columns(cluster.server, home, "-o", "wide")
    assert wide.keys() >= {"GPUS", "ATTEMPT", "REASON"}
    assert wide["REASON"] == "RoundsCompleted"
    metrics = {metric["name"]: metric["value"] for metric in cluster.status(home, "mnist")["metrics"]}
    assert abs(metrics["clients/accuracy"] - metrics["accuracy"]) < 1e-9, "its clients share the evaluator's examples"


def test_a_finished_job_gives_back_its_clients_and_their_gpus_and_serves_its_model(cluster, home, folder):
    cluster.set_gpus(2)
    cluster.submit(home, a_steered_job("j", folder, rounds=1, group={"gpus": 1}))
    held = eventually(lambda: cluster.status(home, "j").get("gpus", {}).get("held") == 2, "2 GPUs held")
    assert held

    cluster.until_phase(home, "j", "Complete")
    finished = time.monotonic()
    eventually(lambda: not cluster.pods(home, "j", "client"), "the end of the clients", RELEASED_SECONDS)

    assert time.monotonic() - finished < RELEASED_SECONDS
    eventually(lambda: cluster.status(home, "j")["gpus"]["held"] == 0, "no GPU held")
    (pod,) = cluster.pods(home, "j", "aggregator")
    (name,) = (
        variable["valueFrom"]["secretKeyRef"]["name"]
        for variable in pod["spec"]["containers"][0]["env"]
        if variable["name"] == "FEDJOB_TOKEN"
    )
    token = cluster.api.call("GET", f"/api/v1/namespaces/{home}/secrets/{name}")["data"]["token"]
    header = {"Fedjob-Token": base64.b64decode(token).decode()}
    answer = requests.get(f"http://{pod['status']['podIP']}:9000/v1/models/latest", headers=header, timeout=10)
    assert answer.status_code == 200
    assert answer.headers["Fedjob-Digest"] == cluster.status(home, "j")["model"]["digest"]


def test_all_three_programs_export_metrics_without_a_token(cluster, home, folder, shared_operator):
    hold_file(folder, 2).touch()
    cluster.submit(home, a_steered_job("j", folder, clients=1))
    cluster.until_committed(home, "j", 1)

    texts = {}
    for role in ("aggregator", "client"):
        (pod,) = cluster.pods(home, "j", role)
        answer = requests.get(f"http://{pod['status']['podIP']}:9090/metrics", timeout=10)
        assert answer.status_code == 200
        texts[role] = answer.text

    assert "fedjob_aggregator" in texts["aggregator"]
    assert "fedjob_client" in texts["client"]
    eventually(lambda: 'fedjob_jobs{phase="Running"} 1.0' in shared_operator.metrics(), "one running job")


def test_a_job_deleted_and_applied_again_at_once_is_a_new_job(cluster, home, folder):
    hold_file(folder, 2).touch()
    manifest = a_steered_job("j", folder)
    cluster.apply(home, manifest)
    cluster.until_committed(home, "j", 1)
    first = uid(cluster, home, "j")

    deleted = cluster.server.kubectl("delete", "fj", "j", "-n", home)
    cluster.apply(home, manifest)
    hold_file(folder, 2).unlink()

    assert deleted.returncode == 0, deleted.stderr
    status = cluster.until_phase(home, "j", "Complete")
    second = uid(cluster, home, "j")
    assert second != first
    assert status["rounds"] == {"committed": 3, "total": 3}
    owners = {pod["metadata"]["ownerReferences"][0]["uid"] for pod in cluster.pods(home, "j")}
    assert owners == {second}
    claims = {claim["metadata"]["name"] for claim in cluster.api.list("persistentvolumeclaims", home)}
    assert claims == {f"j-{first[:8]}-aggregator-0", f"j-{second[:8]}-aggregator-0"}, "Retain keeps the first one's"


@pytest.mark.parametrize(("policy", "claims"), [("Retain", 1), ("Delete", 0)])
def test_deleting_a_running_job_leaves_nothing_but_a_volume_that_is_to_be_kept(cluster, home, folder, policy, claims):
    hold_file(folder, 1).touch()
    storage = {"size": "64Mi", "retentionPolicy": {"whenDeleted": policy}}
    cluster.submit(home, a_steered_job("j", folder, aggregator={"storage": storage}))
    cluster.until_committed(home, "j", 0)

    cluster.delete(home, "j")

    eventually(lambda: not cluster.leftovers(home), "the end of pods, Services and Secrets")
    eventually(lambda: len(cluster.leftovers(home, ["persistentvolumeclaims"])) == claims, f"{claims} volumes")
    eventually(lambda: not [pod for pod in cluster.programs() if pod[0] == home], "the end of the programs")


def test_a_suspended_job_has_no_pods_and_goes_on_at_the_next_round(cluster, home, folder, tmp_path):
    calm = tmp_path / "calm"
    calm.mkdir()
    hold_file(folder, 2).touch()
    cluster.submit(home, a_steered_job("calm", calm))
    cluster.submit(home, a_steered_job("j", folder))
    cluster.until_committed(home, "j", 1)

    cluster.change(home, "j", suspend=True)
    cluster.until_phase(home, "j", "Suspended")
    assert cluster.pods(home, "j") == []
    assert cluster.condition(home, "j", "Suspended")["status"] == "True"
    hold_file(folder, 2).unlink()
    cluster.change(home, "j", suspend=False)

    status = cluster.until_phase(home, "j", "Complete")
    undisturbed = cluster.until_phase(home, "calm", "Complete")
    assert [entry["number"] for entry in status["recentRounds"]] == [0, 1, 2, 3]
    assert status["model"]["digest"] == undisturbed["model"]["digest"]


def test_a_job_created_suspended_makes_pods_only_when_resumed(cluster, home):
    cluster.submit(home, a_job("j", suspend=True))
    cluster.until_phase(home, "j", "Suspended")
    assert cluster.pods(home, "j") == []

    cluster.change(home, "j", suspend=False)

    assert cluster.until_phase(home, "j", "Complete")["rounds"]["committed"] == 2


def test_rounds_can_be_raised_while_the_job_runs(cluster, home, folder):
    hold_file(folder, 2).touch()
    cluster.submit(home, a_steered_job("j", folder, rounds=2))
    cluster.until_committed(home, "j", 1)

    cluster.change(home, "j", rounds=4)
    hold_file(folder, 2).unlink()

    assert cluster.until_phase(home, "j", "Complete")["rounds"] == {"committed": 4, "total": 4}
    with pytest.raises(ApiError, match="rounds"):
        cluster.change(home, "j", rounds=5)


def test_a_job_past_its_time_to_live_is_deleted_with_what_it_owns(cluster, home):
    cluster.submit(home, a_job("j", rounds=1, ttlSecondsAfterFinished=2))

    eventually(lambda: cluster.api.find("federatedjobs", home, "j") is None, "the end of the job")

    eventually(lambda: not cluster.leftovers(home), "the end of pods, Services and Secrets")
    assert len(cluster.leftovers(home, ["persistentvolumeclaims"])) == 1


def test_a_job_past_its_deadline_fails_and_gives_its_clients_back(cluster, home, folder):
    hold_file(folder, 1).touch()
    cluster.submit(home, a_steered_job("j", folder, activeDeadlineSeconds=2))

    status = cluster.until_phase(home, "j", "Failed")

    assert status["reason"] == "ActiveDeadlineExceeded"
    assert (time_of(status["completionTime"]) - time_of(status["startTime"])).total_seconds() >= 2
    eventually(lambda: not cluster.pods(home, "j", "client"), "the end of the clients")


@pytest.mark.parametrize("accuracy", ["nan", "inf"])
def test_a_metric_that_is_no_number_never_stops_the_rounds(cluster, home, folder, accuracy):
    objective = {"metric": "accuracy", "mode": "Max"}
    parameters = {"accuracy": accuracy}
    cluster.submit(
        home, a_steered_job("j", folder, evaluated=True, parameters=parameters, objective=objective, clients=1)
    )

    status = cluster.until_phase(home, "j", "Complete")

    assert status["rounds"]["committed"] == 3
    assert [metric["name"] for metric in status["metrics"]] == ["mean"]
    assert "best" not in status


def test_a_failing_trainer_shows_its_last_line(cluster, home, folder):
    group = {"backoffLimit": 0}
    job = a_steered_job("j", folder, parameters={"fail": 1}, group=group, roundPolicy={"onQuorumLoss": "Fail"})
    cluster.submit(home, job)

    cluster.until_phase(home, "j", "Failed")

    assert "the sensor of this client is broken" in str(cluster.status(home, "j"))


def test_a_namespace_that_holds_a_running_job_can_be_deleted(cluster, shared_operator, namespace, folder):
    hold_file(folder, 1).touch()
    cluster.submit(namespace, a_steered_job("j", folder))
    cluster.until_committed(namespace, "j", 0)

    cluster.api.delete("namespaces", None, namespace)

    eventually(lambda: cluster.api.find("namespaces", None, namespace) is None, "the end of the namespace")
    assert [pod for pod in cluster.programs() if pod[0] == namespace] == []
    assert tracebacks(shared_operator) == []
