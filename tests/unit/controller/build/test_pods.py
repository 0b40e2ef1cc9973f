"""The pods of a job: what templates may change, and what they may not."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjob_operator.api.resolve import layout
from fedjob_operator.api.v1alpha1 import FederatedJob, FederatedJobStatus, Images
from fedjob_operator.build.pods import build_pod, refused_service_account
from fedjob_operator.build.settings import PodSettings
from fedjob_operator.build.storage import aggregator_claim, aggregator_service, client_claims, token_secret
from fedjob_operator.core.actions import CreatePod
from fedjob_operator.core.observed import PodRole
from fedjob_protocol.config import ClientConfig

UID = "0c5f3d1e-aaaa-bbbb-cccc-0123456789ab"
SETTINGS = PodSettings(client_image="client:1", aggregator_image="aggregator:1")
AGGREGATOR = CreatePod(role=PodRole.AGGREGATOR, index=0, ordinal=0)
CLIENT = CreatePod(role=PodRole.CLIENT, index=1, ordinal=2)
EVALUATOR = CreatePod(role=PodRole.EVALUATOR, index=0, ordinal=0)
ALL = (AGGREGATOR, CLIENT, EVALUATOR)


def a_job(*, group=None, name="mnist", images=None, **spec):
    job = FederatedJob.from_document(
        {
            "apiVersion": "fedjob.dev/v1alpha1",
            "kind": "FederatedJob",
            "metadata": {"name": name, "namespace": "lab", "uid": UID},
            "spec": {
                "rounds": 2,
                "model": {"name": "mlp"},
                "data": {"name": "digits"},
                "clientGroups": [{"name": "clients", "replicas": 3, **(group or {})}],
                **spec,
            },
        }
    )
    return job.model_copy(update={"status": FederatedJobStatus(layout=layout(job.spec), images=images)})


def container_of(pod):
    return pod["spec"]["containers"][0]


def environment(pod):
    return {item["name"]: item.get("value") for item in container_of(pod)["env"]}


def test_each_aggregator_with_standbys_has_its_name_its_volume_and_a_node_of_its_own_where_there_is_one():
    job = a_job(aggregator={"replicas": 3})
    for index in range(3):
        pod = build_pod(job, CreatePod(role=PodRole.AGGREGATOR, index=index, ordinal=0), SETTINGS)
        assert pod["metadata"]["name"] == f"mnist-aggregator-{index}-0"
        assert environment(pod)["FEDJOB_REPLICA"] == f"aggregator-{index}"
        (volume,) = [item for item in pod["spec"]["volumes"] if item["name"] == "data"]
        claim = aggregator_claim(job, index)["metadata"]["name"]
        assert volume["persistentVolumeClaim"]["claimName"] == claim == f"mnist-0c5f3d1e-aggregator-{index}"
        ((_, rules),) = pod["spec"]["affinity"].items()
        (preferred,) = rules["preferredDuringSchedulingIgnoredDuringExecution"]
        assert preferred["podAffinityTerm"]["topologyKey"] == "kubernetes.io/hostname"
        labels = preferred["podAffinityTerm"]["labelSelector"]["matchLabels"]
        assert labels.items() <= pod["metadata"]["labels"].items()


def test_one_aggregator_alone_is_not_told_of_others():
    pod = build_pod(a_job(), AGGREGATOR, SETTINGS)
    assert "FEDJOB_REPLICA" not in environment(pod)
    assert "affinity" not in pod["spec"]


def test_names_and_labels_say_the_place():
    pod = build_pod(a_job(), CLIENT, SETTINGS)
    assert pod["metadata"]["name"] == "mnist-client-1-2"
    labels = pod["metadata"]["labels"]
    assert labels["fedjob.dev/job-uid"] == UID
    assert (labels["fedjob.dev/role"], labels["fedjob.dev/index"], labels["fedjob.dev/ordinal"]) == ("client", "1", "2")
    assert labels["fedjob.dev/group"] == "clients"


def test_all_names_fit_a_label_for_the_longest_job_name():
    job = a_job(name="a" * 40)
    last = CreatePod(role=PodRole.AGGREGATOR, index=9_999, ordinal=10_000)
    names = [
        build_pod(job, last, SETTINGS)["metadata"]["name"],
        aggregator_claim(job)["metadata"]["name"],
        aggregator_service(job)["metadata"]["name"],
        token_secret(job, "t")["metadata"]["name"],
    ]
    assert all(len(name) <= 63 for name in names), names


@pytest.mark.parametrize("action", ALL, ids=lambda action: action.role)
def test_pods_meet_the_restricted_profile(action):
    spec = build_pod(a_job(), action, SETTINGS)["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    for container in spec["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert {"requests", "limits"} <= container["resources"].keys()


@pytest.mark.parametrize("action", ALL, ids=lambda action: action.role)
def test_small_requests_let_a_job_fit_a_small_cluster(action):
    requests = container_of(build_pod(a_job(), action, SETTINGS))["resources"]["requests"]
    assert int(requests["cpu"].removesuffix("m")) <= 50


def test_a_client_is_told_its_part_of_the_job():
    pod = build_pod(a_job(), CLIENT, SETTINGS)
    config = ClientConfig.model_validate_json(environment(pod)["FEDJOB_CONFIG"])
    assert (config.job_uid, config.index, config.group) == (UID, 1, "clients")
    assert environment(pod)["FEDJOB_CLIENT_INDEX"] == "1"


@pytest.mark.parametrize("action", ALL, ids=lambda action: action.role)
def test_the_token_comes_from_the_jobs_secret_and_is_nowhere_else(action):
    job = a_job()
    pod = build_pod(job, action, SETTINGS)
    secret = token_secret(job, "very-secret")
    sources = [item["valueFrom"]["secretKeyRef"] for item in container_of(pod)["env"] if "valueFrom" in item]
    assert sources == [{"name": secret["metadata"]["name"], "key": "token"}]
    assert "very-secret" not in json.dumps(pod)


@pytest.mark.parametrize(
    ("action", "program"),
    [(AGGREGATOR, "fedjob-aggregator"), (CLIENT, "fedjob-client"), (EVALUATOR, "fedjob-client")],
    ids=lambda value: getattr(value, "role", value),
)
def test_the_program_is_named_so_that_an_image_without_it_cannot_pass(action, program):
    assert container_of(build_pod(a_job(), action, SETTINGS))["command"] == [program]


def test_images_are_pinned_for_the_life_of_a_job():
    job = a_job(images=Images(client="client:0", aggregator="aggregator:0"))
    assert container_of(build_pod(job, CLIENT, SETTINGS))["image"] == "client:0"
    assert container_of(build_pod(job, AGGREGATOR, SETTINGS))["image"] == "aggregator:0"
    own = a_job(group={"image": "mine:3"}, images=Images(client="client:0"))
    assert container_of(build_pod(own, CLIENT, SETTINGS))["image"] == "mine:3"
    assert container_of(build_pod(own, EVALUATOR, SETTINGS))["image"] == "mine:3"


def test_gpus_are_limits_and_the_pod_sees_them():
    pod = build_pod(a_job(group={"gpus": 2}), CLIENT, SETTINGS)
    resources = container_of(pod)["resources"]
    assert resources["limits"]["nvidia.com/gpu"] == resources["requests"]["nvidia.com/gpu"] == "2"
    assert "NVIDIA_VISIBLE_DEVICES" not in environment(pod)


def test_a_pod_without_gpus_sees_none_unless_its_template_asks_for_a_device():
    assert environment(build_pod(a_job(), CLIENT, SETTINGS))["NVIDIA_VISIBLE_DEVICES"] == "void"
    limits = {"nvidia.com/mig-1g.5gb": "1"}
    template = {"spec": {"containers": [{"name": "client", "resources": {"limits": limits}}]}}
    assert "NVIDIA_VISIBLE_DEVICES" not in environment(build_pod(a_job(group={"template": template}), CLIENT, SETTINGS))


def test_a_template_adds_to_a_pod_and_changes_it():
    template = {
        "metadata": {"labels": {"team": "a"}, "annotations": {"note": "b"}},
        "spec": {
            "nodeSelector": {"pool": "gpu"},
            "containers": [{"name": "client", "env": [{"name": "EXTRA", "value": "1"}]}, {"name": "sidecar"}],
        },
    }
    pod = build_pod(a_job(group={"template": template}), CLIENT, SETTINGS)
    assert pod["metadata"]["labels"]["team"] == "a"
    assert pod["metadata"]["annotations"] == {"note": "b"}
    assert pod["spec"]["nodeSelector"] == {"pool": "gpu"}
    assert environment(pod)["EXTRA"] == "1"
    assert [container["name"] for container in pod["spec"]["containers"]] == ["client", "sidecar"]
    assert container_of(pod)["image"] == "client:1"


def test_a_template_cannot_take_a_pod_from_its_job():
    template = {
        "metadata": {
            "name": "x",
            "namespace": "kube-system",
            "labels": {"fedjob.dev/job-uid": "y"},
            "ownerReferences": [],
        },
        "spec": {"restartPolicy": "Always"},
    }
    pod = build_pod(a_job(group={"template": template}), CLIENT, SETTINGS)
    assert (pod["metadata"]["name"], pod["metadata"]["namespace"]) == ("mnist-client-1-2", "lab")
    assert pod["metadata"]["labels"]["fedjob.dev/job-uid"] == UID
    assert pod["metadata"]["ownerReferences"][0]["uid"] == UID
    assert pod["spec"]["restartPolicy"] == "Never"


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.text(max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["spec", "metadata", "labels", "containers", "name", "env", "resources", "limits"]),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=15,
)


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(["spec", "metadata"]), json_values))
def test_any_template_yields_the_jobs_own_pod_or_a_value_error(template):
    job = a_job(group={"template": template})
    try:
        pod = build_pod(job, CLIENT, SETTINGS)
    except ValueError:
        return
    assert pod["metadata"]["labels"]["fedjob.dev/job-uid"] == UID
    assert pod["metadata"]["name"] == "mnist-client-1-2"


def test_service_accounts_in_templates_can_be_limited():
    pod = build_pod(a_job(group={"template": {"spec": {"serviceAccountName": "admin"}}}), CLIENT, SETTINGS)
    plain = build_pod(a_job(), CLIENT, SETTINGS)
    limited = PodSettings(client_image="c", aggregator_image="a", service_accounts=frozenset({"trainer"}))
    assert refused_service_account(pod, SETTINGS) is None
    assert refused_service_account(plain, limited) is None
    assert "admin is not one that the operator allows in templates (trainer)" in refused_service_account(pod, limited)


def test_a_volume_outlives_its_job_unless_it_is_to_be_deleted():
    kept = aggregator_claim(a_job())
    assert kept["metadata"]["name"] == "mnist-0c5f3d1e-aggregator-0"
    assert "ownerReferences" not in kept["metadata"]
    storage = {"storage": {"size": "2Gi", "retentionPolicy": {"whenDeleted": "Delete"}, "storageClassName": "fast"}}
    gone = aggregator_claim(a_job(aggregator=storage))
    assert gone["metadata"]["ownerReferences"][0]["uid"] == UID
    assert gone["spec"]["storageClassName"] == "fast"
    assert gone["spec"]["resources"]["requests"]["storage"] == "2Gi"


def test_a_volume_that_is_there_is_used():
    job = a_job(aggregator={"storage": {"claimName": "mine"}})
    assert aggregator_claim(job) is None
    volumes = build_pod(job, AGGREGATOR, SETTINGS)["spec"]["volumes"]
    assert {"name": "data", "persistentVolumeClaim": {"claimName": "mine"}} in volumes


def test_each_client_keeps_its_own_claims():
    claim = {"metadata": {"name": "cache", "labels": {"a": "b"}}, "spec": {"accessModes": ["ReadWriteOnce"]}}
    job = a_job(group={"volumeClaimTemplates": [claim]})
    (made,) = client_claims(job, 1)
    assert made["metadata"]["name"] == "mnist-0c5f3d1e-cache-1"
    assert made["metadata"]["labels"]["a"] == "b"
    assert made["spec"] == {"accessModes": ["ReadWriteOnce"]}
    volumes = build_pod(job, CLIENT, SETTINGS)["spec"]["volumes"]
    assert {"name": "cache", "persistentVolumeClaim": {"claimName": "mnist-0c5f3d1e-cache-1"}} in volumes


def test_the_initial_model_is_read_from_its_volume():
    job = a_job(model={"name": "mlp", "initFrom": {"claim": {"name": "models", "path": "runs/7.safetensors"}}})
    pod = build_pod(job, CLIENT, SETTINGS)
    config = ClientConfig.model_validate_json(environment(pod)["FEDJOB_CONFIG"])
    assert config.model_file == "/init/runs/7.safetensors"
    mounts = container_of(pod)["volumeMounts"]
    assert {"name": "init", "mountPath": "/init", "readOnly": True} in mounts


def test_a_job_made_anew_under_the_same_name_shares_neither_secret_nor_volume_with_the_old_one():
    old = a_job()
    metadata = old.metadata.model_copy(update={"uid": "ffffffff-aaaa-bbbb-cccc-0123456789ab"})
    new = old.model_copy(update={"metadata": metadata})
    for make in (lambda job: token_secret(job, "t"), aggregator_claim):
        assert make(old)["metadata"]["name"] != make(new)["metadata"]["name"]
