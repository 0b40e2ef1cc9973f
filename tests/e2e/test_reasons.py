"""A job says why it waits, within a minute, and goes on when the cause is mended."""

from tests.e2e.jobs import JOB_SECONDS, REASON_SECONDS, digits, is_complete, job_selector, mend
from tests.support.kubectl import Kubectl


def wait_for_reason(kubectl: Kubectl, name: str, reason: str) -> str:
    """Wait until a job shows a reason; return its message."""
    status = kubectl.wait_for_job(name, lambda status: status.get("reason") == reason, reason, REASON_SECONDS)
    return status["message"]


def test_a_bad_image_is_named_and_mended(kubectl, loaded_images):
    kubectl.apply(digits("image", rounds=2, group={"image": "registry.invalid/nowhere/client:1"}))
    assert "registry.invalid/nowhere/client:1" in wait_for_reason(kubectl, "image", "ImagePullFailed")
    mend(kubectl, "image", {"image": loaded_images["client"]})
    kubectl.wait_for_job("image", is_complete, "Complete", JOB_SECONDS)


def test_a_client_without_enough_memory_is_named_and_mended(kubectl):
    def limited(memory: str) -> dict:
        container = {"name": "client", "resources": {"requests": {"memory": "16Mi"}, "limits": {"memory": memory}}}
        return {"template": {"spec": {"containers": [container]}}, "backoffLimit": 0}

    kubectl.apply(digits("small", rounds=2, clients=2, group={**limited("40Mi"), "backoffLimit": 100}))
    assert "137" in wait_for_reason(kubectl, "small", "OOMKilled")
    mend(kubectl, "small", {"template": limited("1Gi")["template"]})
    kubectl.wait_for_job("small", is_complete, "Complete", JOB_SECONDS)


def test_an_image_without_the_program_is_named(kubectl, loaded_images):
    kubectl.apply(digits("wrong", rounds=2, group={"image": loaded_images["aggregator"], "backoffLimit": 100}))
    kubectl.wait_for_job(
        "wrong",
        lambda status: status.get("reason") == "ContainerCannotRun",
        "ContainerCannotRun",
        REASON_SECONDS,
    )


def test_a_template_that_the_cluster_refuses_is_named_before_anything_is_made(kubectl):
    template = {"spec": {"containers": [{"name": "client", "securityContext": {"privileged": True}}]}}
    kubectl.apply(digits("bold", rounds=2, group={"template": template}))
    assert "privileged" in wait_for_reason(kubectl, "bold", "InvalidPodTemplate")
    assert not kubectl.names("pods", job_selector("bold"))


def test_a_volume_that_cannot_be_mounted_is_named_and_mended(kubectl):
    volume = {"name": "sites", "configMap": {"name": "sites"}}
    container = {"name": "client", "volumeMounts": [{"name": "sites", "mountPath": "/sites"}]}
    template = {"spec": {"volumes": [volume], "containers": [container]}}
    kubectl.apply(digits("mount", rounds=2, group={"template": template}))
    assert 'configmap "sites" not found' in wait_for_reason(kubectl, "mount", "VolumeMountFailed")
    kubectl.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "sites"}, "data": {"a": "1"}})
    # The kubelet tries again later and later, up to two minutes.
    kubectl.wait_for_job("mount", is_complete, "Complete", JOB_SECONDS + 120)


def test_a_quota_is_named_and_mended(kubectl):
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "pods"}, "spec": {"hard": {"pods": "2"}}}
    kubectl.apply(quota)
    kubectl.apply(digits("many", rounds=2, clients=3, evaluation={"modes": []}, objective=None))
    assert "quota" in wait_for_reason(kubectl, "many", "QuotaExceeded")
    kubectl("delete", "resourcequota", "pods")
    kubectl.wait_for_job("many", is_complete, "Complete", JOB_SECONDS)
