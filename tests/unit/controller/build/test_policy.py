"""Who may talk to a job's pods."""

from fedjob_operator.build.names import pod_labels
from fedjob_operator.build.pods import build_pod
from fedjob_operator.build.policy import network_policy
from fedjob_operator.build.settings import PodSettings, PolicySettings
from fedjob_operator.core.actions import CreatePod
from fedjob_operator.core.observed import PodRole
from tests.support.builders import a_job

SETTINGS = PolicySettings(
    operator_namespace="fedjob-system",
    operator_labels={"app.kubernetes.io/name": "fedjob-operator"},
    monitoring_namespace_labels={"team": "watch"},
)


def policy(job):
    return network_policy(job, SETTINGS)["spec"]


def test_it_is_about_the_pods_of_this_very_job():
    job = a_job().accepted().build()
    selector = policy(job)["podSelector"]["matchLabels"]
    for role in PodRole:
        assert selector.items() <= pod_labels(job, role, 0, 0).items()
    again = job.model_copy(update={"metadata": job.metadata.model_copy(update={"uid": "another"})})
    assert not selector.items() <= pod_labels(again, PodRole.CLIENT, 0, 0).items()


def test_requests_come_from_the_job_and_the_operator_and_metrics_are_read_by_the_monitoring():
    spec = policy(a_job().accepted().build())
    requests, metrics = spec["ingress"]
    own, operator = requests["from"]
    assert spec["policyTypes"] == ["Ingress"]
    assert own == {"podSelector": spec["podSelector"]}
    assert operator == {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "fedjob-system"}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "fedjob-operator"}},
    }
    assert metrics["from"] == [{"namespaceSelector": {"matchLabels": {"team": "watch"}}}]


def test_it_names_the_ports_of_the_pods():
    job = a_job().accepted().build()
    named = {port["port"] for rule in policy(job)["ingress"] for port in rule["ports"]}
    for role in PodRole:
        action = CreatePod(role=role, index=0, ordinal=0)
        pod = build_pod(job, action, PodSettings(client_image="c", aggregator_image="a"))
        assert named == {port["name"] for port in pod["spec"]["containers"][0]["ports"]}
