"""The server that the tests of this folder use: it cleans up after owners and namespaces, and knows who may do what."""

import pytest

from tests.support.cluster.apiserver import ApiServer, StartError
from tests.support.runs import wait_until
from tests.unit.controller.api_samples import document


def test_what_a_job_owns_goes_with_it(api_server, namespace):
    jobs = f"/apis/fedjob.dev/v1alpha1/namespaces/{namespace}/federatedjobs"
    job = api_server.request("POST", jobs, document()).ok()
    owner = {"apiVersion": job["apiVersion"], "kind": job["kind"], "name": "job", "uid": job["metadata"]["uid"]}
    secrets = f"/api/v1/namespaces/{namespace}/secrets"
    api_server.request("POST", secrets, {"metadata": {"name": "owned", "ownerReferences": [owner]}}).ok()
    api_server.request("POST", secrets, {"metadata": {"name": "free"}}).ok()
    api_server.request("DELETE", f"{jobs}/job").ok()
    wait_until(lambda: api_server.request("GET", f"{secrets}/owned").status == 404, "the end of the owned Secret")
    assert api_server.request("GET", f"{secrets}/free").status == 200


def test_what_is_in_a_namespace_goes_with_it(api_server, namespace):
    jobs = f"/apis/fedjob.dev/v1alpha1/namespaces/{namespace}/federatedjobs"
    api_server.request("POST", jobs, document()).ok()
    path = f"/api/v1/namespaces/{namespace}"
    api_server.request("DELETE", path).ok()
    wait_until(lambda: api_server.request("GET", path).status == 404, "the end of the namespace")


def test_a_service_account_may_do_what_its_roles_say(api_server, namespace, tmp_path):
    token = api_server.service_account_token(namespace, "reader")
    pods = f"/api/v1/namespaces/{namespace}/pods"
    assert api_server.request("GET", pods, token=token).status == 403
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]
    api_server.request("POST", f"{rbac}/roles", {"metadata": {"name": "reader"}, "rules": rules}).ok()
    binding = {
        "metadata": {"name": "reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
        "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": namespace}],
    }
    api_server.request("POST", f"{rbac}/rolebindings", binding).ok()
    wait_until(lambda: api_server.request("GET", pods, token=token).status == 200, "the right to list pods")
    assert api_server.request("POST", pods, {}, token=token).status == 403

    kubeconfig = api_server.kubeconfig(tmp_path / "reader", token=token, namespace=namespace)
    assert api_server.kubectl("auth", "can-i", "list", "pods", kubeconfig=kubeconfig).stdout == "yes\n"
    assert api_server.kubectl("auth", "can-i", "create", "pods", kubeconfig=kubeconfig).stdout == "no\n"


def test_a_server_that_cannot_start_says_why(tmp_path):
    assets = tmp_path / "assets"
    assets.mkdir()
    for name in ("etcd", "kube-apiserver"):
        (assets / name).write_text("#!/bin/sh\necho no space left >&2\nexit 1\n", encoding="utf-8")
        (assets / name).chmod(0o755)
    (tmp_path / "server").mkdir()
    with pytest.raises(StartError, match="no space left"), ApiServer.start(tmp_path / "server", assets):
        pass
