"""Clients outside the cluster register themselves, with a token out of a Secret, and take part next to pods."""

import pytest

from tests.support.cluster.cluster import eventually
from tests.support.cluster.jobs import a_job
from tests.support.outside import hand_started

SECRET = "let-me-in"


@pytest.fixture
def door(cluster, home):
    """The Secret that the manifest names."""
    cluster.api.create("secrets", home, {"metadata": {"name": "door"}, "stringData": {"token": SECRET}})
    return {"minClients": 2, "tokenSecretRef": {"name": "door"}}


def a_mixed_job(name, door, *, clients=1, **spec):
    job = a_job(name, clients=clients, **spec)
    job["spec"]["clientGroups"].append({"name": "outside", "external": door})
    return job


def address(cluster, namespace, name):
    """Where the aggregator answers, once it does."""

    def look():
        for pod in cluster.pods(namespace, name, "aggregator"):
            if any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", [])):
                return f"http://{pod['status']['podIP']}:9000"
        return None

    return eventually(look, "the aggregator's address")


def test_clients_outside_take_part_next_to_pods_with_a_token_from_a_secret(cluster, home, door, tmp_path):
    cluster.submit(home, a_mixed_job("mixed", door, rounds=3))
    server = address(cluster, home, "mixed")
    with (
        hand_started(tmp_path, server, 1) as (stranger,),
        hand_started(tmp_path, server, 2, FEDJOB_REGISTRATION_TOKEN=SECRET) as clients,
    ):
        stranger.says("to register here takes a token")
        status = cluster.until_phase(home, "mixed", "Complete")
        for client in clients:
            client.says("201: registered with")
            client.says("round 3: trained on")
            client.says("the job is over: 'Complete'")
    assert status["clients"]["desired"] == 3
    assert [row["reported"] for row in status["recentRounds"]] == [1, 3, 3, 3]
    eventually(lambda: cluster.pod_names(home, "mixed", "client") == [], "the end of its pods")


def test_only_the_kubelet_reads_the_secret_and_clients_never_see_the_jobs_token(cluster, home, door, tmp_path):
    cluster.submit(home, a_mixed_job("tokens", door))
    server = address(cluster, home, "tokens")
    (aggregator,) = cluster.pods(home, "tokens", "aggregator")
    variables = {item["name"]: item for item in aggregator["spec"]["containers"][0]["env"]}
    shown = variables["FEDJOB_REGISTRATION_TOKEN_0"]["valueFrom"]["secretKeyRef"]
    assert shown == {"name": "door", "key": "token"}
    own = variables["FEDJOB_TOKEN"]["valueFrom"]["secretKeyRef"]["name"]
    with hand_started(tmp_path, server, 2, FEDJOB_REGISTRATION_TOKEN=SECRET) as clients:
        cluster.until_phase(home, "tokens", "Complete")
        assert own not in clients[0].log()
