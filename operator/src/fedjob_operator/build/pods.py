"""The pods of a job as plain documents: what the job says, laid over what the operator gives every pod."""

from collections.abc import Mapping
from typing import Any, Final

from fedjob_operator.api.v1alpha1 import ClientGroup, FederatedJob, Images
from fedjob_operator.build.config import client_config
from fedjob_operator.build.external import external_groups, outside_groups
from fedjob_operator.build.merge import merged
from fedjob_operator.build.names import (
    AGGREGATOR_CONTAINER,
    CLIENT_CONTAINER,
    JOB_UID_LABEL,
    ROLE_LABEL,
    TOKEN_KEY,
    claim_name,
    client_claim_name,
    owner,
    pod_labels,
    secret_name,
)
from fedjob_operator.build.queues import queue_annotations, queue_environment, queue_labels
from fedjob_operator.build.settings import PodSettings
from fedjob_operator.build.storage import Document, template_name
from fedjob_operator.core.actions import CreatePod
from fedjob_operator.core.devices import GPU_RESOURCE, gpu_limits
from fedjob_operator.core.layout import group_of, pod_name
from fedjob_operator.core.leadership import replica_name
from fedjob_operator.core.observed import PodRole
from fedjob_protocol.config import CONFIG_VARIABLE, TERMINATION_LOG_VARIABLE, TOKEN_VARIABLE, ClientConfig
from fedjob_protocol.registration import EXTERNAL_GROUPS_VARIABLE, registration_variable
from fedjob_protocol.routes import AGGREGATOR_PORT, CLIENT_PORT, HEALTH_PATH, METRICS_PORT, READY_PATH

USER: Final = 10001
"""User and group of our images."""
DATA_FOLDER: Final = "/data"
"""Where the aggregator's volume is mounted."""
INIT_FOLDER: Final = "/init"
"""Where the volume with the initial model is mounted."""
STATE_FOLDER: Final = "/home/fedjob/state"
"""For layers that stay at a client. Its volume lives as long as the pod; for longer a template names another folder in
``FEDJOB_STATE_DIR``, on a volume of ``volumeClaimTemplates``."""
TERMINATION_LOG: Final = "/dev/termination-log"
GRACE_SECONDS: Final = 5
"""Between SIGTERM and SIGKILL; whatever counts is durable before."""
VISIBLE_GPUS: Final = "NVIDIA_VISIBLE_DEVICES"
THREADS: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
"""One thread each unless a template says otherwise: results are promised for a fixed number of threads."""


def build_pod(job: FederatedJob, action: CreatePod, settings: PodSettings) -> Document:
    """Return the pod that an action asks for.

    Args:
        job: An accepted job: its layout is fixed.
        action: Role, index and ordinal.
        settings: What every pod gets.

    Raises:
        ValueError: The spec holds what no client can be told, or a template is no PodTemplateSpec at all.
    """
    if action.role is PodRole.AGGREGATOR:
        body, template = _aggregator(job, action.index, settings), job.spec.aggregator.template
    else:
        body, template = _client(job, action, settings), _client_template(job, action)
        _check_gpus(_gpus(job, action), template or {})
    return _finished(job, action, merged(body, template or {}))


def _finished(job: FederatedJob, action: CreatePod, pod: Document) -> Document:
    """Put back what a template may not change: identity, ownership, and what the operator's reading depends on."""
    place = (action.role, action.index, action.ordinal)
    given = pod.get("metadata")
    metadata: Document = given if isinstance(given, dict) else {}
    spec = _mapping(pod.get("spec"), "template.spec")
    if action.role is not PodRole.AGGREGATOR:
        # The operator replaces it, counts its pods and says why each ended.
        spec["restartPolicy"] = "Never"
    else:
        # It serves the model for as long as the job is there, whether or not an operator is.
        spec["restartPolicy"] = "Always"
    _hide_gpus(_main_container(spec, action.role))
    kept = {key: metadata[key] for key in ("annotations", "finalizers") if metadata.get(key)}
    if queued := queue_annotations(job, action):
        kept["annotations"] = {**queued, **_mapping(kept.get("annotations", {}), "template.metadata.annotations")}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            **kept,
            "name": pod_name(job.metadata.name, *place),
            "namespace": job.metadata.namespace,
            "labels": {**queue_labels(job, action), **_labels(metadata), **pod_labels(job, *place)},
            "ownerReferences": [owner(job)],
        },
        "spec": spec,
    }


def server_pod(job: FederatedJob, config: ClientConfig, settings: PodSettings) -> Document:
    """Return the template of the servers of the job's model, with the evaluator's template laid over it.

    Raises:
        ValueError: As `build_pod`.
    """
    group = _group(job, 0)
    image = group.image or _pinned(job).client or settings.client_image
    container = _client_container(job, config, image, settings.client_resources, settings)
    pod = merged({"spec": _pod_spec(container, [], settings)}, job.spec.evaluation.template or {})
    spec = _mapping(pod.get("spec"), "template.spec")
    spec["restartPolicy"] = "Always"  # a Deployment takes no other
    _hide_gpus(_main_container(spec, PodRole.EVALUATOR))
    given = pod.get("metadata")
    metadata: Document = given if isinstance(given, dict) else {}
    annotations = {"annotations": metadata["annotations"]} if metadata.get("annotations") else {}
    return {"metadata": {"labels": _labels(metadata), **annotations}, "spec": spec}


def refused_service_account(pod: Document, settings: PodSettings) -> str | None:
    """Say why a pod may not run under the ServiceAccount that its template names; ``None`` if it may."""
    names = {str(pod["spec"].get(key)) for key in ("serviceAccountName", "serviceAccount") if pod["spec"].get(key)}
    if settings.service_accounts is None or names <= settings.service_accounts:
        return None
    allowed = ", ".join(sorted(settings.service_accounts)) or "none"
    return (
        f"serviceAccountName: {', '.join(sorted(names - settings.service_accounts))} is not one that the operator "
        f"allows in templates ({allowed}); the chart's value jobs.serviceAccounts lists them"
    )


def _mapping(value: object, what: str) -> Document:
    if not isinstance(value, dict):
        raise ValueError(f"{what} is {type(value).__name__}, not an object")  # noqa: TRY004 - bad input, no bug
    return value


def _main_container(spec: Document, role: PodRole) -> Document:
    """The container of our program, after a template was laid over it."""
    name = AGGREGATOR_CONTAINER if role is PodRole.AGGREGATOR else CLIENT_CONTAINER
    containers = spec.get("containers")
    if isinstance(containers, list):
        for container in containers:
            if isinstance(container, dict) and container.get("name") == name:
                return container
    raise ValueError(f"template.spec.containers: the container {name} is gone; merge into it, do not replace the list")


def _hide_gpus(container: Document) -> None:
    """Hide a node's GPUs from a container that asks for none.

    With NVIDIA's runtime as the node's default it would otherwise see all of them. What asks for a device of any kind,
    or says itself what it wants to see, is left alone.
    """
    resources = _mapping(container.get("resources", {}), "template.spec.containers.resources")
    asked = [
        name
        for kind in ("limits", "requests")
        for name in _mapping(resources.get(kind, {}), f"template.spec.containers.resources.{kind}")
    ]
    variables = container.get("env", [])
    if not isinstance(variables, list):
        raise ValueError(f"template.spec.containers.env is {type(variables).__name__}, not a list")  # noqa: TRY004
    says_itself = any(isinstance(item, dict) and item.get("name") == VISIBLE_GPUS for item in variables)
    if not says_itself and not resources.get("claims") and not any("/" in name for name in asked):
        container["env"] = [*variables, {"name": VISIBLE_GPUS, "value": "void"}]


def _pinned(job: FederatedJob) -> Images:
    return job.status.images or Images()


def _labels(metadata: Mapping[str, Any]) -> dict[str, Any]:
    labels = metadata.get("labels")
    return labels if isinstance(labels, dict) else {}


def _group(job: FederatedJob, index: int) -> ClientGroup:
    name = group_of(job.status.layout, index)
    return next(group for group in job.spec.client_groups if group.name == name)


def _client_template(job: FederatedJob, action: CreatePod) -> Mapping[str, Any] | None:
    if action.role is PodRole.EVALUATOR:
        return job.spec.evaluation.template
    return _group(job, action.index).template


def _client(job: FederatedJob, action: CreatePod, settings: PodSettings) -> Document:
    is_evaluator = action.role is PodRole.EVALUATOR
    group = _group(job, action.index)  # an evaluator has index 0 and runs the trainer, and so the image, of that group
    origin = job.spec.model.init_from
    claim = origin.claim if origin else None
    config = client_config(
        job,
        role=action.role,
        index=action.index,
        model_file=f"{INIT_FOLDER}/{claim.path.lstrip('/')}" if claim else None,
    )
    image = group.image or _pinned(job).client or settings.client_image
    container = _client_container(
        job, config, image, _with_gpus(settings.client_resources, _gpus(job, action)), settings
    )
    container["env"] += [{"name": name, "value": value} for name, value in queue_environment(job, action).items()]
    volumes = [] if is_evaluator else _claimed(job, group, action.index)
    if claim:
        container["volumeMounts"].append({"name": "init", "mountPath": INIT_FOLDER, "readOnly": True})
        volumes.append({"name": "init", "persistentVolumeClaim": {"claimName": claim.name, "readOnly": True}})
    return {"spec": _pod_spec(container, volumes, settings)}


def _client_container(
    job: FederatedJob, config: ClientConfig, image: str, resources: Mapping[str, Any], settings: PodSettings
) -> Document:
    container = _container(
        job,
        name=CLIENT_CONTAINER,
        image=image,
        port=CLIENT_PORT,
        resources=resources,
        environment={
            CONFIG_VARIABLE: config.model_dump_json(by_alias=True, exclude_none=True),
            "FEDJOB_CLIENT_INDEX": str(config.index),
            "FEDJOB_CLIENT_NAME": config.name,
            "FEDJOB_CLIENT_GROUP": config.group,
            "FEDJOB_STATE_DIR": STATE_FOLDER,
        },
        settings=settings,
    )
    # No liveness probe: a trainer may keep the interpreter to itself for minutes; a hung client is the business of the
    # round's deadline. For the same reason one that was ready stays so for a while without an answer.
    container["readinessProbe"] = _probe(READY_PATH, failureThreshold=60)
    return container


def _claimed(job: FederatedJob, group: ClientGroup, index: int) -> list[Document]:
    names = [template_name(template, position) for position, template in enumerate(group.volume_claim_templates)]
    return [
        {"name": name, "persistentVolumeClaim": {"claimName": client_claim_name(job, name, index)}} for name in names
    ]


def _aggregator(job: FederatedJob, index: int, settings: PodSettings) -> Document:
    environment = {"FEDJOB_DIR": DATA_FOLDER, "FEDJOB_JOB_UID": job.metadata.uid}
    has_standbys = job.spec.aggregator.replicas > 1
    if has_standbys:
        environment["FEDJOB_REPLICA"] = replica_name(index)
    outside = external_groups(job)
    if outside is not None:
        environment[EXTERNAL_GROUPS_VARIABLE] = outside.model_dump_json(by_alias=True)
    container = _container(
        job,
        name=AGGREGATOR_CONTAINER,
        image=_pinned(job).aggregator or settings.aggregator_image,
        port=AGGREGATOR_PORT,
        resources=settings.aggregator_resources,
        environment=environment,
        settings=settings,
    )
    container["env"] += _shown_to_register(job)
    # Large checkpoints are verified before it serves; the other two probes begin after that.
    container["startupProbe"] = _probe(HEALTH_PATH, failureThreshold=3600)
    container["readinessProbe"] = _probe(READY_PATH, failureThreshold=10)
    container["livenessProbe"] = _probe(HEALTH_PATH, periodSeconds=10, failureThreshold=12)
    container["volumeMounts"].append({"name": "data", "mountPath": DATA_FOLDER})
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": claim_name(job, index)}}
    spec = _pod_spec(container, [volume], settings)
    if has_standbys:
        spec["affinity"] = _apart(job)
    return {"spec": spec}


def _shown_to_register(job: FederatedJob) -> list[Document]:
    """What clients of each group show to register: out of the user's Secret, else the job's own token.

    Only the kubelet reads a Secret that a user names.
    """
    named = [group.external.token_secret_ref for group in outside_groups(job) if group.external is not None]
    references = [{"name": item.name if item else secret_name(job), "key": TOKEN_KEY} for item in named]
    return [
        {"name": registration_variable(position), "valueFrom": {"secretKeyRef": reference}}
        for position, reference in enumerate(references)
    ]


def _apart(job: FederatedJob) -> Document:
    """Keep the aggregators of a job on different nodes where there are enough."""
    labels = {JOB_UID_LABEL: job.metadata.uid, ROLE_LABEL: PodRole.AGGREGATOR.value}
    term = {"labelSelector": {"matchLabels": labels}, "topologyKey": "kubernetes.io/hostname"}
    preferred = [{"weight": 100, "podAffinityTerm": term}]
    return {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}


def _container(
    job: FederatedJob,
    *,
    name: str,
    image: str,
    port: int,
    resources: Mapping[str, Any],
    environment: Mapping[str, str],
    settings: PodSettings,
) -> Document:
    variables = {
        "FEDJOB_HOST": "0.0.0.0",  # noqa: S104 - a pod of its own
        "FEDJOB_PORT": str(port),
        "FEDJOB_METRICS_PORT": str(METRICS_PORT),
        TERMINATION_LOG_VARIABLE: TERMINATION_LOG,
        "HOME": "/home/fedjob",
        "NUMBA_CACHE_DIR": "/tmp/numba",  # noqa: S108 - a volume of the pod's own
        **dict.fromkeys(THREADS, "1"),
        **environment,
    }
    token = {"name": TOKEN_VARIABLE, "valueFrom": {"secretKeyRef": {"name": secret_name(job), "key": TOKEN_KEY}}}
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": settings.image_pull_policy,
        # By name, not by the image's entry point: an image that lacks the program says so at once.
        "command": [f"fedjob-{name}"],
        "env": [*({"name": key, "value": value} for key, value in variables.items()), token],
        "ports": [
            {"name": "http", "containerPort": port, "protocol": "TCP"},
            {"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"},
        ],
        "resources": dict(resources),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePath": TERMINATION_LOG,
        # A program that could not leave its reason leaves the end of its log.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a volume of the pod's own
            {"name": "home", "mountPath": "/home/fedjob"},
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - a volume of the pod's own
        ],
    }


def _probe(path: str, **settings: int) -> Document:
    return {"httpGet": {"path": path, "port": "http"}, "periodSeconds": 1, "timeoutSeconds": 5, **settings}


def _gpus(job: FederatedJob, action: CreatePod) -> int:
    is_evaluator = action.role is PodRole.EVALUATOR
    return job.spec.evaluation.gpus if is_evaluator else _group(job, action.index).gpus


def _check_gpus(gpus: int, template: Mapping[str, Any]) -> None:
    """Refuse a template that sets other GPUs than ``gpus`` does.

    Raises:
        ValueError: It does.
    """
    others = {name: value for name, value in gpu_limits(template).items() if (name, value) != (GPU_RESOURCE, str(gpus))}
    if gpus and others:
        name, value = next(iter(others.items()))
        raise ValueError(f"it sets {name}: {value}, and gpus is {gpus}: leave one of the two out")


def _with_gpus(resources: Mapping[str, Any], gpus: int) -> Document:
    if not gpus:
        return dict(resources)
    # Extended resources are limits; a request, if there is one, has to be the same.
    return merged(resources, {"limits": {GPU_RESOURCE: str(gpus)}, "requests": {GPU_RESOURCE: str(gpus)}})


def _pod_spec(container: Document, volumes: list[Document], settings: PodSettings) -> Document:
    size = str(settings.scratch_bytes)
    spec: Document = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "tmp", "emptyDir": {"sizeLimit": size}},
            {"name": "home", "emptyDir": {"sizeLimit": size}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": size}},
            *volumes,
        ],
    }
    if settings.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    return spec
