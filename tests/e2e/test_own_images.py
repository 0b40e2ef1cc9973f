"""Images that users make from ours, by the recipes of the examples."""

import os
import shlex

import pytest
import yaml

from tests.e2e.jobs import JOB_SECONDS, is_complete
from tests.support.kubectl import command, committed
from tests.support.repository import ROOT

EXAMPLES = ROOT / "examples"


def made(cluster: str, example: str, argument: str, base: str) -> str:
    """Build the image of an example on one of ours, and put it on the nodes; return its name."""
    name = f"fedjob/{example}:e2e"
    flags = shlex.split(os.environ.get("DOCKER_BUILD_FLAGS", ""))
    folder = EXAMPLES / example
    command("docker", "build", *flags, "--build-arg", f"{argument}={base}", "--tag", name, folder, seconds=600)
    command("kind", "load", "docker-image", "--name", cluster, name, seconds=300)
    return name


@pytest.mark.parametrize(
    ("example", "program", "argument"),
    [("12-own-strategy", "aggregator", "AGGREGATOR"), ("51-scikit-learn", "client", "BASE")],
)
def test_a_job_with_an_image_of_an_example(kubectl, cluster, loaded_images, example, program, argument):
    image = made(cluster, example, argument, loaded_images[program])
    document = yaml.safe_load((EXAMPLES / example / "job.yaml").read_text(encoding="utf-8"))
    if program == "aggregator":
        document["spec"]["aggregator"]["template"]["spec"]["containers"][0]["image"] = image
    else:
        for group in document["spec"]["clientGroups"]:
            group["image"] = image
    kubectl.apply(document)
    status = kubectl.wait_for_job(document["metadata"]["name"], is_complete, "Complete", JOB_SECONDS)
    assert committed(status) == document["spec"]["rounds"]
