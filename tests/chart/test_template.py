"""What the chart renders from its values."""

import re

import pytest
import yaml

from fedjob_operator.__main__ import main
from tests.chart.helm import CHART, HelmError, parse
from tests.support.repository import ROOT

DIGEST = "sha256:" + "a" * 64
MONITORING = {"metrics__serviceMonitor__enabled": True, "metrics__podMonitor__enabled": True}


def arguments(rendered):
    return dict(argument.removeprefix("--").split("=", 1) for argument in rendered.operator()["args"])


def test_lint_has_nothing_to_say(helm):
    assert "[WARNING]" not in helm.lint()
    assert "[WARNING]" not in helm.lint(watchNamespaces=["a"], createNamespace=True, **MONITORING)


def test_the_version_is_that_of_the_programs():
    version = (ROOT / "VERSION").read_text().strip()
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (version, version)


def test_images_have_the_charts_version_unless_told_otherwise(helm):
    version = (ROOT / "VERSION").read_text().strip()
    plain = helm.template()
    assert plain.operator()["image"] == f"fedjob/operator:{version}"
    assert arguments(plain)["client-image"] == f"fedjob/client:{version}"
    assert arguments(plain)["aggregator-image"] == f"fedjob/aggregator:{version}"
    told = helm.template(
        operator__image__registry="registry.example.org:5000",
        operator__image__tag="7",
        jobs__clientImage__digest=DIGEST,
        jobs__clientImage__tag="not-this",
        jobs__aggregatorImage__repository="mine/aggregator",
    )
    assert told.operator()["image"] == "registry.example.org:5000/fedjob/operator:7"
    assert arguments(told)["client-image"] == f"fedjob/client@{DIGEST}"
    assert arguments(told)["aggregator-image"] == f"mine/aggregator:{version}"


def test_every_flag_is_one_that_the_operator_knows(helm):
    told = helm.template(
        watchNamespaces=["a", "b"], jobs__imagePullSecrets=["x", "y"], jobs__serviceAccounts=["s"], **MONITORING
    )
    given = arguments(told)
    assert set(given) <= {option.removeprefix("--") for parameter in main.params for option in parameter.opts}
    assert given["namespaces"] == "a,b"
    assert given["image-pull-secrets"] == "x,y"
    assert given["service-accounts"] == "s"
    context = main.make_context("fedjob-operator", list(told.operator()["args"]))
    assert context.params["namespaces"] == ("a", "b")


@pytest.mark.parametrize(("value", "expected"), [(None, None), ([], ""), (["a", "b"], "a,b")])
def test_no_list_of_accounts_allows_all_and_an_empty_one_none(helm, value, expected):
    assert arguments(helm.template(jobs__serviceAccounts=value)).get("service-accounts") == expected


def test_what_is_said_of_the_operators_pod_is_in_it(helm):
    told = helm.template(
        operator__nodeSelector={"disk": "ssd"},
        operator__tolerations=[{"key": "a", "operator": "Exists"}],
        operator__affinity={"nodeAffinity": {}},
        operator__priorityClassName="high",
        operator__imagePullSecrets=["pull"],
        operator__extraEnv=[{"name": "HTTPS_PROXY", "value": "http://proxy"}],
        operator__podAnnotations={"a": "b"},
        operator__podLabels={"c": "d"},
        operator__securityContext={"runAsUser": 5},
        commonLabels={"team": "ml"},
    )
    template = told.one("Deployment")["spec"]["template"]
    spec = template["spec"]
    assert spec["nodeSelector"] == {"disk": "ssd"}
    assert spec["tolerations"] == [{"key": "a", "operator": "Exists"}]
    assert spec["affinity"] == {"nodeAffinity": {}}
    assert spec["priorityClassName"] == "high"
    assert spec["imagePullSecrets"] == [{"name": "pull"}]
    assert {"name": "HTTPS_PROXY", "value": "http://proxy"} in told.operator()["env"]
    assert template["metadata"]["annotations"]["a"] == "b"
    assert template["metadata"]["labels"]["c"] == "d"
    assert told.operator()["securityContext"]["runAsUser"] == 5
    assert told.operator()["securityContext"]["readOnlyRootFilesystem"] is True
    assert all(
        document["metadata"]["labels"]["team"] == "ml" for document in told.documents if document["kind"] != "Pod"
    )


def test_one_operator_runs_at_a_time_and_is_probed(helm):
    rendered = helm.template()
    deployment = rendered.one("Deployment")
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    container = rendered.operator()
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"health": 8080, "metrics": 9090}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] == "health"
    liveness = container["livenessProbe"]
    hung = 60  # seconds after which the operator itself says that a loop hangs
    until_restart = hung + liveness["periodSeconds"] * liveness["failureThreshold"]
    assert until_restart + deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] <= 120


def pods(rendered):
    return [document["spec"] for document in rendered.of("Pod")] + [
        rendered.one("Deployment")["spec"]["template"]["spec"]
    ]


def test_every_pod_is_restricted_small_and_writes_to_volumes_only(helm):
    found = pods(helm.template())
    assert len(found) == 2
    for spec in found:
        context = spec["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert all(
            set(volume) == {"name", "emptyDir"} and volume["emptyDir"]["sizeLimit"]
            for volume in spec.get("volumes", [])
        )
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            requests, limits = container["resources"]["requests"], container["resources"]["limits"]
            assert int(requests["cpu"].removesuffix("m")) <= 50
            assert set(limits) == {"cpu", "memory"}


def test_monitors_are_made_where_they_are_asked_for(helm):
    plain = helm.template()
    assert plain.of("ServiceMonitor") + plain.of("PodMonitor") == []
    told = helm.template(metrics__serviceMonitor__labels={"release": "prometheus"}, **MONITORING)
    monitor = told.one("ServiceMonitor")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    service = told.one("Service")
    selector = monitor["spec"]["selector"]["matchLabels"]
    assert selector.items() <= service["metadata"]["labels"].items()
    assert (
        service["spec"]["selector"].items() <= told.one("Deployment")["spec"]["template"]["metadata"]["labels"].items()
    )
    assert told.one("PodMonitor")["spec"]["namespaceSelector"] == {"any": True}
    named = helm.template(watchNamespaces=["a"], **MONITORING)
    assert named.one("PodMonitor")["spec"]["namespaceSelector"] == {"matchNames": ["a"]}


def test_only_the_operators_pod_is_behind_its_service_and_policy(helm):
    rendered = helm.template()
    labels = rendered.one("Pod")["metadata"]["labels"]
    for selector in (
        rendered.one("Service")["spec"]["selector"],
        rendered.one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ):
        assert not selector.items() <= labels.items()


def test_the_operator_is_told_whom_the_policies_of_jobs_let_in(helm):
    rendered = helm.template(
        networkPolicy__monitoringNamespaceLabels={"team": "watch", "a": "b"}, watchNamespaces=["x"]
    )
    (own,) = rendered.of("NetworkPolicy")
    told = arguments(rendered)
    pairs = dict(pair.split("=") for pair in told["operator-pod-labels"].split(","))
    assert pairs == own["spec"]["podSelector"]["matchLabels"]
    assert pairs.items() <= rendered.one("Deployment")["spec"]["template"]["metadata"]["labels"].items()
    assert told["monitoring-namespace-labels"] == "a=b,kubernetes.io/metadata.name=monitoring,team=watch"


def test_without_network_policies_there_is_neither_one_nor_a_right_to_make_one(helm):
    rendered = helm.template(networkPolicy__enabled=False)
    assert rendered.of("NetworkPolicy") == []
    assert not {"operator-pod-labels", "monitoring-namespace-labels"} & arguments(rendered).keys()
    assert "networkpolicies" not in str(rendered.of("ClusterRole"))


def test_names_follow_the_release(helm):
    assert helm.template().one("Deployment")["metadata"]["name"] == "fedjob-operator"
    assert helm.template(release="lab").one("Deployment")["metadata"]["name"] == "lab-fedjob-operator"
    assert helm.template(fullnameOverride="x").one("Deployment")["metadata"]["name"] == "x-operator"
    long = helm.template(release="a" * 53)
    assert all(len(document["metadata"]["name"]) <= 63 for document in long.documents)


def test_the_crd_is_the_generated_one_and_outlives_the_release(helm):
    rendered = helm.template().one("CustomResourceDefinition")
    ours = yaml.safe_load((ROOT / "crds/federatedjobs.fedjob.dev.yaml").read_text())
    assert rendered["spec"] == ours["spec"]
    assert rendered["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert "annotations" not in helm.template(crds__keep=False).one("CustomResourceDefinition")["metadata"]
    assert helm.template(crds__enabled=False).of("CustomResourceDefinition") == []


def test_an_account_of_ones_own_is_used_and_not_made(helm):
    rendered = helm.template("--no-hooks", serviceAccount__create=False, serviceAccount__name="mine")
    assert rendered.of("ServiceAccount") == []
    assert rendered.one("Deployment")["spec"]["template"]["spec"]["serviceAccountName"] == "mine"
    assert {
        subject["name"]
        for kind in ("RoleBinding", "ClusterRoleBinding")
        for binding in rendered.of(kind)
        for subject in binding["subjects"]
    } == {"mine"}


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"replicas": 2}, "replicas"),
        ({"operator__imge": "x"}, "imge"),
        ({"operator__image__tag": "a b"}, "tag"),
        ({"operator__image__digest": "sha256:short"}, "digest"),
        ({"operator__image__pullPolicy": "Sometimes"}, "pullPolicy"),
        ({"operator__image__repository": ""}, "repository"),
        ({"operator__logLevel": "loud"}, "logLevel"),
        ({"operator__resources": {"cpu": "1"}}, "resources"),
        ({"operator__extraEnv": [{"value": "x"}]}, "extraEnv"),
        ({"watchNamespaces": "a"}, "watchNamespaces"),
        ({"watchNamespaces": ["a,b"]}, "watchNamespaces"),
        ({"watchNamespaces": ["a", "a"]}, "watchNamespaces"),
        ({"jobs__serviceAccounts": "default"}, "serviceAccounts"),
        ({"jobs__imagePullSecrets": [{"name": "x"}]}, "imagePullSecrets"),
        ({"crds__enabled": "yes"}, "enabled"),
        ({"metrics__podMonitor__interval": "often"}, "interval"),
        ({"networkPolicy__monitoringNamespaceLabels": {"a": 1}}, "monitoringNamespaceLabels"),
        ({"test__timeoutSeconds": 0}, "timeoutSeconds"),
        ({"commonLabels": {"a": 1}}, "commonLabels"),
    ],
)
def test_values_that_mean_nothing_are_refused_by_name(helm, values, names):
    with pytest.raises(HelmError, match=names):
        helm.template(**values)


def test_an_older_kubernetes_is_refused(helm):
    with pytest.raises(HelmError, match="kubeVersion"):
        helm.run("template", "fedjob", CHART, "--kube-version", "1.29.9")


def leaves(values, prefix=""):
    """Values by their path; maps of quantities and labels count as one value."""
    for name, value in values.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict) and value and name not in {"requests", "limits", "monitoringNamespaceLabels"}:
            yield from leaves(value, f"{path}.")
        else:
            yield path, value


def test_the_readme_lists_every_value_with_its_default():
    values = dict(leaves(yaml.safe_load((CHART / "values.yaml").read_text())))
    rows = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|", (CHART / "README.md").read_text(), re.MULTILINE)
    assert {name: yaml.safe_load(default) for name, default in rows} == values


def test_the_manifest_for_people_without_helm_is_up_to_date(helm):
    rendered = helm.template("--no-hooks", createNamespace=True)
    committed = parse((ROOT / "dist/install.yaml").read_text())
    assert committed == rendered, "call `make dist` and commit what it writes"
    assert committed.documents[0]["kind"] == "Namespace"
    assert committed.documents[0]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
