"""Commands for a cluster, without one: which cluster is meant, and what is said where there is no kubectl."""

import pytest
from click.testing import CliRunner

from fedjob.__main__ import PLUGIN, cli
from fedjob.failure import Failure
from fedjob.kubectl import Kubectl


def test_where_there_is_no_kubectl_that_is_said(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Failure, match="kubectl is not on PATH"):
        Kubectl().run("version")


def test_the_namespace_and_the_context_are_kubectls(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    command = Kubectl(namespace="lab", context="far").command("get", "pods")
    assert command == ["/bin/kubectl", "--namespace", "lab", "--context", "far", "get", "pods"]
    assert Kubectl().command("get") == ["/bin/kubectl", "get"]


@pytest.mark.parametrize(
    ("program", "arguments", "is_cluster"),
    [
        ("fedjob", [], False),
        ("fedjob", ["-n", "lab"], True),
        ("fedjob", ["--context", "far"], True),
        (PLUGIN, [], True),
    ],
)
def test_a_target_is_a_folder_unless_a_cluster_is_named_or_kubectl_calls(monkeypatch, program, arguments, is_cluster):
    asked = []
    monkeypatch.setattr("fedjob.__main__.pull_from_folder", lambda path, **_: asked.append(("folder", str(path))))
    monkeypatch.setattr("fedjob.__main__.pull_from_cluster", lambda _, name, **__: asked.append(("cluster", name)))
    done = CliRunner().invoke(cli, ["model", "pull", "j", *arguments], prog_name=program)
    assert done.exit_code == 0, done.output
    assert asked == [("cluster" if is_cluster else "folder", "j")]
