"""What may be changed in a job that is there: the API server says the same as `immutable_changes`."""

from itertools import count

import pytest

from tests.support.cluster.apiserver import MERGE_PATCH
from tests.support.spec_changes import ALLOWED, GROUP, REFUSED, SUSPENDED
from tests.unit.controller.api_samples import document

JOBS = "/apis/fedjob.dev/v1alpha1/namespaces/default/federatedjobs"
NUMBERS = count(1)
THE_WHOLE_LIST = ("name", "gpus", "image", "template", "replicas")
"""Fields of a group whose rules need the other groups, or the whole job: their errors name the list."""


class Job:
    """A job on the API server."""

    def __init__(self, server, **spec):
        self.name = f"job-{next(NUMBERS)}"
        self.server = server
        self.path = f"{JOBS}/{self.name}"
        server.request("POST", JOBS, self.document(spec)).ok()

    def document(self, spec):
        return {**document(**spec), "metadata": {"name": self.name}}

    def replace(self, **spec):
        """Ask for another spec, all of it; nothing is changed."""
        version = self.server.request("GET", self.path).ok()["metadata"]["resourceVersion"]
        wanted = self.document(spec)
        wanted["metadata"]["resourceVersion"] = version
        return self.server.request("PUT", f"{self.path}?dryRun=All&fieldValidation=Strict", wanted)

    def patch(self, spec):
        return self.server.request("PATCH", self.path, {"spec": spec}, content_type=MERGE_PATCH)

    def write_status(self, **status):
        return self.server.request("PATCH", f"{self.path}/status", {"status": status}, content_type=MERGE_PATCH)


def fields(answer):
    return {cause["field"] for cause in answer.body["details"]["causes"]}


def field_of(line):
    """The field that the API server names: free-form maps and the list of groups as a whole."""
    path = line.partition(": ")[0]
    for free_form in ("parameters", "template"):
        path = path.partition(f".{free_form}.")[0] + (f".{free_form}" if f".{free_form}." in path else "")
    group, _, name = path.rpartition(".")
    return "spec.clientGroups" if group == "spec.clientGroups[0]" and name in THE_WHOLE_LIST else path


@pytest.mark.parametrize("change", ALLOWED, ids=str)
def test_what_may_be_changed(api_server, change):
    Job(api_server, **change.old).replace(**change.new).ok()


@pytest.mark.parametrize("change", REFUSED, ids=str)
def test_what_may_not_be_changed(api_server, change):
    answer = Job(api_server, **change.old).replace(**change.new)
    assert answer.status == 422
    assert fields(answer) == {field_of(change.refused)}


@pytest.mark.parametrize("change", [change for change in ALLOWED if change.before is SUSPENDED], ids=str)
def test_what_describes_pods_may_be_changed_only_while_there_are_none(api_server, change):
    running = {**change.old, "suspend": False}
    answer = Job(api_server, **running).replace(**{**running, **change.after})
    assert "cannot be changed unless the job is suspended" in answer.message


def test_groups_keep_their_order(api_server):
    one, two = ({"name": name, "replicas": 1} for name in "ab")
    answer = Job(api_server, clientGroups=[one, two]).replace(clientGroups=[two, one])
    assert fields(answer) == {"spec.clientGroups"}


def test_every_group_is_compared_with_itself(api_server):
    one, two = ({"name": name, "replicas": 1, "gpus": gpus} for name, gpus in (("a", 1), ("b", 2)))
    job = Job(api_server, clientGroups=[one, two])
    job.replace(clientGroups=[one, two]).ok()
    assert fields(job.replace(clientGroups=[one, {**two, "gpus": 1}])) == {"spec.clientGroups"}


def test_rounds_are_not_lowered_below_what_is_committed(api_server):
    job = Job(api_server, rounds=5)
    job.write_status(rounds={"committed": 2, "total": 5}).ok()
    job.replace(rounds=2).ok()
    answer = job.replace(rounds=1)
    assert fields(answer) == {"spec.rounds"}
    assert "less than the rounds that are committed" in answer.message


def test_a_status_is_never_refused_because_of_the_spec(api_server):
    job = Job(api_server, rounds=5, clientGroups=[{"name": "a", "replicas": 5}])
    complete = {"type": "Complete", "status": "True", "reason": "Done", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    layout = [{"group": "a", "first": 0, "count": 2}, {"group": "z", "first": 2, "count": 2}]
    job.write_status(rounds={"committed": 9, "total": 5}, conditions=[complete], layout=layout).ok()
    job.patch({"suspend": True}).ok()  # and the rest of the spec may still be changed
    job.write_status(term=1).ok()


def test_a_complete_job_gets_no_more_rounds(api_server):
    job = Job(api_server, rounds=5)
    condition = {"type": "Complete", "reason": "Done", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    job.write_status(conditions=[{**condition, "status": "False"}]).ok()
    job.replace(rounds=6).ok()
    job.write_status(conditions=[{**condition, "status": "True"}]).ok()
    assert fields(job.replace(rounds=6)) == {"spec.rounds"}
    job.replace(rounds=4).ok()


def test_replicas_stay_within_what_data_were_divided_for(api_server):
    job = Job(api_server, clientGroups=[{"name": "a", "replicas": 5}])
    job.write_status(layout=[{"group": "a", "first": 0, "count": 5}]).ok()
    job.patch({"clientGroups": [{"name": "a", "replicas": 4}]}).ok()  # lowered …
    job.replace(clientGroups=[{"name": "a", "replicas": 5}]).ok()  # … and back again
    assert fields(job.replace(clientGroups=[{"name": "a", "replicas": 6}])) == {"spec.clientGroups"}


def test_a_patch_by_name_cannot_move_or_drop_what_is_fixed(api_server):
    job = Job(api_server, clientGroups=[GROUP], minClients=3)
    assert fields(job.patch({"minClients": None})) == {"spec.minClients"}
    assert fields(job.patch({"data": None})) >= {"spec.data"}
    assert fields(job.patch({"clientGroups": [{"name": "a", "replicas": 5}]})) == {"spec.clientGroups[0].maxReplicas"}
