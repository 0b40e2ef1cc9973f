"""How much one operator writes and may do, and that a second one beside it changes nothing."""

import time
from collections import Counter

import pytest
import yaml

from tests.support.cluster.access import Api, ApiError, path
from tests.support.cluster.cluster import eventually
from tests.support.cluster.jobs import a_job, a_steered_job
from tests.support.cluster.operators import tracebacks
from tests.support.cluster.steered import hold_file
from tests.support.repository import ROOT

MOST_WRITES = 50
"""Creates, patches and Events for a job of 10 rounds with 3 clients."""
TOGETHER_SECONDS = 60.0
TAKEOVERS = 3
"""In that time: at its beginning, after 15 s, after another 15 s; the next one would come after a minute more."""
LEASES = "leases"


def writes_of(proxy, namespace):
    return Counter(call for call in proxy.plain.writes(namespace).elements() if LEASES not in call)


def test_the_writes_of_a_job_keep_to_a_budget_and_events_come_after_their_status(cluster, operators, namespace):
    with cluster.proxy() as proxy:
        operators.start(namespace, proxy=proxy)
        cluster.submit(namespace, a_job("j", clients=3, rounds=10, evaluation={"modes": ["Evaluator"]}))
        cluster.until_phase(namespace, "j", "Complete")
        eventually(lambda: len(cluster.pods(namespace, "j")) == 1, "the release of the clients")
        settled = writes_of(proxy, namespace)
        time.sleep(5)  # nothing more is written, however long one waits
        written = writes_of(proxy, namespace)

    assert written.total() <= MOST_WRITES, written
    assert (written - settled).total() <= 2, "only the counts of pods that have just gone"
    calls = [call for call in proxy.plain.calls if call.namespace == namespace]
    told = [call for call in calls if call.resource == "events"]
    assert told
    for event in told:
        version = event.body["involvedObject"]["resourceVersion"]
        (status,) = [call for call in calls if call.resource == "federatedjobs/status" and call.version == version]
        assert status.at < event.at
    assert [call for call in calls if call.is_write and call.code >= 400] == []


def test_nothing_is_told_that_was_not_written(cluster, operators, namespace):
    with cluster.proxy() as proxy:
        operators.start(namespace, proxy=proxy)
        proxy.plain.spoil = lambda call: 500 if call.resource == "federatedjobs/status" else None
        cluster.submit(namespace, a_job("j", rounds=1))
        eventually(lambda: proxy.plain.refused >= 3, "three tries to write the status")
        assert cluster.events(namespace) == []
        assert cluster.pods(namespace, "j") == []
        proxy.plain.spoil = lambda _: None
        cluster.until_phase(namespace, "j", "Complete")
        # While the proxy is there: the last Event follows the status that it tells of.
        eventually(lambda: [event for event in cluster.events(namespace) if "Complete" in event["message"]], "an Event")


def test_two_operators_at_once_are_as_good_as_one(cluster, operators, namespace, tmp_path):
    """Beside each other for a minute: two that share a Lease, two that do not know of each other, and one alone."""
    alone, shared, apart = names = namespace, f"{namespace}-shared", f"{namespace}-apart"
    for name in (shared, apart):
        cluster.server.create_namespace(name)
    with cluster.proxy() as proxy:
        operators.start(alone, proxy=proxy)
        first = operators.start(shared, proxy=proxy)
        operators.start(shared, proxy=proxy, beside=first)
        for _ in range(2):
            operators.start(apart, proxy=proxy)
        folders = {name: tmp_path / name for name in names}
        for name, folder in folders.items():
            folder.mkdir()
            hold_file(folder, 3).touch()
            cluster.submit(name, a_steered_job("j", folder, rounds=8))
        began = time.monotonic()
        for name in names:
            cluster.until_committed(name, "j", 2)
        while time.monotonic() < began + TOGETHER_SECONDS:
            time.sleep(1)
        for folder in folders.values():
            hold_file(folder, 3).unlink()
        statuses = {name: cluster.until_phase(name, "j", "Complete") for name in names}
        for name in names:
            eventually(lambda name=name: len(cluster.pods(name, "j")) == 1, "the release of the clients")
        written = {name: writes_of(proxy, name) for name in names}

    assert len({status["model"]["digest"] for status in statuses.values()}) == 1
    for status in statuses.values():
        assert [entry["number"] for entry in status["recentRounds"]] == list(range(9))
    # Without a Lease in common they take the job from each other, but each leaves the other one more and more time.
    assert statuses[shared]["term"] <= statuses[alone]["term"] + 2
    assert statuses[apart]["term"] <= statuses[alone]["term"] + 1 + TAKEOVERS
    for name in (shared, apart):
        cluster.clear(name)
    assert written[shared].total() <= 1.2 * written[alone].total(), written
    assert written[apart].total() <= 2 * written[alone].total(), written


@pytest.fixture
def limited(cluster, namespace):
    """A ServiceAccount with the chart's rights in one namespace, and in one of the operator's own."""
    own = f"{namespace}-operator"
    cluster.server.create_namespace(own)
    documents = [
        item
        for item in yaml.safe_load_all((ROOT / "dist/install.yaml").read_text(encoding="utf-8"))
        if item is not None
    ]
    (for_itself,) = [item for item in documents if item["kind"] == "Role"]
    (for_jobs,) = [
        item for item in documents if item["kind"] == "ClusterRole" and item["metadata"]["name"].endswith("-jobs")
    ]
    for where, rules in ((own, for_itself["rules"]), (namespace, for_jobs["rules"])):
        allow(cluster, where, own, rules)
    return own, cluster.access.who(cluster.server.service_account_token(own, "operator"))


def allow(cluster, namespace, own, rules):
    group = "rbac.authorization.k8s.io"
    cluster.api.create("roles", namespace, {"metadata": {"name": "operator"}, "rules": rules})
    subject = {"kind": "ServiceAccount", "name": "operator", "namespace": own}
    role = {"apiGroup": group, "kind": "Role", "name": "operator"}
    cluster.api.create(
        "rolebindings", namespace, {"metadata": {"name": "operator"}, "roleRef": role, "subjects": [subject]}
    )


def test_an_operator_of_one_namespace_needs_rights_in_that_namespace_only(cluster, operators, namespace, limited):
    own, access = limited
    other = f"{namespace}-other"
    cluster.server.create_namespace(other)
    with cluster.proxy() as proxy:
        operator = operators.start(namespace, proxy=proxy, access=access, own_namespace=own)
        for where in (namespace, other):
            cluster.submit(where, a_job("j", ttlSecondsAfterFinished=1, evaluation={"modes": ["Evaluator"]}))

        eventually(lambda: cluster.api.find("federatedjobs", namespace, "j") is None, "the whole life of the job")

        assert "status" not in cluster.job(other, "j")
        assert [call for call in proxy.plain.calls if call.code == 403] == []
        assert "forbidden" not in operator.log().lower()
        assert tracebacks(operator) == []
    limited_api = Api(access)
    for where, verb in ((path("secrets", namespace), "GET"), (path("pods", other), "GET"), (path("nodes"), "GET")):
        with pytest.raises(ApiError, match="forbidden"):
            limited_api.call(verb, where)
    limited_api.close()
    cluster.clear(other)
