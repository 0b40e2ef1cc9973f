"""What a pod's document says about the program in it. Pure: a document in, a `PodView` out."""

import ipaddress
import re
from datetime import UTC, datetime, timedelta
from typing import Final

from fedjob_operator.adapters.kube.documents import (
    Document,
    entries,
    integer,
    is_owned_by,
    label,
    mapping,
    meta,
    text,
    time,
    uid_of,
)
from fedjob_operator.adapters.kube.endings import CRASH_LOOP, exit_of, printable, waiting_of
from fedjob_operator.adapters.kube.holdups import held_up_since
from fedjob_operator.build.names import (
    AGGREGATOR_CONTAINER,
    CLIENT_CONTAINER,
    COHORT_LABEL,
    INDEX_LABEL,
    JOB_UID_LABEL,
    ORDINAL_LABEL,
    ROLE_LABEL,
)
from fedjob_operator.core.devices import gpus_of, names_gpu
from fedjob_operator.core.observed import Exit, PodPhase, PodRole, PodView, Waiting
from fedjob_protocol.reasons import Reason
from fedjob_protocol.routes import AGGREGATOR_PORT, CLIENT_PORT

MAX_INDEX: Final = 1_000_000
MAX_COHORT: Final = 10**11
"""In seconds since 1970."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EVICTED: Final = frozenset(
    {"Evicted", "Preempting", "Preempted", "Shutdown", "NodeShutdown", "Terminated", "NodeLost"}
)
"""Why a node, or the scheduler, ended a pod that did nothing wrong."""
_REFUSED: Final = re.compile(
    r"^(OutOf\w.*|UnexpectedAdmissionError|NodeAffinity|NodePorts|.*AdmissionError|AppArmor|.*Rejected)$"
)
"""Why a kubelet does not take a pod that was given to it."""
_INSUFFICIENT: Final = re.compile(r"Insufficient (\S+)")
_MISSING_CLAIM: Final = re.compile(r'persistentvolumeclaim "[^"]*" (not found|is being deleted)|unbound immediate Pers')


def view(pod: Document) -> PodView | None:
    """Return what a pod's document says; ``None`` for a pod that is not of a job, whatever its labels say.

    Args:
        pod: A pod as the API server holds it.
    """
    role, index, ordinal = _place(pod)
    uid, job = uid_of(pod), label(pod, JOB_UID_LABEL)
    if role is None or index is None or ordinal is None or not uid or not job or not is_owned_by(pod, job):
        return None
    status = mapping(pod.get("status"))
    main = _container_status(status, role)
    phase, end = _phase(pod, status, main)
    ready = phase is PodPhase.READY
    return PodView(
        role=role,
        index=index,
        ordinal=ordinal,
        incarnation=f"{uid}/{integer(main.get('restartCount')) or 0}",
        phase=phase,
        since=_since(pod, status, main, phase),
        url=_url(status, role) if ready else None,
        exit=end,
        waiting=_waiting(pod, status, main) if phase is PodPhase.STARTING and end is None else None,
        silent_since=_silent_since(pod, status, main) if phase is PodPhase.STOPPING else None,
        is_kept=phase is PodPhase.STOPPING and _is_over(status) and bool(meta(pod).get("finalizers")),
        cohort=_number(label(pod, COHORT_LABEL), most=MAX_COHORT),
        gpus_held=0 if phase is PodPhase.EXITED else _gpus_held(pod, status),
    )


def _gpus_held(pod: Document, status: Document) -> int:
    """GPUs that a pod keeps from others, from its node's choice to its end; being asked to end is not that yet."""
    return gpus_of(pod) if mapping(pod.get("spec")).get("nodeName") and not _is_over(status) else 0


def _is_over(status: Document) -> bool:
    """Whether nothing of a pod runs any more, by what its node says."""
    return status.get("phase") in ("Failed", "Succeeded")


def held_up_since_node(pod: Document) -> datetime | None:
    """Return since when a pod has a node and has not begun, where its status does not say why."""
    role, _, _ = _place(pod)
    main = _container_status(mapping(pod.get("status")), role) if role else {}
    return held_up_since(pod, main)


def pod_uid(incarnation: str) -> str:
    """Return the pod's unique id from the identity of the program that runs in it."""
    return incarnation.partition("/")[0]


def _place(pod: Document) -> tuple[PodRole | None, int | None, int | None]:
    try:
        role = PodRole(label(pod, ROLE_LABEL))
    except ValueError:
        role = None
    return role, _number(label(pod, INDEX_LABEL)), _number(label(pod, ORDINAL_LABEL))


def _number(value: str, *, most: int = MAX_INDEX) -> int | None:
    if not (value.isascii() and value.isdigit() and len(value) <= len(str(most))):
        return None
    return int(value) if int(value) <= most else None


def _main_name(role: PodRole) -> str:
    return AGGREGATOR_CONTAINER if role is PodRole.AGGREGATOR else CLIENT_CONTAINER


def _container_status(status: Document, role: PodRole) -> Document:
    name = _main_name(role)
    return next((item for item in entries(status.get("containerStatuses")) if item.get("name") == name), {})


def _condition(status: Document, kind: str) -> Document:
    return next((item for item in entries(status.get("conditions")) if item.get("type") == kind), {})


def _phase(pod: Document, status: Document, main: Document) -> tuple[PodPhase, Exit | None]:
    """Where the program is in its life, and why it ended: for good, or the last time."""
    state = mapping(main.get("state"))
    terminated = mapping(state.get("terminated"))
    is_restarted = mapping(pod.get("spec")).get("restartPolicy") == "Always"
    if meta(pod).get("deletionTimestamp"):
        return PodPhase.STOPPING, None
    if _is_over(status):
        return PodPhase.EXITED, _end(pod, status, main)
    if terminated and not is_restarted:
        # A container that a template added goes on; ours does not come back.
        return PodPhase.EXITED, _exit(pod, main, terminated)
    if state.get("running") and _condition(status, "Ready").get("status") == "True":
        return PodPhase.READY, None
    last = terminated or mapping(mapping(main.get("lastState")).get("terminated"))
    return PodPhase.STARTING, _exit(pod, main, last) if last else None


def _end(pod: Document, status: Document, main: Document) -> Exit:
    """Why a pod ended for good."""
    word, message = text(status.get("reason")), text(status.get("message"))
    disruption = _condition(status, "DisruptionTarget")
    if word in _EVICTED or disruption.get("status") == "True":
        words = message or text(disruption.get("message")) or word
        return Exit(reason=Reason.EVICTED, message=printable(words))
    if _REFUSED.match(word):
        # A device plugin that went away, or has no healthy device left.
        reason = Reason.GPU_UNAVAILABLE if names_gpu(f"{word} {message}") else Reason.POD_REFUSED
        return Exit(reason=reason, message=printable(f"{word}: {message}"))
    terminated = mapping(mapping(main.get("state")).get("terminated"))
    init = _failed_init(status)
    if init is not None:
        ended = mapping(mapping(init.get("state")).get("terminated"))
        return exit_of(ended, container=text(init.get("name")), memory="")
    if terminated:
        return _exit(pod, main, terminated)
    return Exit(reason=Reason.CRASHED, message=printable(f"{word}: {message}" if word else message or "the pod ended"))


def _failed_init(status: Document) -> Document | None:
    for item in entries(status.get("initContainerStatuses")):
        if integer(mapping(mapping(item.get("state")).get("terminated")).get("exitCode")):
            return item
    return None


def _exit(pod: Document, main: Document, terminated: Document) -> Exit:
    name = text(main.get("name"))
    containers = entries(mapping(pod.get("spec")).get("containers"))
    spec = next((item for item in containers if item.get("name") == name), {})
    memory = mapping(mapping(spec.get("resources")).get("limits")).get("memory")
    return exit_of(terminated, container="", memory=str(memory or ""))


def _silent_since(pod: Document, status: Document, main: Document) -> datetime | None:
    """When a pod that was asked to end should have ended, if its kubelet does not report it ready, nor its end.

    A kubelet that is alive reports the end of the container before it removes the pod.
    """
    if status.get("phase") in ("Failed", "Succeeded") or mapping(main.get("state")).get("terminated"):
        return None
    is_bound = bool(mapping(pod.get("spec")).get("nodeName"))
    is_ready = _condition(status, "Ready").get("status") == "True"
    return time(meta(pod).get("deletionTimestamp")) if is_bound and not is_ready else None


def _lost_node(pod: Document, status: Document, main: Document) -> bool:
    """Whether the node controller says that a pod is not ready, which its kubelet would say of the containers, too."""
    if mapping(pod.get("spec")).get("readinessGates") or not mapping(main.get("state")).get("running"):
        return False
    ready = (_condition(status, kind).get("status") for kind in ("Ready", "ContainersReady"))
    return text(status.get("reason")) == "NodeLost" or tuple(ready) == ("False", "True")


def _waiting(pod: Document, status: Document, main: Document) -> Waiting | None:
    """What holds up a pod that is not ready."""
    if _lost_node(pod, status, main):
        node = printable(text(mapping(pod.get("spec")).get("nodeName")), 253)
        return Waiting(reason=Reason.NODE_UNREACHABLE, message=f"node {node} does not report")
    scheduled = _condition(status, "PodScheduled")
    if scheduled.get("status") == "False":
        return _unscheduled(printable(text(scheduled.get("message")) or text(scheduled.get("reason"))))
    for item in (*entries(status.get("initContainerStatuses")), *entries(status.get("containerStatuses"))):
        if found := waiting_of(item):
            return found
        last = mapping(mapping(item.get("lastState")).get("terminated"))
        if last and mapping(mapping(item.get("state")).get("waiting")).get("reason") == CRASH_LOOP:
            end = exit_of(last, container=text(item.get("name")), memory="")
            return Waiting(reason=end.reason, message=end.message)
    return None


def _unscheduled(words: str) -> Waiting:
    if any(names_gpu(found) for found in _INSUFFICIENT.findall(words)):
        return Waiting(reason=Reason.GPU_UNAVAILABLE, message=words)
    if _MISSING_CLAIM.search(words):
        return Waiting(reason=Reason.VOLUME_UNAVAILABLE, message=words)
    return Waiting(reason=Reason.UNSCHEDULABLE, message=words)


def _since(pod: Document, status: Document, main: Document, phase: PodPhase) -> datetime:
    """When the pod entered its phase, as exactly as the document says."""
    created = time(meta(pod).get("creationTimestamp")) or _EPOCH
    readiness = time(_condition(status, "Ready").get("lastTransitionTime"))
    match phase:
        case PodPhase.STOPPING:
            end = time(meta(pod).get("deletionTimestamp")) or created
            return end - timedelta(seconds=integer(meta(pod).get("deletionGracePeriodSeconds")) or 0)
        case PodPhase.EXITED:
            ended = mapping(mapping(main.get("state")).get("terminated"))
            return time(ended.get("finishedAt")) or readiness or created
        case PodPhase.READY:
            return readiness or created
        case PodPhase.STARTING:
            state, last = mapping(main.get("state")), mapping(main.get("lastState"))
            ended = mapping(state.get("terminated")) or mapping(last.get("terminated"))
            return time(ended.get("finishedAt")) or created


def _url(status: Document, role: PodRole) -> str | None:
    """Where the program answers; a pod without an address cannot be asked."""
    try:
        address = ipaddress.ip_address(text(status.get("podIP")))
    except ValueError:
        return None
    port = AGGREGATOR_PORT if role is PodRole.AGGREGATOR else CLIENT_PORT
    host = f"[{address}]" if address.version == 6 else str(address)
    return f"http://{host}:{port}"
