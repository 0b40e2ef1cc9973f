"""GPUs in the status: asked for, held, waited for, and not found."""

from fedjob_operator.api.v1alpha1 import ConditionStatus, ConditionType, Gpus
from fedjob_operator.core.observed import PodPhase, PodRole
from fedjob_protocol.reasons import Reason
from tests.support.builders import CLUSTER, a_job, pod, seen, settled

GROUPS = [{"name": "gpu", "replicas": 2, "gpus": 2}, {"name": "cpu", "replicas": 1}]
MIXED = a_job().having(clientGroups=GROUPS, evaluation={"modes": ["Evaluator"], "gpus": 1})


def gpus(job, what, platform=CLUSTER):
    return settled(job.accepted(), what, platform=platform)[0].status


def test_gpus_are_counted_over_groups_and_evaluator():
    what = seen().pod(pod(index=0, phase=PodPhase.STARTING, gpus_held=2)).starting(1, 2)
    what = what.pod(pod(PodRole.EVALUATOR, gpus_held=1))
    status = gpus(MIXED, what)
    assert status.gpus == Gpus(requested=5, held=3, waiting=2)
    assert status.summary.gpus == "3/5"


def test_a_pod_that_ended_holds_none():
    ended = pod(index=0, phase=PodPhase.EXITED, gpus_held=2)
    assert gpus(MIXED, seen().pod(ended)).gpus.held == 0


def test_where_none_are_asked_for_nothing_is_said():
    status = gpus(a_job(), seen().ready(0))
    assert (status.gpus, status.summary.gpus) == (None, "")


def test_processes_of_this_machine_are_given_none():
    assert settled(MIXED.accepted(), seen().ready(0))[0].status.gpus is None


def computing(backend, **group):
    what = seen().aggregator(committed=0)
    what = what.ready(0, 1, 2, backend=backend)
    return settled(a_job().clients(3, **group).in_round(1, 0, 1, 2), what.round(1), platform=CLUSTER)[0].status


def test_who_was_given_a_gpu_and_computes_without_says_so_and_goes_on():
    status = computing("cpu", gpus=1)
    condition = status.condition(ConditionType.CLIENTS_READY)
    assert (condition.status, condition.reason) == (ConditionStatus.TRUE, Reason.GPU_UNAVAILABLE)
    assert condition.message == "3 of 3 are ready; asked for a GPU and computing on the CPU: client 0, 1, 2"
    assert status.reason == Reason.ROUND_IN_PROGRESS
    assert "computing on the CPU" in status.message


def test_how_many_gpus_are_missing_is_said_with_the_schedulers_words():
    what = seen().aggregator().ready(2)
    for index in (0, 1):
        what = what.waiting(index, Reason.GPU_UNAVAILABLE, "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.")
    condition = gpus(MIXED.having(minClients=2), what).condition(ConditionType.CLIENTS_READY)
    assert (condition.status, condition.reason) == (ConditionStatus.FALSE, Reason.GPU_UNAVAILABLE)
    assert condition.message.startswith("1 of 3 are ready; 4 GPUs are missing; client 0: GpuUnavailable: 0/1 nodes")


def test_gpus_of_a_template_count_as_those_that_a_group_asks_for():
    limits = {"limits": {"nvidia.com/mig-1g.5gb": 3}}
    template = {"spec": {"containers": [{"name": "client", "resources": limits}]}}
    job = a_job().clients(2, template=template).evaluated(template=template)
    assert gpus(job, seen()).gpus == Gpus(requested=9, held=0, waiting=0)


def test_a_group_for_the_cpu_never_looks_for_a_gpu():
    assert computing("cpu", device="CPU").reason == Reason.ROUND_IN_PROGRESS


def test_who_computes_on_its_gpu_says_nothing():
    status = computing("gpu", gpus=1)
    assert status.condition(ConditionType.CLIENTS_READY).reason == Reason.CLIENTS_READY
    assert "CPU" not in status.message


def test_a_group_for_gpus_is_not_ready_without():
    status = computing("cpu", device="GPU")
    assert status.clients.ready == 0
    assert status.reason == Reason.GPU_UNAVAILABLE
    assert computing("gpu", device="GPU").clients.ready == 3
