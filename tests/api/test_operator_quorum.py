"""Too few clients: the job says who is missing and why, waits, and goes on by itself when they are back."""

import base64
import json
import urllib.request

import pytest

from tests.support.cluster.cluster import eventually
from tests.support.cluster.jobs import a_steered_job
from tests.support.cluster.steered import hold_file

CLAIMS = [
    {
        "metadata": {"name": "records"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    }
]


@pytest.fixture
def calm(tmp_path):
    """A folder in which nothing is held back."""
    path = tmp_path / "calm"
    path.mkdir()
    return path


def holding(folder, *rounds):
    for number in rounds:
        hold_file(folder, number).touch()


def release(folder, *rounds):
    for number in rounds:
        hold_file(folder, number).unlink()


def ask_to_end(cluster, namespace, pod):
    """Delete a pod as the taint manager, or a person, does."""
    cluster.api.delete("pods", namespace, pod, gracePeriodSeconds=1)


def test_a_client_on_a_lost_node_is_replaced_although_its_pod_never_leaves(cluster, home, folder, calm):
    holding(folder, 2)
    cluster.submit(home, a_steered_job("calm", calm))
    cluster.submit(home, a_steered_job("j", folder))
    cluster.until_committed(home, "j", 1)

    cluster.lose_node_of((home, "j-client-0-0"))
    cluster.until_reason(home, "j", "NodeUnreachable")
    ask_to_end(cluster, home, "j-client-0-0")

    eventually(lambda: "j-client-0-1" in cluster.pod_names(home, "j"), "the client's successor")
    release(folder, 2)
    status = cluster.until_phase(home, "j", "Complete")
    assert status["model"]["digest"] == cluster.until_phase(home, "calm", "Complete")["model"]["digest"]


def test_a_client_with_a_volume_of_its_own_waits_for_the_lost_node(cluster, home, folder):
    holding(folder, 2)
    cluster.submit(home, a_steered_job("j", folder, group={"volumeClaimTemplates": CLAIMS}))
    cluster.until_committed(home, "j", 1)

    cluster.lose_node_of((home, "j-client-0-0"))
    ask_to_end(cluster, home, "j-client-0-0")

    def says_so():
        return "must not have two writers" in cluster.condition(home, "j", "ClientsReady").get("message", "")

    eventually(says_so, "that the volume is waited for")
    assert "j-client-0-1" not in cluster.pod_names(home, "j")
    cluster.collect((home, "j-client-0-0"))
    release(folder, 2)
    cluster.until_phase(home, "j", "Complete")


def test_the_aggregator_waits_for_its_volume_on_a_lost_node(cluster, home, folder):
    holding(folder, 2)
    cluster.submit(home, a_steered_job("j", folder))
    cluster.until_committed(home, "j", 1)

    cluster.lose_node_of((home, "j-aggregator-0-0"))
    cluster.until_reason(home, "j", "NodeUnreachable")
    ask_to_end(cluster, home, "j-aggregator-0-0")

    def says_so():
        status = cluster.status(home, "j")
        return status["reason"] == "NodeUnreachable" and "must not have two writers" in status["message"]

    eventually(says_so, "that the volume is waited for")
    assert cluster.pod_names(home, "j", "aggregator") == ["j-aggregator-0-0"]
    cluster.collect((home, "j-aggregator-0-0"))
    release(folder, 2)
    assert [entry["number"] for entry in cluster.until_phase(home, "j", "Complete")["recentRounds"]] == [0, 1, 2, 3]


def lose(cluster, namespace, index=1):
    """Let a client of a job that allows no replacement crash."""
    cluster.crash((namespace, f"j-client-{index}-0"))
    eventually(lambda: cluster.status(namespace, "j")["clients"].get("lostIndices") == [index], "a lost client")


def ask_aggregator(cluster, namespace, method, path):
    """Call the aggregator of job j with the job's token."""
    (pod,) = cluster.pods(namespace, "j", "aggregator")
    secrets = cluster.api.list("secrets", namespace, labelSelector="fedjob.dev/job=j")
    token = base64.b64decode(secrets[0]["data"]["token"]).decode()
    url = f"http://{pod['status']['podIP']}:9000{path}"
    request = urllib.request.Request(url, method=method, headers={"Fedjob-Token": token})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


@pytest.mark.parametrize("way", ["delete its pod", "replace it"])
def test_a_lost_client_is_replaced_with_its_index_and_its_data(cluster, home, folder, calm, way):
    holding(folder, 1)
    cluster.submit(home, a_steered_job("calm", calm))
    cluster.submit(home, a_steered_job("j", folder, group={"backoffLimit": 0}))
    cluster.until_committed(home, "j", 0)
    lose(cluster, home)
    release(folder, 1)
    status = cluster.until_phase(home, "j", "WaitingForClients")
    assert "client 1: Crashed: killed by SIGKILL" in json.dumps(status["conditions"])

    if way == "delete its pod":
        cluster.api.delete("pods", home, "j-client-1-0")
    else:
        answers = [ask_aggregator(cluster, home, "DELETE", "/v1/clients/1") for _ in range(2)]
        assert answers == [{"client": 1, "generation": 1}] * 2

    status = cluster.until_phase(home, "j", "Complete")
    assert status["clients"].get("lostIndices", []) == []
    replaced = [(entry["index"], entry["firstOrdinal"]) for entry in status["clients"].get("replaced", [])]
    assert replaced == ([] if way == "delete its pod" else [(1, 1)])
    assert status["model"]["digest"] == cluster.until_phase(home, "calm", "Complete")["model"]["digest"]


def test_more_replicas_take_part_from_the_next_round_and_move_nobody(cluster, home, folder):
    holding(folder, 1)
    job = a_steered_job("j", folder, rounds=2, group={"maxReplicas": 3}, minClients=2)
    cluster.submit(home, job)
    cluster.until_committed(home, "j", 0)
    layout = cluster.status(home, "j")["layout"]
    assert layout == [{"group": "clients", "first": 0, "count": 3}]

    cluster.change(home, "j", clientGroups=[{**job["spec"]["clientGroups"][0], "replicas": 3}])
    eventually(lambda: cluster.status(home, "j")["clients"]["ready"] == 3, "the third client")
    release(folder, 1)

    status = cluster.until_phase(home, "j", "Complete")
    assert status["layout"] == layout
    assert [entry["contributors"] for entry in status["recentRounds"][1:]] == [[0, 1], [0, 1, 2]]
