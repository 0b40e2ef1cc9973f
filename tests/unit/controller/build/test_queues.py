"""Jobs in a queue of Kueue: what their pods carry."""

from dataclasses import replace

from fedjob_operator.adapters.kube.view import view
from fedjob_operator.build.pods import build_pod
from tests.unit.controller.build.test_pods import AGGREGATOR, CLIENT, EVALUATOR, SETTINGS, a_job

QUEUE = "kueue.x-k8s.io/queue-name"
PRIORITY = "kueue.x-k8s.io/priority-class"
GROUP = "kueue.x-k8s.io/pod-group-name"
TOTAL = "kueue.x-k8s.io/pod-group-total-count"


def queued(labels=None, **fields):
    job = a_job(**{"evaluation": {"modes": ["Evaluator"]}, **fields})
    given = {QUEUE: "team-a", PRIORITY: "high", "team": "vision"} if labels is None else labels
    return job.model_copy(update={"metadata": job.metadata.model_copy(update={"labels": given})})


def metadata(job, action):
    return build_pod(job, action, SETTINGS)["metadata"]


def test_clients_and_evaluator_are_one_group_that_is_admitted_together():
    for action in (CLIENT, EVALUATOR):
        found = metadata(queued(), replace(action, cohort=1764380453))
        assert {key: found["labels"][key] for key in (QUEUE, PRIORITY, GROUP)} == {
            QUEUE: "team-a",
            PRIORITY: "high",
            GROUP: "mnist-0c5f3d1e-1764380453",
        }
        assert found["annotations"] == {TOTAL: "4", "kueue.x-k8s.io/retriable-in-group": "false"}
        assert "team" not in found["labels"]


def test_without_evaluation_the_group_is_the_clients():
    assert metadata(queued(evaluation={"modes": []}), CLIENT)["annotations"][TOTAL] == "3"


def test_the_aggregator_waits_in_no_queue():
    found = metadata(queued(), AGGREGATOR)
    assert not any("kueue" in key for key in [*found["labels"], *found.get("annotations", {})])


def test_clients_that_take_turns_are_admitted_one_by_one():
    found = metadata(queued(clientPods="PerRound"), CLIENT)
    assert (found["labels"][QUEUE], GROUP in found["labels"], "annotations" in found) == ("team-a", False, False)


def test_a_job_in_no_queue_has_none_of_that():
    found = metadata(queued(labels={PRIORITY: "high"}), CLIENT)
    assert not any("kueue" in key for key in [*found["labels"], *found.get("annotations", {})])


def test_a_template_may_say_otherwise_and_keeps_its_own_annotations():
    template = {"metadata": {"labels": {QUEUE: "other"}, "annotations": {"mine": "x", TOTAL: "9"}}}
    found = metadata(queued(group={"template": template}), CLIENT)
    assert found["labels"][QUEUE] == "other"
    assert (found["annotations"]["mine"], found["annotations"][TOTAL]) == ("x", "9")


def test_the_longest_name_of_a_job_fits_into_the_name_of_its_group():
    job = queued()
    long = job.model_copy(update={"metadata": job.metadata.model_copy(update={"name": "j" * 40})})
    assert len(metadata(long, replace(CLIENT, cohort=10**10 - 1))["labels"][GROUP]) <= 63


def test_what_is_built_is_what_is_read_again():
    pod = build_pod(queued(), replace(CLIENT, cohort=1764380453), SETTINGS)
    pod["metadata"]["uid"] = "u"
    assert view(pod).cohort == 1764380453
    without = build_pod(queued(labels={}), CLIENT, SETTINGS)
    without["metadata"]["uid"] = "u"
    assert view(without).cohort is None


def test_a_stopped_client_of_a_group_counts_as_failed_so_that_it_is_replaced():
    def exit_code(job, action):
        (container,) = build_pod(job, action, SETTINGS)["spec"]["containers"]
        return {item["name"]: item.get("value") for item in container["env"]}.get("FEDJOB_STOPPED_EXIT_CODE")

    assert [exit_code(queued(), action) for action in (CLIENT, EVALUATOR, AGGREGATOR)] == ["143", "143", None]
    assert exit_code(queued(clientPods="PerRound"), CLIENT) is None
    assert exit_code(queued(labels={}), CLIENT) is None
