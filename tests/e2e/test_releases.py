"""Installing, upgrading and removing the chart while jobs run."""

import json
import uuid

from tests.e2e.conftest import make_namespace
from tests.e2e.installation import Installation
from tests.e2e.jobs import JOB_SECONDS, digits, is_complete
from tests.support.kubectl import RESOURCE, Kubectl, committed, wait_until
from tests.support.repository import ROOT

PREVIOUS_CHART = ROOT / "tests" / "data" / "previous-chart" / "fedjob"
DELETE_SECONDS = 30


def test_an_upgrade_from_the_chart_before_leaves_a_running_job_alone(kubectl, installation):
    before = Installation(images=installation.images, chart=PREVIOUS_CHART)
    before.install()
    kubectl.apply(digits("upgraded", rounds=40))
    kubectl.wait_for_job("upgraded", lambda status: committed(status) >= 2, "a second round", JOB_SECONDS)
    pods = kubectl.names("pods")
    installation.install()
    definition = json.loads(kubectl("get", "crd", RESOURCE, "-o", "json"))
    columns = [column["name"] for column in definition["spec"]["versions"][0]["additionalPrinterColumns"]]
    assert "METRIC" in columns, "the upgrade did not bring the new definition"
    status = kubectl.wait_for_job("upgraded", is_complete, "Complete", JOB_SECONDS)
    assert kubectl.names("pods") <= pods, "the upgrade made the job's pods anew"
    kubectl.apply(digits("straight", rounds=40))
    straight = kubectl.wait_for_job("straight", is_complete, "Complete", JOB_SECONDS)
    assert straight["model"]["digest"] == status["model"]["digest"]


def test_jobs_can_be_deleted_after_the_release_is_gone(kubectl, installation):
    kubectl.apply(digits("orphan", rounds=10_000))
    kubectl.wait_for_job("orphan", lambda status: committed(status) >= 1, "a first round", JOB_SECONDS)
    installation.uninstall()
    try:
        kubectl("delete", RESOURCE, "orphan", seconds=DELETE_SECONDS)
        wait_until(lambda: not kubectl.names("pods"), "the end of its pods", 60)
    finally:
        installation.install()


def test_a_namespace_that_holds_the_operator_and_a_running_job_can_be_deleted(installation):
    installation.uninstall()
    own = Kubectl(f"e2e-own-{uuid.uuid4().hex[:8]}")
    make_namespace(own)
    there = Installation(images=installation.images, namespace=own.namespace)
    try:
        there.install()
        own.apply(digits("inside", rounds=10_000))
        own.wait_for_job("inside", lambda status: committed(status) >= 1, "a first round", JOB_SECONDS)
        own("delete", "namespace", own.namespace, f"--timeout={DELETE_SECONDS}s", seconds=DELETE_SECONDS + 5)
    finally:
        there.remove_leftovers()
        installation.install()


def test_the_charts_own_test_runs_a_job(installation):
    installation.test()
