"""A second scheduler beside the cluster's own: the same program under another name."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from tests.support.kubectl import Kubectl

NAME: Final = "fedjob-second-scheduler"
SYSTEM: Final = "kube-system"


@contextmanager
def second_scheduler() -> Iterator[str]:
    """Run it; its name is what pods have as their ``schedulerName``."""
    kubectl = Kubectl(SYSTEM)
    (own,) = kubectl.list("pods", "component=kube-scheduler")
    image = own["spec"]["containers"][0]["image"]
    try:
        for document in (*_rights(), _configuration(), _deployment(image)):
            kubectl.apply(document)
        kubectl("rollout", "status", f"deployment/{NAME}", "--timeout=90s")
        yield NAME
    finally:
        for kind in ("deployment", "configmap", "clusterrolebinding", "serviceaccount"):
            kubectl("delete", kind, "-l", f"app={NAME}", "--wait=false")


def _meta(name: str = NAME) -> dict[str, Any]:
    return {"name": name, "namespace": SYSTEM, "labels": {"app": NAME}}


def _rights() -> list[dict[str, Any]]:
    rbac = "rbac.authorization.k8s.io"
    bindings = [
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": f"{NAME}-{role.rpartition(':')[2]}", "labels": {"app": NAME}},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": SYSTEM}],
        }
        for role in ("system:kube-scheduler", "system:volume-scheduler")
    ]
    return [{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _meta()}, *bindings]


def _configuration() -> dict[str, Any]:
    configuration = {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "leaderElection": {"leaderElect": False},
        "profiles": [{"schedulerName": NAME}],
    }
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _meta(),
        "data": {"scheduler.yaml": json.dumps(configuration)},
    }


def _deployment(image: str) -> dict[str, Any]:
    flags = ["--config=/etc/scheduler/scheduler.yaml", "--authentication-skip-lookup=true", "--cert-dir=/tmp"]
    container = {
        "name": "scheduler",
        "image": image,
        "imagePullPolicy": "Never",
        "command": ["kube-scheduler", *flags],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": 10259, "scheme": "HTTPS"}, "periodSeconds": 1},
        "volumeMounts": [{"name": "configuration", "mountPath": "/etc/scheduler"}],
    }
    pod = {
        "metadata": {"labels": {"app": NAME}},
        "spec": {
            "serviceAccountName": NAME,
            "tolerations": [{"operator": "Exists"}],
            "containers": [container],
            "volumes": [{"name": "configuration", "configMap": {"name": NAME}}],
        },
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _meta(),
        "spec": {"selector": {"matchLabels": {"app": NAME}}, "template": pod},
    }
