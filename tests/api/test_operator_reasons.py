"""A job says why it waits or failed, in the cluster's own words, and goes on when the cause is mended.

Each reason that Kubernetes adds is provoked here once; `test_each_reason_is_provoked` keeps the list.
"""

import re
from pathlib import Path

import pytest

from fedjob_protocol.reasons import Reason
from tests.support.cluster.cluster import OWNED, eventually
from tests.support.cluster.jobs import a_job, a_steered_job, steered_template
from tests.support.cluster.steered import hold_file

PROVOKED = {
    Reason.UNSCHEDULABLE,
    Reason.GPU_UNAVAILABLE,
    Reason.QUOTA_EXCEEDED,
    Reason.IMAGE_PULL_FAILED,
    Reason.CONTAINER_CANNOT_RUN,
    Reason.VOLUME_UNAVAILABLE,
    Reason.VOLUME_MOUNT_FAILED,
    Reason.POD_REFUSED,
    Reason.INVALID_POD_TEMPLATE,
    Reason.OOM_KILLED,
    Reason.EVICTED,
    Reason.CRASHED,
    Reason.TRAINER_ERROR,
    Reason.DATA_ERROR,
    Reason.FOREIGN_VOLUME,
    Reason.STARTUP_DEADLINE_EXCEEDED,
    Reason.PROTOCOL_MISMATCH,
}


@pytest.mark.parametrize("reason", sorted(PROVOKED))
def test_each_reason_is_provoked(reason):
    assert re.search(rf'["(]{reason}["):]', Path(__file__).read_text(encoding="utf-8"))


def in_template(**spec):
    """A group whose pods are given something."""
    return {"template": {"spec": spec}}


def in_container(**fields):
    """A group whose containers are given something."""
    return in_template(containers=[{"name": "client", **fields}])


def until(cluster, namespace, reason, name="j"):
    """Wait until the job's own reason is this one; return its message."""
    what = f"reason {reason}"

    def look():
        status = cluster.status(namespace, name)
        return status.get("message") if status.get("reason") == reason else None

    try:
        return eventually(look, what)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{cluster.describe(namespace, name)}") from None


def test_pods_that_no_node_takes(cluster, home):
    cluster.submit(home, a_job("j", group=in_template(nodeSelector={"disk": "fast"})))
    assert "didn't match Pod's node affinity/selector" in until(cluster, home, "Unschedulable")
    cluster.mend(home, "j", template=None)
    cluster.until_phase(home, "j", "Complete")


def test_gpus_that_no_node_has(cluster, home):
    cluster.set_gpus(1)
    cluster.submit(home, a_job("j", clients=1, group={"gpus": 2}))
    assert "Insufficient nvidia.com/gpu" in until(cluster, home, "GpuUnavailable")
    assert cluster.status(home, "j")["gpus"] == {"requested": 2, "held": 0, "waiting": 2}
    cluster.set_gpus(2)
    cluster.until_phase(home, "j", "Complete")


def test_a_group_on_gpus_that_computes_on_the_cpu_says_so(cluster, home, folder):
    cluster.set_gpus(2)
    hold_file(folder, 1).touch()
    group = {**steered_group(folder), "gpus": 1}
    cluster.submit(home, a_steered_job("j", folder, group=group))
    cluster.until_reason(home, "j", "GpuUnavailable")


def steered_group(folder):
    return {"template": steered_template(folder)}


def test_a_quota_that_is_used_up(cluster, home):
    quota = {"kind": "ResourceQuota", "apiVersion": "v1", "metadata": {"name": "q"}, "spec": {"hard": {"pods": "1"}}}
    cluster.api.create("resourcequotas", home, quota)
    # What the quota controller, which does not run here, would write.
    cluster.api.patch("resourcequotas", home, "q", {"status": {"hard": {"pods": "1"}, "used": {"pods": "0"}}}, "status")
    cluster.submit(home, a_job("j"))
    assert "exceeded quota: q" in until(cluster, home, "QuotaExceeded")
    cluster.api.delete("resourcequotas", home, "q")
    cluster.until_phase(home, "j", "Complete")


def test_an_image_that_cannot_be_pulled(cluster, home):
    cluster.submit(home, a_job("j", group={"image": "missing/client:1"}))
    assert "missing/client:1" in until(cluster, home, "ImagePullFailed")
    cluster.mend(home, "j", image="fedjob/client:test")
    cluster.until_phase(home, "j", "Complete")


def test_an_image_without_the_program(cluster, home):
    cluster.submit(home, a_job("j", group={"image": "wrong/client:1", "backoffLimit": 100}))
    assert "executable file not found" in until(cluster, home, "ContainerCannotRun")
    cluster.mend(home, "j", image="fedjob/client:test")
    cluster.until_phase(home, "j", "Complete")


def test_a_volume_that_is_not_there(cluster, home):
    volume = {"name": "d", "persistentVolumeClaim": {"claimName": "records"}}
    cluster.submit(home, a_job("j", group=in_template(volumes=[volume])))
    assert '"records" not found' in until(cluster, home, "VolumeUnavailable")
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    claim = {"kind": "PersistentVolumeClaim", "apiVersion": "v1", "metadata": {"name": "records"}, "spec": spec}
    cluster.api.create("persistentvolumeclaims", home, claim)
    cluster.until_phase(home, "j", "Complete")


@pytest.mark.parametrize(
    ("kind", "source"),
    [("configmaps", {"configMap": {"name": "sites"}}), ("secrets", {"secret": {"secretName": "sites"}})],
)
def test_a_volume_that_the_node_cannot_mount(cluster, home, kind, source):
    """Nothing of it is in the pod's status: only the kubelet's Event tells."""
    cluster.submit(home, a_job("j", group=in_template(volumes=[{"name": "s", **source}])))
    message = until(cluster, home, "VolumeMountFailed")
    word = kind.removesuffix("s")
    assert f'FailedMount: MountVolume.SetUp failed for volume "s" : {word} "sites" not found' in message
    cluster.api.create(kind, home, {"kind": KINDS[kind], "apiVersion": "v1", "metadata": {"name": "sites"}})
    cluster.until_phase(home, "j", "Complete")


KINDS = {"configmaps": "ConfigMap", "secrets": "Secret"}


def test_a_pod_that_is_refused_after_the_job_was_accepted(cluster, home, folder):
    hold_file(folder, 1).touch()
    template = steered_template(folder)
    template["spec"]["hostNetwork"] = True
    cluster.submit(home, a_steered_job("j", folder, group={"template": template}))
    cluster.until_committed(home, "j", 0)

    cluster.api.patch("namespaces", None, home, {"metadata": {"labels": RESTRICTED}})
    cluster.crash((home, "j-client-0-0"))

    assert "violates PodSecurity" in until(cluster, home, "PodRefused")
    cluster.api.patch("namespaces", None, home, {"metadata": {"labels": dict.fromkeys(RESTRICTED)}})
    hold_file(folder, 1).unlink()
    cluster.until_phase(home, "j", "Complete")


RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


def test_a_job_runs_in_a_restricted_namespace(cluster, home):
    cluster.api.patch("namespaces", None, home, {"metadata": {"labels": RESTRICTED}})
    cluster.submit(home, a_job("j", evaluation={"modes": ["Evaluator"]}))
    cluster.until_phase(home, "j", "Complete")


def test_a_template_that_the_api_server_would_refuse(cluster, home):
    cluster.submit(home, a_job("j", group=in_container(ports=[{"containerPort": 99999}])))
    message = until(cluster, home, "InvalidPodTemplate")
    assert "spec.clientGroups[0].template" in message
    assert "containerPort" in message
    assert cluster.leftovers(home, [*OWNED, "persistentvolumeclaims"]) == []
    cluster.mend(home, "j", template=None)
    cluster.until_phase(home, "j", "Complete")


def test_a_template_with_a_misspelt_field(cluster, home):
    cluster.submit(home, a_job("j", group=in_template(nodeSelectr={"disk": "fast"})))
    assert 'unknown field "spec.nodeSelectr"' in until(cluster, home, "InvalidPodTemplate")
    cluster.mend(home, "j", template=None)
    cluster.until_phase(home, "j", "Complete")


def test_gpus_beside_a_template_that_asks_for_others(cluster, home):
    group = in_container(resources={"limits": {"nvidia.com/mig-1g.5gb": 1}})
    cluster.submit(home, a_job("j", group={"gpus": 1, **group}))
    message = until(cluster, home, "InvalidPodTemplate")
    assert "spec.clientGroups[0].template: it sets nvidia.com/mig-1g.5gb: 1, and gpus is 1" in message
    assert cluster.leftovers(home, ["pods"]) == []


def test_a_client_that_needs_too_much_memory(cluster, home, folder):
    hold_file(folder, 1).touch()
    job = a_steered_job("j", folder, group={"backoffLimit": 0})
    cluster.submit(home, job)
    cluster.until_committed(home, "j", 0)

    cluster.run_out_of_memory((home, "j-client-0-0"))

    cluster.until_reason(home, "j", "OOMKilled")
    assert "137" in str(cluster.status(home, "j")["conditions"])


def test_a_client_that_is_evicted_is_replaced(cluster, home, folder):
    hold_file(folder, 1).touch()
    template = steered_template(folder) | {"metadata": {"annotations": {"kubelet.test/start-delay": "1.5"}}}
    cluster.submit(home, a_steered_job("j", folder, group={"template": template}))
    cluster.until_committed(home, "j", 0)

    cluster.evict((home, "j-client-0-0"), "The node was low on resource: memory.")

    cluster.until_reason(home, "j", "Evicted")
    hold_file(folder, 1).unlink()
    cluster.until_phase(home, "j", "Complete")
    assert "j-client-0-1" in str(cluster.events(home)) or cluster.status(home, "j")["clients"]["lost"] == 0


def test_a_client_that_crashes_too_often(cluster, home, folder):
    hold_file(folder, 1).touch()
    cluster.submit(home, a_steered_job("j", folder, group={"backoffLimit": 0}))
    cluster.until_committed(home, "j", 0)

    cluster.crash((home, "j-client-1-0"))

    def says_so():
        return "Crashed: killed by SIGKILL" in str(cluster.status(home, "j")["conditions"])

    eventually(says_so, "the client's end in a condition")
    assert cluster.status(home, "j")["clients"]["lostIndices"] == [1]


def test_a_trainer_that_raises(cluster, home, folder):
    group = {"backoffLimit": 0}
    parameters = {"fail": "everywhere"}
    template = steered_template(folder)
    template["spec"]["containers"][0]["env"].append({"name": "PYTHONPATH", "value": "/nowhere"})
    cluster.submit(home, a_steered_job("j", folder, parameters=parameters, group={**group, "template": template}))

    cluster.until_phase(home, "j", "Failed")

    message = until(cluster, home, "TrainerError")
    assert "there is no module tests" in message


def test_data_that_are_not_there(cluster, home):
    data = {"name": "npz", "path": "/no/such/data.npz"}
    cluster.submit(home, a_job("j", data=data, group={"backoffLimit": 0}))
    assert "/no/such/data.npz" in until(cluster, home, "DataError")


def test_the_volume_of_another_job(cluster, home):
    cluster.submit(home, a_job("first", rounds=1))
    cluster.until_phase(home, "first", "Complete")
    (claim,) = cluster.api.list("persistentvolumeclaims", home)
    cluster.delete(home, "first")
    eventually(lambda: not cluster.pods(home, "first"), "the end of the first job's pods")

    name = claim["metadata"]["name"]
    cluster.submit(home, a_job("j", aggregator={"storage": {"claimName": name}}))

    cluster.until_phase(home, "j", "Failed")
    assert claim["metadata"]["labels"]["fedjob.dev/job-uid"] in until(cluster, home, "ForeignVolume")
    assert cluster.committed(home, "j") == -1


def test_a_job_that_does_not_start_releases_its_pods(cluster, home):
    cluster.submit(home, a_job("j", startupDeadlineSeconds=3, group={"image": "missing/client:1"}))
    cluster.until_reason(home, "j", "StartupDeadlineExceeded")
    assert "not started within 3 s" in cluster.condition(home, "j", "Progressing")["message"]
    eventually(lambda: not cluster.pods(home, "j"), "the release of all pods")


def test_a_client_of_another_release(cluster, home, tmp_path):
    code = "import fedjob_protocol.version as v; v.PROTOCOL_VERSION += 7"
    (tmp_path / "sitecustomize.py").write_text(code, encoding="utf-8")
    cluster.submit(home, a_job("j", group=in_container(env=[{"name": "PYTHONPATH", "value": str(tmp_path)}])))
    until(cluster, home, "ProtocolMismatch")
    cluster.mend(home, "j", template=None)
    cluster.until_phase(home, "j", "Complete")
