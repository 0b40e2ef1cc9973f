"""Calls helm on our chart."""

import json
import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support.repository import ROOT

Document = dict[str, Any]

CHART = ROOT / "charts/fedjob"
RELEASE, NAMESPACE = "fedjob", "fedjob-system"
KUBE_VERSION = "1.35.0"
"""What a chart is rendered for where there is no cluster; a helm that was built by hand believes in an old one."""
SECONDS = 90.0


class HelmError(Exception):
    """Helm said no; its words."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """The objects of a chart."""

    documents: tuple[Document, ...]

    def of(self, kind: str) -> list[Document]:
        """All of a kind."""
        return [document for document in self.documents if document["kind"] == kind]

    def one(self, kind: str, name: str | None = None, namespace: str | None = None) -> Document:
        """The only one of a kind, or the one of that name, or of that name in that namespace."""
        found = [
            document
            for document in self.of(kind)
            if (name is None or document["metadata"]["name"] == name)
            and (namespace is None or document["metadata"].get("namespace") == namespace)
        ]
        assert len(found) == 1, [(document["kind"], document["metadata"]["name"]) for document in self.documents]
        return found[0]

    def operator(self) -> Document:
        """The operator's container."""
        (container,) = self.one("Deployment")["spec"]["template"]["spec"]["containers"]
        return container


class Helm:
    """Helm.

    Args:
        kubeconfig: Which API server it talks to; without one it only renders.
    """

    def __init__(self, kubeconfig: Path | None = None) -> None:
        self._kubeconfig = kubeconfig

    def run(self, *arguments: str | Path) -> str:
        """Run helm to its end and return what it printed.

        Raises:
            HelmError: It failed.
        """
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("HELM_", "KUBE"))}
        environment["KUBECONFIG"] = str(self._kubeconfig or os.devnull)
        done = subprocess.run(
            ["helm", *map(str, arguments)],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=environment,
            timeout=SECONDS,
        )
        if done.returncode:
            raise HelmError(done.stderr)
        return done.stdout

    def lint(self, **values: Any) -> str:
        """Lint the chart."""
        return self.run("lint", CHART, "--strict", *setting(values))

    def template(self, *flags: str, release: str = RELEASE, namespace: str = NAMESPACE, **values: Any) -> Rendered:
        """Render the chart."""
        kube_version = ("--kube-version", KUBE_VERSION)
        return parse(
            self.run("template", release, CHART, "--namespace", namespace, *kube_version, *flags, *setting(values))
        )

    def install(self, release: str, namespace: str, *flags: str, chart: Path = CHART, **values: Any) -> str:
        """Install the chart without waiting for pods; return the notes."""
        return self.run("install", release, chart, "--namespace", namespace, *flags, *setting(values))

    def upgrade(self, release: str, namespace: str, *flags: str, chart: Path = CHART, **values: Any) -> str:
        """Upgrade the release without waiting for pods; return the notes."""
        return self.run("upgrade", release, chart, "--namespace", namespace, *flags, *setting(values))

    def uninstall(self, release: str, namespace: str) -> str:
        """Remove a release."""
        return self.run("uninstall", release, "--namespace", namespace)


def setting(values: Document) -> Iterable[str]:
    """Flags that set values; ``__`` stands for a dot."""
    return [
        part
        for name, value in values.items()
        for part in ("--set-json", f"{name.replace('__', '.')}={json.dumps(value)}")
    ]


def parse(text: str) -> Rendered:
    """The objects in a stream of YAML."""
    return Rendered(tuple(document for document in yaml.safe_load_all(text) if document))
