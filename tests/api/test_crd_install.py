"""The CRD as people use it: applied with plain kubectl, over an older one, and seen in `kubectl get`."""

import json

import pytest
import yaml

from fedjob_operator.api.v1alpha1 import FederatedJobStatus, dump
from tests.support.cluster.apiserver import MERGE_PATCH, ApiServer, find_assets
from tests.support.repository import ROOT
from tests.support.runs import wait_until
from tests.unit.controller.api_samples import document

CRDS = ROOT / "crds"
CRD = "federatedjobs.fedjob.dev"
JOBS = "/apis/fedjob.dev/v1alpha1/namespaces/default/federatedjobs"
DEFINITION = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{CRD}"


def definition():
    return yaml.safe_load((CRDS / f"{CRD}.yaml").read_text(encoding="utf-8"))


def schema_of(crd):
    return crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


@pytest.fixture(scope="module")
def bare_server(tmp_path_factory):
    """A server of the module's own, as it takes the CRD away from it."""
    with ApiServer.start(tmp_path_factory.mktemp("bare-server"), find_assets()) as server:
        yield server


@pytest.fixture
def empty_server(bare_server):
    done = bare_server.kubectl("delete", "crd", CRD, "--ignore-not-found")
    assert done.returncode == 0, done.stderr
    return bare_server


def older(crd):
    """A CRD as it may have been: without rules, columns and a field that came later, and with one that went."""
    old = json.loads(json.dumps(crd), object_hook=without_rules)
    del old["spec"]["versions"][0]["additionalPrinterColumns"]
    del old["spec"]["names"]["shortNames"]
    spec = schema_of(old)["properties"]["spec"]["properties"]
    del spec["joinWaitSeconds"]
    spec["gone"] = {"type": "string"}
    return old


def without_rules(node):
    return {name: value for name, value in node.items() if name != "x-kubernetes-validations"}


def test_plain_apply_installs_it_and_changes_nothing_the_second_time(empty_server):
    assert empty_server.kubectl("apply", "-f", CRDS).stdout.endswith(f"{CRD} created\n")
    again = empty_server.kubectl("apply", "-f", CRDS)
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout.endswith(f"{CRD} unchanged\n")


def test_the_server_has_no_doubts_about_it(empty_server):
    empty_server.apply(CRDS)
    conditions = empty_server.request("GET", DEFINITION).ok()["status"]["conditions"]
    assert {item["type"]: item["status"] for item in conditions} == {"NamesAccepted": "True", "Established": "True"}


def test_an_upgrade_keeps_the_jobs_and_gives_them_the_new_defaults(empty_server, tmp_path):
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(older(definition())), encoding="utf-8")
    empty_server.apply(tmp_path)
    job = document(gone="x")
    empty_server.request("POST", JOBS, job).ok()

    assert empty_server.kubectl("apply", "-f", CRDS).stdout.endswith(f"{CRD} configured\n")

    path = f"{JOBS}/{job['metadata']['name']}"
    # The server takes a moment to use the new definition.
    wait_until(lambda: "joinWaitSeconds" in spec_at(empty_server, path), "the new default")
    assert "gone" not in spec_at(empty_server, path)
    empty_server.request("PATCH", path, {"spec": {"suspend": True}}, content_type=MERGE_PATCH).ok()
    refusal = empty_server.request("PATCH", path, {"spec": {"joinWaitSeconds": 5}}, content_type=MERGE_PATCH)
    assert "spec.joinWaitSeconds: Forbidden: cannot be changed" in refusal.message


def spec_at(server, path):
    answer = server.request("GET", path)
    return answer.body["spec"] if answer.status == 200 else {}


def test_columns(api_server, namespace):
    jobs = JOBS.replace("default", namespace)
    api_server.request("POST", jobs, document()).ok()
    status = {
        "phase": "Running",
        "reason": "RoundInProgress",
        "summary": {"rounds": "4/10", "clients": "20/20", "metric": "accuracy 0.9120", "gpus": "3/20"},
        "currentRound": {"number": 5, "attempt": 2},
    }
    api_server.request("PATCH", f"{jobs}/job/status", {"status": status}, content_type=MERGE_PATCH).ok()
    assert table(api_server, "federatedjobs", namespace) == [
        ["NAME", "STATE", "ROUNDS", "CLIENTS", "METRIC", "AGE"],
        ["job", "Running", "4/10", "20/20", "accuracy", "0.9120"],
    ]
    assert table(api_server, "fj", namespace, "--output=wide") == [
        ["NAME", "STATE", "ROUNDS", "CLIENTS", "METRIC", "AGE", "GPUS", "ATTEMPT", "REASON"],
        ["job", "Running", "4/10", "20/20", "accuracy", "0.9120", "3/20", "2", "RoundInProgress"],
    ]


def table(server, kind, namespace, *flags):
    """Words of each line of `kubectl get`; the age is left out, as it grows."""
    done = server.kubectl("get", kind, "--namespace", namespace, *flags)
    header, row = (line.split() for line in done.stdout.splitlines())
    return [header, [word for word in row if not (word[0].isdigit() and word[-1] == "s")]]


def test_a_job_without_a_status_is_listed(api_server, namespace):
    api_server.request("POST", JOBS.replace("default", namespace), document()).ok()
    done = api_server.kubectl("get", "all", "--namespace", namespace, "--output=name")
    assert done.stdout == "federatedjob.fedjob.dev/job\n"


def test_fields_are_explained(api_server):
    done = api_server.kubectl("explain", "federatedjob.spec.roundPolicy.overSelect")
    assert "Clients asked beyond clientsPerRound" in " ".join(done.stdout.split())


def test_every_field_of_a_status_is_kept_as_it_was_written(api_server, namespace):
    jobs = JOBS.replace("default", namespace)
    api_server.request("POST", jobs, document()).ok()
    written = sample(schema_of(definition())["properties"]["status"])
    assert dump(FederatedJobStatus.model_validate(written)) == written
    answer = api_server.request("PATCH", f"{jobs}/job/status", {"status": written}, content_type=MERGE_PATCH)
    assert answer.ok()["status"] == written


def sample(schema):
    """A value of a schema with everything in it."""
    if "enum" in schema:
        return schema["enum"][-1]
    if schema["type"] == "object":
        return {name: sample(field) for name, field in schema["properties"].items()}
    if schema["type"] == "array":
        return [sample(schema["items"])]
    text = "2026-01-31T12:00:00Z" if schema.get("format") == "date-time" else "a"
    return {"string": text, "integer": schema.get("maximum", 1), "number": 0.5, "boolean": True}[schema["type"]]


def test_a_status_that_is_no_status_is_refused(api_server, namespace):
    jobs = JOBS.replace("default", namespace)
    api_server.request("POST", jobs, document()).ok()
    condition = {"type": "Complete", "status": "True", "reason": "x", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    for status, field in (
        ({"phase": "Walking"}, "status.phase"),
        ({"term": -1}, "status.term"),
        ({"conditions": [condition, condition]}, "status.conditions[1]"),
        ({"startTime": "yesterday"}, "status.startTime"),
        ({"recentRounds": [{"number": 1, "digest": "x"}] * 11}, "status.recentRounds"),
    ):
        answer = api_server.request("PATCH", f"{jobs}/job/status", {"status": status}, content_type=MERGE_PATCH)
        assert answer.status == 422
        assert field in {cause["field"] for cause in answer.body["details"]["causes"]}
