"""What a pod's document says: its phase, why it waits, why it ended, where it answers."""

import copy
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedjob_operator.adapters.kube.view import pod_uid, view
from fedjob_operator.core.observed import Exit, PodPhase, PodRole, Waiting
from fedjob_protocol.reasons import Reason
from fedjob_protocol.routes import AGGREGATOR_PORT, CLIENT_PORT
from tests.unit.controller.kube.pod_documents import (
    CREATED,
    ENDED,
    POD_UID,
    READY_AT,
    RUNNING,
    condition,
    ended,
    pod,
    ready,
    scheduled,
    terminated,
    unscheduled,
    waiting,
)


def at(text):
    return datetime.fromisoformat(text).astimezone(UTC)


def ending(document):
    document["metadata"] |= {"deletionTimestamp": "2026-01-01T00:02:05Z", "deletionGracePeriodSeconds": 5}
    return document


def test_a_new_pod_is_starting_since_its_creation():
    seen = view(pod(index=3, ordinal=2))
    assert (seen.role, seen.index, seen.ordinal) == (PodRole.CLIENT, 3, 2)
    assert (seen.phase, seen.since, seen.url, seen.exit, seen.waiting) == (
        PodPhase.STARTING,
        at(CREATED),
        None,
        None,
        None,
    )


@pytest.mark.parametrize(
    ("role", "port"),
    [(PodRole.AGGREGATOR, AGGREGATOR_PORT), (PodRole.CLIENT, CLIENT_PORT), (PodRole.EVALUATOR, CLIENT_PORT)],
)
def test_a_ready_pod_answers_at_its_address(role, port):
    seen = view(ready(role))
    assert (seen.phase, seen.since, seen.url) == (PodPhase.READY, at(READY_AT), f"http://10.244.0.7:{port}")


def test_an_address_of_the_newer_kind_is_put_in_brackets():
    assert view(ready(ip="fd00:10:244::7")).url == f"http://[fd00:10:244::7]:{CLIENT_PORT}"


@pytest.mark.parametrize("address", ["", "127.0.0.1/../evil", "evil.example", "10.0.0.1:80", None, 7])
def test_what_is_no_address_is_none(address):
    assert view(ready(ip=address)).url is None


def test_a_running_pod_that_is_not_ready_is_starting():
    seen = view(scheduled(state=RUNNING))
    assert (seen.phase, seen.url) == (PodPhase.STARTING, None)


def test_a_pod_that_was_asked_to_end_is_stopping_since_then():
    document = ready()
    document["metadata"] |= {"deletionTimestamp": "2026-01-01T00:02:05Z", "deletionGracePeriodSeconds": 5}
    seen = view(document)
    assert (seen.phase, seen.since, seen.url) == (PodPhase.STOPPING, at("2026-01-01T00:02:00Z"), None)


@pytest.mark.parametrize(
    ("document", "finalizers", "is_kept"),
    [
        (ending(terminated(0, phase="Succeeded")), ["kueue.x-k8s.io/managed"], True),
        (ending(terminated(1)), ["kueue.x-k8s.io/managed"], True),
        (ending(terminated(1)), [], False),
        (ending(ready()), ["kueue.x-k8s.io/managed"], False),
        (terminated(1), ["kueue.x-k8s.io/managed"], False),
    ],
)
def test_a_pod_that_ended_and_is_kept_by_a_finalizer(document, finalizers, is_kept):
    document["metadata"]["finalizers"] = finalizers
    assert view(document).is_kept == is_kept


def test_a_program_started_again_in_its_place_is_another_incarnation():
    first = view(ready(PodRole.AGGREGATOR))
    last = {"terminated": ended(137, "OOMKilled")}
    between = view(
        scheduled(
            PodRole.AGGREGATOR,
            state={"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}},
            last=last,
            phase="Running",
        )
    )
    again = view(ready(PodRole.AGGREGATOR, restarts=1, last=last))
    assert first.incarnation == between.incarnation != again.incarnation
    assert pod_uid(again.incarnation) == pod_uid(first.incarnation) == POD_UID
    assert (between.phase, between.since) == (PodPhase.STARTING, at(ENDED))
    assert between.exit.reason is Reason.OOM_KILLED
    assert (again.phase, again.exit) == (PodPhase.READY, None)


SLICE = "0/3 nodes are available: 1 node(s) had untolerated taint, 2 Insufficient nvidia.com/mig-1g.5gb."
UNHEALTHY = (
    "Allocate failed due to no healthy devices present; cannot allocate unhealthy devices nvidia.com/gpu, which is "
    "unexpected"
)
QUOTE = (
    "0/3 nodes are available: 3 Insufficient nvidia.com/gpu. preemption: 0/3 nodes are available: 3 No victims found."
)
CPU = "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: not eligible."


@pytest.mark.parametrize(
    ("document", "reason", "words"),
    [
        (unscheduled(CPU), Reason.UNSCHEDULABLE, CPU),
        (unscheduled(QUOTE), Reason.GPU_UNAVAILABLE, QUOTE),
        (unscheduled(SLICE), Reason.GPU_UNAVAILABLE, SLICE),
        (unscheduled('persistentvolumeclaim "data" not found'), Reason.VOLUME_UNAVAILABLE, 'claim "data" not found'),
        (unscheduled("pod has unbound immediate PersistentVolumeClaims"), Reason.VOLUME_UNAVAILABLE, "unbound"),
        (waiting("ErrImagePull", "pull access denied"), Reason.IMAGE_PULL_FAILED, "ErrImagePull: pull access denied"),
        (waiting("ImagePullBackOff", 'Back-off pulling image "x"'), Reason.IMAGE_PULL_FAILED, 'pulling image "x"'),
        (waiting("InvalidImageName", "couldn't parse"), Reason.IMAGE_PULL_FAILED, "InvalidImageName"),
        (waiting("CreateContainerConfigError", 'secret "t" not found'), Reason.CONTAINER_CANNOT_RUN, 'secret "t"'),
        (waiting("CreateContainerError", "no command"), Reason.CONTAINER_CANNOT_RUN, "no command"),
        (waiting("RunContainerError", "exec failed"), Reason.CONTAINER_CANNOT_RUN, "exec failed"),
    ],
)
def test_what_holds_a_pod_up_is_said_in_the_clusters_words(document, reason, words):
    seen = view(document)
    assert seen.phase is PodPhase.STARTING
    assert seen.waiting.reason is reason
    assert words in seen.waiting.message


@pytest.mark.parametrize(
    "document", [waiting("ContainerCreating"), waiting("PodInitializing"), scheduled(state=RUNNING), ready()]
)
def test_what_takes_its_course_is_not_held_up(document):
    assert view(document).waiting is None


def test_an_init_container_that_cannot_be_pulled_holds_the_pod_up():
    document = waiting("PodInitializing")
    state = {"waiting": {"reason": "ErrImagePull", "message": "not found"}}
    document["status"]["initContainerStatuses"] = [{"name": "fetch", "state": state, "lastState": {}}]
    assert view(document).waiting == Waiting(reason=Reason.IMAGE_PULL_FAILED, message="ErrImagePull: not found")


def left(reason, message):
    return json.dumps({"reason": reason, "message": message})


@pytest.mark.parametrize(
    ("document", "reason", "words"),
    [
        (terminated(1), Reason.CRASHED, "exit code 1"),
        (terminated(0, "Completed", phase="Succeeded"), Reason.CRASHED, "exit code 0"),
        (terminated(139), Reason.CRASHED, "killed by SIGSEGV"),
        (terminated(137), Reason.CRASHED, "killed by SIGKILL"),
        (terminated(137, "OOMKilled"), Reason.OOM_KILLED, "it needed more than its memory limit of 4Gi, exit code 137"),
        (
            terminated(128, "StartError", 'exec: "fedjob-client": not found'),
            Reason.CONTAINER_CANNOT_RUN,
            "fedjob-client",
        ),
        (terminated(127), Reason.CONTAINER_CANNOT_RUN, "the program is not in the image (exit code 127)"),
        (terminated(126), Reason.CONTAINER_CANNOT_RUN, "cannot be executed (exit code 126)"),
        (terminated(1, message=left("TrainerError", "boom in line 3")), Reason.TRAINER_ERROR, "boom in line 3"),
        (terminated(1, message=left("DataError", "no such file")), Reason.DATA_ERROR, "no such file"),
        (
            terminated(1, message="Traceback (most recent call last):\nValueError: no\n"),
            Reason.CRASHED,
            "1: ValueError: no",
        ),
    ],
)
def test_why_a_program_ended(document, reason, words):
    seen = view(document)
    assert (seen.phase, seen.since, seen.url, seen.waiting) == (PodPhase.EXITED, at(ENDED), None, None)
    assert seen.exit.reason is reason
    assert words in seen.exit.message


def failed(reason, message, **more):
    return pod(status={"phase": "Failed", "reason": reason, "message": message, **more})


@pytest.mark.parametrize(
    ("document", "reason", "words"),
    [
        (failed("Evicted", "The node was low on resource: memory."), Reason.EVICTED, "low on resource: memory"),
        (failed("Shutdown", "Pod was terminated in response to node shutdown"), Reason.EVICTED, "node shutdown"),
        (
            failed(
                "", "", conditions=[condition("DisruptionTarget", "True", message="deleting due to NoExecute taint")]
            ),
            Reason.EVICTED,
            "NoExecute",
        ),
        (
            failed("UnexpectedAdmissionError", "Allocate failed"),
            Reason.POD_REFUSED,
            "UnexpectedAdmissionError: Allocate",
        ),
        (failed("OutOfcpu", "Node didn't have enough resource"), Reason.POD_REFUSED, "OutOfcpu"),
        (failed("OutOfcpu", "none left"), Reason.POD_REFUSED, "none left"),
        (failed("OutOfnvidia.com/gpu", "none left"), Reason.GPU_UNAVAILABLE, "none left"),
        (failed("UnexpectedAdmissionError", UNHEALTHY), Reason.GPU_UNAVAILABLE, UNHEALTHY),
        (failed("UnexpectedAdmissionError", "no healthy example.com/nic"), Reason.POD_REFUSED, "example.com/nic"),
        (failed("DeadlineExceeded", "Pod was active too long"), Reason.CRASHED, "DeadlineExceeded: Pod was active"),
    ],
)
def test_why_a_pod_ended_without_its_program(document, reason, words):
    seen = view(document)
    assert seen.phase is PodPhase.EXITED
    assert seen.exit.reason is reason
    assert words in seen.exit.message


def test_a_failed_init_container_is_named():
    document = waiting("PodInitializing", phase="Failed")
    document["status"]["initContainerStatuses"] = [{"name": "fetch", "state": {"terminated": ended(4)}}]
    assert view(document).exit == Exit(reason=Reason.CRASHED, message="container fetch: exit code 4")


def test_a_client_whose_program_ended_is_over_although_another_container_goes_on():
    assert view(terminated(1, phase="Running")).phase is PodPhase.EXITED


@pytest.mark.parametrize(
    "message",
    [
        left("Accepted", "fine"),
        left("RoundsCompleted", "done"),
        left("Nonsense", "?"),
        left("TrainerError", "x" * 5000),
        '{"reason": "TrainerError"}',
        "{" * 4000,
        '["TrainerError", "boom"]',
        '{"reason": "TrainerError", "message": "a"}' + " " * 10_000,
    ],
)
def test_a_program_cannot_make_up_its_end(message):
    end = view(terminated(1, message=message)).exit
    assert end.reason is Reason.CRASHED
    assert len(end.message) < 1100


def test_what_a_program_says_is_harmless_on_a_terminal():
    message = view(terminated(1, message=left("TrainerError", "\x1b[2J\x07a\nb\u202e" + "c" * 1500))).exit.message
    assert message.isprintable()
    assert message.startswith("[2J a b")
    assert len(message) == 1024


@pytest.mark.parametrize(
    ("document", "held"),
    [
        (pod(gpus=2), 0),
        (ready(gpus=2), 2),
        (waiting("ErrImagePull", gpus=2), 2),
        (terminated(1, gpus=2), 0),
        (ready(), 0),
        (ending(ready(gpus=2)), 2),
        (ending(terminated(1, gpus=2)), 0),
    ],
)
def test_gpus_are_held_from_the_moment_of_a_node_to_the_end(document, held):
    assert view(document).gpus_held == held


def without(part, name):
    document = copy.deepcopy(ready())
    del document["metadata"][part][name]
    return document


@pytest.mark.parametrize(
    "document",
    [
        {},
        without("labels", "fedjob.dev/role"),
        without("labels", "fedjob.dev/index"),
        without("labels", "fedjob.dev/job-uid"),
        {**ready(), "metadata": {**ready()["metadata"], "ownerReferences": []}},
        {**ready(), "metadata": {**ready()["metadata"], "uid": ""}},
        pod(index=99_999_999),
        pod(index=-1),
        pod(index="²"),
    ],
)
def test_a_pod_that_is_not_of_a_job_is_none(document):
    assert view(document) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
PATHS = [
    ("status",), ("status", "conditions"), ("status", "containerStatuses"), ("status", "phase"), ("status", "podIP"),
    ("spec",), ("spec", "containers"), ("spec", "nodeName"), ("metadata", "creationTimestamp"),
    ("metadata", "deletionTimestamp"), ("metadata", "labels"), ("metadata", "ownerReferences"),
]  # fmt: skip


@given(st.sampled_from([ready(), terminated(1), waiting("ErrImagePull"), pod()]), st.sampled_from(PATHS), JSON)
def test_no_document_breaks_it(document, path, value):
    document = copy.deepcopy(document)
    *outer, last = path
    inner = document
    for key in outer:
        inner = inner[key]
    inner[last] = value
    view(document)


@given(JSON, st.sampled_from(["state", "lastState", "restartCount", "name"]))
def test_no_status_of_a_container_breaks_it(value, key):
    document = copy.deepcopy(terminated(1))
    document["status"]["containerStatuses"][0][key] = value
    view(document)


@given(JSON, st.sampled_from(["exitCode", "reason", "message", "finishedAt"]))
def test_no_end_of_a_container_breaks_it(value, key):
    document = copy.deepcopy(terminated(1))
    document["status"]["containerStatuses"][0]["state"]["terminated"][key] = value
    seen = view(document)
    assert seen.phase is PodPhase.EXITED
    assert seen.exit is not None


# Nodes that are lost


def lost_node(**more):
    """What the node controller makes of a pod that was ready: its kubelet's word of the containers stays."""
    document = ready(**more)
    for item in document["status"]["conditions"]:
        if item["type"] == "Ready":
            item["status"] = "False"
        if item["type"] == "ContainersReady":
            item["status"] = "True"
    return document


def test_a_pod_whose_node_is_lost_says_so():
    seen = view(lost_node())
    assert seen.phase is PodPhase.STARTING
    assert seen.waiting == Waiting(reason=Reason.NODE_UNREACHABLE, message="node node-1 does not report")


def test_a_pod_with_readiness_gates_may_not_be_ready_although_its_node_reports():
    assert view(lost_node(spec={"readinessGates": [{"conditionType": "example.com/ok"}]})).waiting is None


def test_a_probe_that_fails_is_no_lost_node():
    document = ready()
    for item in document["status"]["conditions"]:
        item["status"] = "False" if item["type"] in ("Ready", "ContainersReady") else item["status"]
    assert view(document).waiting is None


def test_a_pod_of_a_lost_node_that_was_asked_to_end_should_have_ended_with_its_grace_period():
    seen = view(ending(lost_node()))
    assert (seen.phase, seen.silent_since) == (PodPhase.STOPPING, at("2026-01-01T00:02:05Z"))


@pytest.mark.parametrize(
    "document",
    [ending(ready()), ending(terminated(0, phase="Running")), ending(terminated(1)), ending(pod()), lost_node()],
    ids=["reported ready", "reported ended", "over", "without a node", "not asked to end"],
)
def test_others_are_not_silent(document):
    assert view(document).silent_since is None
