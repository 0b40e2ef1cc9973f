"""A complete job's model behind a Deployment: asked over HTTP, scaled by the spec, gone with the job."""

import requests

from tests.support.cluster.cluster import eventually
from tests.support.cluster.jobs import a_job


def servers(cluster, home, count):
    """The ready servers, once there are so many."""

    def look():
        pods = cluster.pods(home, "j", "server")
        ready = [
            pod
            for pod in pods
            if any(item["type"] == "Ready" and item["status"] == "True" for item in pod["status"].get("conditions", []))
        ]
        return (len(pods) == len(ready) == count) and (ready or True)

    return eventually(look, f"{count} ready servers")


def test_the_best_model_is_served_scaled_and_gone_with_the_job(cluster, home):
    serve = {"serve": {"replicas": 1}, "evaluation": {"modes": ["Evaluator"]}}
    cluster.submit(home, a_job("j", rounds=2, objective={"metric": "loss", "mode": "Min"}, **serve))
    status = cluster.until_phase(home, "j", "Complete")

    (pod,) = servers(cluster, home, 1)
    url = f"http://{pod['status']['podIP']}:8000"
    answer = requests.post(f"{url}/predict", json={"inputs": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]}, timeout=10).json()
    assert answer["round"] == status["best"]["round"]
    assert len(answer["outputs"]) == 2
    refused = requests.get(f"{url}/v1/info", timeout=10)
    assert refused.status_code == 401, "its control wants the job's token"
    assert cluster.status(home, "j")["serving"] == {
        "replicas": 1,
        "service": "j-serve",
        "model": {"round": status["best"]["round"], "digest": status["best"]["digest"]},
    }
    service = cluster.api.get("services", home, "j-serve")
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()

    cluster.change(home, "j", serve={"replicas": 2})
    servers(cluster, home, 2)
    cluster.change(home, "j", serve={"replicas": 0})
    servers(cluster, home, 0)
    eventually(lambda: "serving" not in cluster.status(home, "j"), "no servers in the status")

    cluster.change(home, "j", serve={"replicas": 1})
    servers(cluster, home, 1)
    cluster.delete(home, "j")
    eventually(lambda: not cluster.leftovers(home, ["deployments", "services", "pods"]), "the end of the servers")
