"""Pods that a queue admits together, and pods that somebody's finalizer keeps."""

from fedjob_operator.core.actions import CreatePod
from fedjob_operator.core.cohorts import QUEUE_LABEL
from fedjob_operator.core.observed import PodPhase, PodRole
from fedjob_operator.core.pods import plan_pods
from tests.support.builders import EPOCH, a_job, at, pod, seen

EVALUATOR = PodRole.EVALUATOR
BEGAN = int(EPOCH.timestamp())


def queued(job):
    """The job in a queue."""
    built = job.build()
    metadata = built.metadata.model_copy(update={"labels": {QUEUE_LABEL: "team-a"}})
    return built.model_copy(update={"metadata": metadata})


def made(job, what, now=EPOCH):
    """Cohorts of the pods that are made, by place."""
    actions = plan_pods(job, what.observed, now).actions
    return {(action.role, action.index): action.cohort for action in actions if isinstance(action, CreatePod)}


def stopped(index, **more):
    return pod(index=index, phase=PodPhase.STOPPING, cohort=BEGAN, **more)


def test_all_that_start_together_are_one_cohort_and_the_aggregator_is_in_none():
    found = made(queued(a_job().evaluated().committed(0)), seen(), now=at(7))
    assert found.pop((PodRole.AGGREGATOR, 0)) is None
    assert set(found.values()) == {BEGAN + 7}
    assert len(found) == 4


def test_outside_a_queue_and_in_turns_there_are_no_cohorts():
    assert set(made(a_job().committed(0).build(), seen()).values()) == {None}
    turns = a_job().having(clientPods="PerRound").accepted()
    assert set(made(queued(turns), seen()).values()) == {None}


def test_who_is_replaced_while_others_go_on_joins_them():
    what = seen().pod(pod(index=0, cohort=BEGAN)).pod(pod(index=2, phase=PodPhase.STARTING, cohort=BEGAN))
    assert made(queued(a_job().committed(0)), what.exited(index=1), now=at(90))[PodRole.CLIENT, 1] == BEGAN


def test_after_all_have_ended_the_next_are_a_cohort_of_their_own():
    what = seen().aggregator().pod(stopped(0, is_kept=True)).pod(stopped(1)).exited(index=2)
    found = made(queued(a_job().committed(0)), what, now=at(90))
    assert found == {(PodRole.CLIENT, 0): BEGAN + 90, (PodRole.CLIENT, 2): BEGAN + 90}


def test_a_pod_that_only_a_finalizer_keeps_is_replaced_and_not_counted_as_a_failure():
    job = a_job().clients(3, backoffLimit=0).committed(0).build()
    planned = plan_pods(job, seen().pod(stopped(1, is_kept=True)).observed, EPOCH)
    assert CreatePod(role=PodRole.CLIENT, index=1, ordinal=1) in planned.actions
    assert not planned.lost
