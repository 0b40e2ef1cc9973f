"""Pods as the API server holds them, in the moments of their lives."""

from fedjob_operator.core.observed import PodRole

JOB_UID = "11112222-3333-4444-5555-666677778888"
POD_UID = "aaaabbbb-cccc-dddd-eeee-ffff00001111"
CREATED = "2026-01-01T00:00:00Z"
SCHEDULED = "2026-01-01T00:00:01Z"
READY_AT = "2026-01-01T00:00:04Z"
ENDED = "2026-01-01T00:01:00Z"


def condition(kind, status, **more):
    return {"type": kind, "status": status, "lastProbeTime": None, "lastTransitionTime": SCHEDULED, **more}


def pod(role=PodRole.CLIENT, index=3, ordinal=0, *, job_uid=JOB_UID, uid=POD_UID, job="mnist", gpus=0, **parts):
    """A pod that nobody has looked at yet; parts are laid over metadata, spec and status."""
    container = "aggregator" if role is PodRole.AGGREGATOR else "client"
    limits = {"cpu": "4", "memory": "4Gi"} | ({"nvidia.com/gpu": str(gpus)} if gpus else {})
    document = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{job}-{role}-{index}-{ordinal}",
            "namespace": "lab",
            "uid": uid,
            "resourceVersion": "812",
            "creationTimestamp": CREATED,
            "labels": {
                "app.kubernetes.io/managed-by": "fedjob-operator",
                "fedjob.dev/job": job,
                "fedjob.dev/job-uid": job_uid,
                "fedjob.dev/role": role.value,
                "fedjob.dev/index": str(index),
                "fedjob.dev/ordinal": str(ordinal),
            },
            "ownerReferences": [
                {
                    "apiVersion": "fedjob.dev/v1alpha1",
                    "kind": "FederatedJob",
                    "name": job,
                    "uid": job_uid,
                    "controller": True,
                }
            ],
        },
        "spec": {
            "restartPolicy": "Always" if role is PodRole.AGGREGATOR else "Never",
            "containers": [{"name": container, "image": "fedjob/x:1", "resources": {"limits": limits}}],
        },
        "status": {"phase": "Pending", "qosClass": "Burstable"},
    }
    for part, values in parts.items():
        document[part] = document[part] | values
    return document


def scheduled(role=PodRole.CLIENT, *, state, ready=False, last=None, restarts=0, phase=None, ip="10.244.0.7", **more):
    """A pod with a node, whose program is in a state."""
    name = "aggregator" if role is PodRole.AGGREGATOR else "client"
    running = "running" in state
    status = {
        "phase": phase or ("Running" if running else "Pending"),
        "podIP": ip,
        "podIPs": [{"ip": ip}],
        "hostIP": "172.18.0.2",
        "startTime": SCHEDULED,
        "conditions": [
            condition("PodScheduled", "True"),
            condition("Initialized", "True"),
            condition("Ready", str(ready), lastTransitionTime=READY_AT if ready else SCHEDULED),
            condition("ContainersReady", str(ready)),
        ],
        "containerStatuses": [
            {
                "name": name,
                "image": "fedjob/x:1",
                "imageID": "",
                "ready": ready,
                "started": running,
                "restartCount": restarts,
                "state": state,
                "lastState": last or {},
            }
        ],
    }
    extra = more.pop("status", {})
    spec = {"nodeName": "node-1", **more.pop("spec", {})}
    document = pod(role, status={**status, **extra}, **more)
    document["spec"] |= spec
    return document


RUNNING = {"running": {"startedAt": "2026-01-01T00:00:03Z"}}


def ready(role=PodRole.CLIENT, **more):
    return scheduled(role, state=RUNNING, ready=True, **more)


def waiting(reason, message="", role=PodRole.CLIENT, **more):
    return scheduled(role, state={"waiting": {"reason": reason, "message": message}}, **more)


def terminated(code, reason="Error", message="", role=PodRole.CLIENT, phase="Failed", **more):
    state = {"terminated": ended(code, reason, message)}
    return scheduled(role, state=state, phase=phase, **more)


def ended(code, reason="Error", message=""):
    details = {"exitCode": code, "reason": reason, "startedAt": SCHEDULED, "finishedAt": ENDED, "containerID": "x"}
    return details | ({"message": message} if message else {})


def unscheduled(message):
    conditions = [condition("PodScheduled", "False", reason="Unschedulable", message=message)]
    return pod(status={"phase": "Pending", "conditions": conditions})
