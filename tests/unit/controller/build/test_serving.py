"""The Deployment of servers, its Service and its NetworkPolicy."""

import json

import pytest

from fedjob_operator.api.v1alpha1 import CommittedModel, Serving
from fedjob_operator.build.serving import server_deployment, server_policy, server_service
from fedjob_protocol.config import ClientConfig, Role
from tests.support.builders import chain_digest
from tests.unit.controller.build.test_pods import SETTINGS, UID, a_job, container_of, environment

SERVING = Serving(replicas=2, service="mnist-serve", model=CommittedModel(round=4, digest=chain_digest(4)))


def deployment(**spec):
    return server_deployment(a_job(**spec), SERVING, SETTINGS)


def test_servers_fetch_the_jobs_model_from_its_aggregator_and_read_no_data():
    found = deployment()
    config = ClientConfig.model_validate_json(environment(found["spec"]["template"])["FEDJOB_CONFIG"])
    assert config.role is Role.SERVER
    assert config.model_url == "http://mnist-aggregator.lab.svc:9000/v1/models/4"
    assert config.model_digest == chain_digest(4)


def test_the_selector_is_the_jobs_own_and_its_pods_are_none_of_the_trainings():
    found, service, policy = deployment(), server_service(a_job(), SERVING), server_policy(a_job())
    selector = {"fedjob.dev/job-uid": UID, "fedjob.dev/role": "server"}
    assert found["spec"]["selector"]["matchLabels"] == selector
    assert service["spec"]["selector"] == policy["spec"]["podSelector"]["matchLabels"] == selector
    labels = found["spec"]["template"]["metadata"]["labels"]
    assert selector.items() <= labels.items()
    for document in (found, service, policy):
        assert [owner["uid"] for owner in document["metadata"]["ownerReferences"]] == [UID]


def test_servers_are_restricted_as_all_pods_are_and_keep_running():
    spec = deployment()["spec"]["template"]["spec"]
    container = spec["containers"][0]
    assert spec["restartPolicy"] == "Always"
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["readinessProbe"]["httpGet"]["path"] == "/ready"
    assert not any("gpu" in name for name in container["resources"].get("limits", {}))


def test_they_are_what_the_evaluator_is_image_trainer_and_template():
    template = {
        "metadata": {"labels": {"team": "a", "fedjob.dev/role": "client"}},
        "spec": {"containers": [{"name": "client", "env": [{"name": "PYTHONPATH", "value": "/own"}]}]},
    }
    found = deployment(group={"image": "own:1", "trainer": "own:Trainer"}, evaluation={"template": template, "gpus": 2})
    pod = found["spec"]["template"]
    assert container_of(pod)["image"] == "own:1"
    assert environment(pod)["PYTHONPATH"] == "/own"
    assert json.loads(environment(pod)["FEDJOB_CONFIG"])["trainer"] == "own:Trainer"
    assert pod["metadata"]["labels"]["team"] == "a"
    assert pod["metadata"]["labels"]["fedjob.dev/role"] == "server", "whatever a template says"


def test_a_template_that_takes_our_container_away_is_refused():
    with pytest.raises(ValueError, match="the container client is gone"):
        deployment(evaluation={"template": {"spec": {"containers": None}}})
