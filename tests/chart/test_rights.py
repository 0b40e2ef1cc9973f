"""What the operator may do on an API server: what its code does there, and no more."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chart.helm import NAMESPACE, RELEASE, Helm, Rendered
from tests.support.cluster.apiserver import ApiServer
from tests.support.cluster.cluster import Cluster, eventually
from tests.support.cluster.jobs import a_job
from tests.support.cluster.operators import Operators
from tests.support.repository import ROOT

GOLDEN = ROOT / "tests/chart/golden"
ACCOUNT = "fedjob-operator"
ABROAD = "elsewhere"
"""A namespace that a namespaced operator has nothing to do with."""

WHEN_ALREADY_THERE = {
    ("get", "pods"),
    ("get", "services"),
    ("get", "persistentvolumeclaims"),
    ("get", "networkpolicies"),
    ("get", "deployments"),
    ("update", "deployments"),
}
"""Asked only where something of that name is there already; `tests/api` tries that."""


def rules(rendered: Rendered) -> set[tuple[str, str]]:
    """What the operator's roles grant, as verb and resource."""
    roles = [*rendered.of("Role"), *rendered.of("ClusterRole")]
    ours = [role for role in roles if role["metadata"]["name"].startswith("fedjob-operator")]
    return {
        (verb, resource)
        for role in ours
        for rule in role["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


@pytest.mark.parametrize("namespaces", [[], ["a"], ["a", "b"]], ids=["all", "one", "two"])
def test_namespaces_get_the_same_rights_as_a_whole_cluster_and_nothing_is_cluster_wide_then(helm, namespaces):
    rendered = helm.template("--no-hooks", watchNamespaces=namespaces)
    assert rules(rendered) == rules(helm.template("--no-hooks"))
    assert bool(namespaces) != any(
        role["metadata"]["name"].startswith("fedjob-operator") for role in rendered.of("ClusterRole")
    )
    assert bool(namespaces) != bool(rendered.of("ClusterRoleBinding"))
    jobs = {role["metadata"]["namespace"] for role in rendered.of("Role")} - {NAMESPACE}
    assert jobs == set(namespaces)
    for binding in [*rendered.of("RoleBinding"), *rendered.of("ClusterRoleBinding")]:
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": NAMESPACE}]


def test_no_rule_has_a_wildcard_or_reads_secrets_but_the_one(helm):
    rendered = helm.template()
    for role in [*rendered.of("Role"), *rendered.of("ClusterRole")]:
        for rule in role["rules"]:
            assert "*" not in [*rule["verbs"], *rule["resources"], *rule["apiGroups"]]
            if "secrets" in rule["resources"] and rule["verbs"] != ["create"]:
                assert (rule["verbs"], rule["resourceNames"]) == (["get"], ["fedjob-operator-key"])


def test_without_rbac_there_are_no_roles(helm):
    rendered = helm.template("--no-hooks", rbac__create=False, rbac__userRoles=False)
    assert not [kind for kind in ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding") if rendered.of(kind)]


def test_the_test_may_only_make_look_at_and_delete_jobs(helm):
    role = helm.template(watchNamespaces=["a"]).one("Role", "fedjob-test")
    assert role["metadata"]["namespace"] == "a"
    assert role["rules"] == [
        {"apiGroups": ["fedjob.dev"], "resources": ["federatedjobs"], "verbs": ["create", "get", "delete"]}
    ]


@pytest.fixture(scope="module")
def cluster(api_server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """An API server with a fake node, and the chart for two namespaces."""
    for name in (NAMESPACE, "jobs", ABROAD):
        api_server.create_namespace(name)
    Helm(api_server.kubeconfig(api_server.folder / "helm.kubeconfig")).install(
        RELEASE, NAMESPACE, watchNamespaces=["jobs"]
    )
    api_server.start_controllers()
    cluster = Cluster(api_server, tmp_path_factory.mktemp("node"))
    yield cluster
    cluster.close()


def can(server: ApiServer, namespace: str) -> list[str]:
    """The lines of `kubectl auth can-i --list` that the chart has to do with."""
    who = f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}"
    shown = server.kubectl("auth", "can-i", "--list", f"--as={who}", f"--namespace={namespace}", "--no-headers")
    assert shown.returncode == 0, shown.stderr
    lines = [" ".join(line.split()) for line in shown.stdout.splitlines()]
    everybodys = ("[", "selfsubject", "clustertrustbundles")
    return sorted(line for line in lines if line and not line.startswith(everybodys))


@pytest.mark.parametrize(("namespace", "file"), [(NAMESPACE, "own.txt"), ("jobs", "jobs.txt"), (ABROAD, "abroad.txt")])
def test_can_i_says_what_it_said_before(cluster, namespace, file):
    """Where a change is meant, write what is seen into the golden file."""
    assert can(cluster.server, namespace) == (GOLDEN / file).read_text().splitlines()


def test_a_job_needs_every_right_and_no_other(cluster, helm, tmp_path: Path):
    """The operator under the chart's account, from its first start to the deletion of a finished job.

    One of whose pods does not begin at first, so that it asks why.
    """
    granted = rules(helm.template("--no-hooks"))
    token = cluster.server.service_account_token(NAMESPACE, ACCOUNT)
    asked: set[tuple[str, str]] = set()
    operators = Operators(cluster, tmp_path)
    with cluster.proxy() as proxy:

        def note(call):
            asked.add((call.verb, call.resource))

        proxy.plain.spoil = note
        try:
            operators.start("jobs", proxy=proxy, access=cluster.access.who(token), own_namespace=NAMESPACE)
            template = {"spec": {"volumes": [{"name": "sites", "configMap": {"name": "sites"}}]}}
            cluster.submit(
                "jobs", a_job("small", ttlSecondsAfterFinished=5, serve={"replicas": 1}, group={"template": template})
            )
            cluster.until_reason("jobs", "small", "VolumeMountFailed")
            cluster.api.create(
                "configmaps", "jobs", {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "sites"}}
            )
            eventually(lambda: not cluster.api.list("federatedjobs", "jobs"), "the finished job is deleted")
            refused = [call for call in proxy.plain.calls if call.code == 403]
        finally:
            operators.close()
    assert refused == []
    of_the_api = {(verb, resource) for verb, resource in asked if not resource.startswith("/")}
    assert of_the_api - granted == set()
    assert granted - of_the_api <= WHEN_ALREADY_THERE


def test_an_operator_of_some_namespaces_is_refused_in_others(cluster):
    token = cluster.server.service_account_token(NAMESPACE, ACCOUNT)
    jobs = "/apis/fedjob.dev/v1alpha1/namespaces/{}/federatedjobs"
    assert cluster.server.request("GET", jobs.format("jobs"), token=token).status == 200
    assert cluster.server.request("GET", jobs.format(ABROAD), token=token).status == 403
    assert cluster.server.request("GET", "/apis/fedjob.dev/v1alpha1/federatedjobs", token=token).status == 403
    assert cluster.server.request("GET", "/api/v1/namespaces/jobs/secrets", token=token).status == 403


@pytest.mark.parametrize(
    ("role", "may", "may_not"),
    [
        ("view", ["get", "list", "watch"], ["create", "delete", "patch", "update"]),
        ("edit", ["get", "list", "watch", "create", "delete", "patch", "update"], []),
        ("admin", ["get", "list", "watch", "create", "delete", "patch", "update"], []),
    ],
)
def test_the_built_in_roles_get_their_part(cluster, helm, role, may, may_not):
    """Nothing aggregates here, as that is a controller's work: the labels and the rules are what counts."""
    (ours,) = [
        found
        for found in helm.template().of("ClusterRole")
        if f"rbac.authorization.k8s.io/aggregate-to-{role}" in found["metadata"]["labels"]
    ]
    allowed = {verb for rule in ours["rules"] if rule["resources"] == ["federatedjobs"] for verb in rule["verbs"]}
    assert set(may) <= allowed
    assert not allowed & set(may_not)
    assert [rule["verbs"] for rule in ours["rules"] if rule["resources"] == ["federatedjobs/status"]] == [["get"]]
