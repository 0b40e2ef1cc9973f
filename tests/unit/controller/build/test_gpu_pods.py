"""GPUs of pods: resource names of any kind, devices that are claimed, and where such pods may go."""

import pytest

from fedjob_operator.build.pods import build_pod
from fedjob_operator.core.devices import gpus_of, is_gpu, names_gpu
from tests.unit.controller.build.test_pods import AGGREGATOR, CLIENT, EVALUATOR, SETTINGS, a_job, container_of
from tests.unit.controller.build.test_pods import environment as variables


def asking(**resources):
    return {"spec": {"containers": [{"name": "client", "resources": resources}]}}


@pytest.mark.parametrize("action", [CLIENT, EVALUATOR])
def test_limits_and_requests_are_equal(action):
    job = a_job(group={"gpus": 2}, evaluation={"modes": ["Evaluator"], "gpus": 2})
    resources = container_of(build_pod(job, action, SETTINGS))["resources"]
    assert (resources["limits"]["nvidia.com/gpu"], resources["requests"]["nvidia.com/gpu"]) == ("2", "2")


@pytest.mark.parametrize(
    "name", ["nvidia.com/mig-1g.5gb", "nvidia.com/gpu.shared", "amd.com/gpu", "gpu.intel.com/i915"]
)
def test_slices_shares_and_other_vendors_are_named_in_the_template(name):
    pod = build_pod(a_job(group={"template": asking(limits={name: 1})}), CLIENT, SETTINGS)
    assert container_of(pod)["resources"]["limits"][name] == 1
    assert "NVIDIA_VISIBLE_DEVICES" not in variables(pod)
    assert gpus_of(pod) == 1


def test_a_claim_of_a_device_is_passed_on_and_nothing_is_hidden_from_it():
    template = asking(claims=[{"name": "gpu"}])
    template["spec"]["resourceClaims"] = [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}]
    pod = build_pod(a_job(group={"template": template}), CLIENT, SETTINGS)
    assert pod["spec"]["resourceClaims"] == template["spec"]["resourceClaims"]
    assert "NVIDIA_VISIBLE_DEVICES" not in variables(pod)


@pytest.mark.parametrize("action", [AGGREGATOR, CLIENT, EVALUATOR])
def test_who_asks_for_none_sees_none(action):
    assert (
        variables(build_pod(a_job(evaluation={"modes": ["Evaluator"]}), action, SETTINGS))["NVIDIA_VISIBLE_DEVICES"]
        == "void"
    )


def test_where_pods_go_is_the_templates_to_say():
    where = {
        "nodeSelector": {"nvidia.com/gpu.product": "A100"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "runtimeClassName": "nvidia",
        "priorityClassName": "batch",
        "schedulerName": "volcano",
    }
    pod = build_pod(a_job(group={"gpus": 1, "template": {"spec": where}}), CLIENT, SETTINGS)
    assert {key: pod["spec"][key] for key in where} == where


@pytest.mark.parametrize(
    "resources",
    [
        {"limits": {"nvidia.com/gpu": 2}},
        {"requests": {"nvidia.com/gpu": "2"}},
        {"limits": {"nvidia.com/mig-1g.5gb": 1}},
        {"limits": {"nvidia.com/gpu": "1", "amd.com/gpu": "1"}},
    ],
)
def test_gpus_beside_a_template_that_asks_for_others_are_refused(resources):
    with pytest.raises(ValueError, match=r"it sets \S+: \d, and gpus is 1: leave one of the two out"):
        build_pod(a_job(group={"gpus": 1, "template": asking(**resources)}), CLIENT, SETTINGS)


def test_the_same_said_twice_is_fine():
    template = asking(limits={"nvidia.com/gpu": 1, "example.com/nic": 2})
    pod = build_pod(a_job(group={"gpus": 1, "template": template}), CLIENT, SETTINGS)
    assert str(container_of(pod)["resources"]["limits"]["nvidia.com/gpu"]) == "1"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nvidia.com/gpu", True),
        ("nvidia.com/mig-3g.20gb", True),
        ("amd.com/gpu", True),
        ("gpu.intel.com/xe", True),
        ("cpu", False),
        ("gpu", False),
        ("example.com/nic", False),
        ("example.com/gputer", False),
        ("nvidia.com/", False),
        ("", False),
    ],
)
def test_which_resources_are_gpus(name, expected):
    assert is_gpu(name) == expected


def test_a_gpu_is_found_in_what_a_kubelet_says():
    assert names_gpu("Allocate failed due to no healthy devices present; cannot allocate nvidia.com/gpu, which is bad")
    assert not names_gpu("cannot allocate example.com/nic")


@pytest.mark.parametrize(
    "pod",
    [None, 7, [], {}, {"spec": 7}, {"spec": {"containers": 7}}, {"spec": {"containers": [7, {"resources": []}]}}]
    + [asking(limits={"nvidia.com/gpu": value}) for value in ("x", -1, "1.5", None, "9" * 40)],
)
def test_what_is_no_number_of_gpus_counts_as_none(pod):
    assert gpus_of(pod) == 0
