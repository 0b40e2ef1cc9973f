"""Installing, upgrading and removing the chart on an API server; above all, what becomes of the CRD and the jobs."""

import json
import shutil

import pytest
import yaml

from tests.chart.helm import CHART, RELEASE
from tests.support.cluster.apiserver import JSON
from tests.support.cluster.jobs import a_job
from tests.support.repository import ROOT

CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/federatedjobs.fedjob.dev"
FILE = "files/federatedjobs.fedjob.dev.yaml"
OUTDATED = "WARNING: it is not the one of this version"


@pytest.fixture
def older(tmp_path):
    """The chart as it may have been: its CRD does not know `ttlSecondsAfterFinished`."""
    chart = tmp_path / "older"
    shutil.copytree(CHART, chart)
    crd = yaml.safe_load((chart / FILE).read_text())
    (version,) = crd["spec"]["versions"]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    del spec["properties"]["ttlSecondsAfterFinished"]
    (chart / FILE).write_text(json.dumps(crd))
    return chart


def crd(server):
    answer = server.request("GET", CRD)
    return None if answer.status == 404 else answer.ok()


def knows_ttl(server):
    (version,) = crd(server)["spec"]["versions"]
    return "ttlSecondsAfterFinished" in version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]


def owner(server):
    annotations = crd(server)["metadata"].get("annotations", {})
    return annotations.get("meta.helm.sh/release-namespace"), annotations.get("meta.helm.sh/release-name")


def submit(server, namespace, name):
    established = server.kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd/federatedjobs.fedjob.dev")
    assert established.returncode == 0, established.stderr
    path = f"/apis/fedjob.dev/v1alpha1/namespaces/{namespace}/federatedjobs"
    server.request("POST", path, a_job(name), content_type=JSON).ok()


def jobs(server):
    shown = server.kubectl("get", "federatedjobs", "--all-namespaces", "--output=name")  # waits while the CRD changes
    assert shown.returncode == 0, shown.stderr
    return [line.partition("/")[2] for line in shown.stdout.splitlines()]


def test_the_release_brings_the_crd_and_leaves_it_with_the_jobs(api_server, installing, namespace):
    assert OUTDATED not in installing.install(RELEASE, namespace)
    assert owner(api_server) == (namespace, RELEASE)
    submit(api_server, namespace, "kept")

    installing.uninstall(RELEASE, namespace)
    assert jobs(api_server) == ["kept"]

    installing.install(RELEASE, namespace)
    assert jobs(api_server) == ["kept"]


def test_without_keep_the_crd_goes_with_the_release(api_server, installing, namespace):
    installing.install(RELEASE, namespace, crds__keep=False)
    installing.uninstall(RELEASE, namespace)
    gone = api_server.kubectl("wait", "--for=delete", "--timeout=30s", "crd/federatedjobs.fedjob.dev")
    assert gone.returncode == 0, gone.stderr


def test_an_upgrade_brings_the_crd_up_to_date_and_keeps_the_jobs(api_server, installing, namespace, older):
    installing.install(RELEASE, namespace, chart=older)
    assert not knows_ttl(api_server)
    submit(api_server, namespace, "kept")

    installing.upgrade(RELEASE, namespace)

    assert knows_ttl(api_server)
    assert jobs(api_server) == ["kept"]


def test_a_crd_that_was_applied_by_hand_is_left_as_it_is(api_server, installing, namespace):
    api_server.apply(ROOT / "crds")
    before = crd(api_server)

    notes = installing.install(RELEASE, namespace)

    assert "belongs to no release: it was left as it is" in notes
    assert OUTDATED not in notes
    assert crd(api_server)["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    installing.upgrade(RELEASE, namespace)
    installing.uninstall(RELEASE, namespace)
    assert crd(api_server)["metadata"]["uid"] == before["metadata"]["uid"]


def test_another_release_leaves_the_crd_to_the_first_and_says_whose_it_is(api_server, installing, namespace, older):
    installing.install("first", namespace, chart=older)
    other = f"{namespace}-other"
    api_server.create_namespace(other)

    notes = installing.install("second", other)

    assert f"belongs to release first in namespace {namespace}" in notes
    assert OUTDATED in notes
    assert owner(api_server) == (namespace, "first")
    assert not knows_ttl(api_server)


def test_a_release_takes_the_crd_over_where_it_is_told_to(api_server, installing, namespace, older):
    installing.install("first", namespace, chart=older)
    submit(api_server, namespace, "kept")
    installing.uninstall("first", namespace)
    installing.install("second", namespace)

    installing.upgrade("second", namespace, "--take-ownership", crds__adopt=True)
    assert owner(api_server) == (namespace, "second")
    assert knows_ttl(api_server)
    installing.upgrade("second", namespace)  # its own from now on
    assert knows_ttl(api_server)
    assert jobs(api_server) == ["kept"]


def test_crds_enabled_false_looks_at_no_crd(api_server, installing, namespace):
    notes = installing.install(RELEASE, namespace, crds__enabled=False)
    assert crd(api_server) is None
    assert "kubectl apply -f crds/federatedjobs.fedjob.dev.yaml" in notes


def test_the_manifest_for_people_without_helm_is_applied_as_it_is(api_server, installing):
    for expected in ("created", "unchanged"):
        applied = api_server.kubectl("apply", "-f", ROOT / "dist/install.yaml")
        assert applied.returncode == 0, applied.stderr
        assert applied.stderr == ""
        lines = applied.stdout.splitlines()
        assert [line for line in lines if not line.endswith(expected)] == []
        assert len(lines) > 10
    deleted = api_server.kubectl("delete", "--wait=false", "-f", ROOT / "dist/install.yaml")
    assert deleted.returncode == 0, deleted.stderr


def test_every_field_is_one_that_the_api_server_knows(api_server, helm, namespace, tmp_path):
    rendered = helm.template(
        namespace=namespace,
        watchNamespaces=[namespace],
        operator__imagePullSecrets=["x"],
        operator__priorityClassName="high",
        operator__nodeSelector={"a": "b"},
        operator__tolerations=[{"key": "a", "operator": "Exists"}],
        operator__extraEnv=[{"name": "A", "value": "b"}],
        operator__podAnnotations={"a": "b"},
        serviceAccount__annotations={"a": "b"},
    )
    documents = [document for document in rendered.documents if document["metadata"]["name"] != "high"]
    file = tmp_path / "all.json"
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": documents}))
    pod_admission = api_server.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    assert pod_admission.returncode == 0, pod_admission.stderr
    tried = api_server.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", file)
    assert "PodSecurity" not in tried.stderr
    assert [line for line in tried.stderr.splitlines() if "PriorityClass" not in line] == []


def test_the_pods_are_let_into_a_restricted_namespace(api_server, helm, namespace):
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    api_server.create_namespace(f"{namespace}-restricted", labels)
    rendered = helm.template()
    specs = [rendered.one("Deployment")["spec"]["template"]["spec"], rendered.one("Pod")["spec"]]
    for spec in specs:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "tried"}, "spec": spec}
        answer = api_server.request("POST", f"/api/v1/namespaces/{namespace}-restricted/pods?dryRun=All", pod)
        assert answer.status == 201, answer.message
