"""Installing the chart as a user does."""

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.kubectl import Kubectl, command
from tests.support.repository import ROOT

CHART = ROOT / "charts" / "fedjob"
OPERATOR_NAMESPACE = "fedjob-system"
RELEASE = "fedjob"
OPERATOR_SELECTOR = "app.kubernetes.io/name=fedjob-operator"
VALUES = {"operator": "operator.image", "client": "jobs.clientImage", "aggregator": "jobs.aggregatorImage"}
"""Where the chart is told of an image."""
RESOURCE_SELECTOR = "app.kubernetes.io/part-of=fedjob,app.kubernetes.io/instance"
INSTALL_SECONDS = 180
IMAGE_SECONDS = 900


def images(tag: str) -> dict[str, str]:
    """Names of our images, by program."""
    return {program: f"fedjob/{program}:{tag}" for program in ("operator", "client", "aggregator")}


def build_and_load(cluster: str, image: str, folder: Path, **arguments: str) -> None:
    """Build an image of a folder with a Dockerfile, and put it on the nodes.

    Args:
        cluster: Name of the kind cluster.
        image: Name that it gets.
        folder: The context.
        arguments: Of the build.
    """
    flags = shlex.split(os.environ.get("DOCKER_BUILD_FLAGS", ""))
    chosen = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
    command("docker", "build", *flags, *chosen, "--tag", image, folder, seconds=IMAGE_SECONDS)
    load(cluster, image)


def load(cluster: str, image: str) -> None:
    """Put an image that is there on the nodes."""
    command("kind", "load", "docker-image", "--name", cluster, image, seconds=IMAGE_SECONDS)


@dataclass(frozen=True, slots=True)
class Installation:
    """One release of the chart."""

    images: Mapping[str, str]
    namespace: str = OPERATOR_NAMESPACE
    release: str = RELEASE
    chart: Path = CHART

    @property
    def kubectl(self) -> Kubectl:
        """Kubectl in the operator's namespace."""
        return Kubectl(self.namespace)

    def install(self, *options: str) -> None:
        """Install or upgrade, and wait until the operator is ready."""
        tags = {program: image.rsplit(":", 1) for program, image in self.images.items()}
        values = [
            word
            for program, (repository, tag) in tags.items()
            for word in ("--set", f"{VALUES[program]}.repository={repository}", "--set", f"{VALUES[program]}.tag={tag}")
        ]
        command(
            "helm",
            "upgrade",
            "--install",
            self.release,
            self.chart,
            "--namespace",
            self.namespace,
            "--create-namespace",
            *values,
            *options,
            "--wait",
            f"--timeout={INSTALL_SECONDS}s",
            seconds=INSTALL_SECONDS + 30,
        )

    def uninstall(self) -> None:
        """Remove the release; the resource's definition, and so the jobs, stay."""
        command("helm", "uninstall", self.release, "--namespace", self.namespace, "--wait", "--ignore-not-found")

    def remove_leftovers(self) -> None:
        """Remove what a release leaves behind when its namespace is deleted under it; docs/operations.md says how."""
        roles = f"{RESOURCE_SELECTOR}={self.release}"
        self.kubectl("delete", "clusterroles,clusterrolebindings", "-l", roles)

    def test(self) -> None:
        """Run the tests that the chart brings."""
        command("helm", "test", self.release, "--namespace", self.namespace, "--timeout=240s", seconds=300)

    def operator_pods(self) -> set[str]:
        """Names of the operator's pods."""
        return self.kubectl.names("pods", OPERATOR_SELECTOR)
