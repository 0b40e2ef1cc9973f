"""Images that users make from ours, by the recipes of the examples."""

import os

import pytest
import yaml

from tests.e2e.installation import IMAGE_SECONDS, build_and_load, load
from tests.e2e.jobs import JOB_SECONDS, client_selector, digits, is_complete
from tests.support.kubectl import command, committed
from tests.support.repository import ROOT

EXAMPLES = ROOT / "examples"


HAS_ROOM = pytest.mark.skipif(
    not os.environ.get("FEDJOB_E2E_LARGE_IMAGES"),
    reason="images with PyTorch or CUDA take 20 GB of disk: FEDJOB_E2E_LARGE_IMAGES=1 asks for them",
)
LARGE = (HAS_ROOM, pytest.mark.timeout(2400))


@pytest.mark.parametrize(
    ("example", "program", "argument"),
    [
        ("12-own-strategy", "aggregator", "AGGREGATOR"),
        ("51-scikit-learn", "client", "BASE"),
        pytest.param("50-pytorch", "client", "BASE", marks=LARGE),
        pytest.param("52-flower", "client", "BASE", marks=LARGE),
    ],
)
def test_a_job_with_an_image_of_an_example(kubectl, cluster, loaded_images, example, program, argument):
    image = f"fedjob/{example}:e2e"
    build_and_load(cluster, image, EXAMPLES / example, **{argument: loaded_images[program]})
    document = yaml.safe_load((EXAMPLES / example / "job.yaml").read_text(encoding="utf-8"))
    if program == "aggregator":
        document["spec"]["aggregator"]["template"]["spec"]["containers"][0]["image"] = image
    else:
        for group in document["spec"]["clientGroups"]:
            group["image"] = image
    kubectl.apply(document)
    status = kubectl.wait_for_job(document["metadata"]["name"], is_complete, "Complete", JOB_SECONDS)
    assert committed(status) == document["spec"]["rounds"]


@HAS_ROOM
@pytest.mark.timeout(2400)
def test_the_image_for_gpus_trains_on_the_cpu_where_there_is_none(kubectl, cluster):
    make = ["make", "image-cuda", "TAG=e2e", f"DOCKER_BUILD_FLAGS={os.environ.get('DOCKER_BUILD_FLAGS', '')}"]
    command(*make, cwd=ROOT, seconds=IMAGE_SECONDS)
    load(cluster, "fedjob/client-cuda:e2e")
    group = {"image": "fedjob/client-cuda:e2e", "device": "Auto"}
    kubectl.apply(digits("job", clients=2, rounds=30, group=group, model={"name": "softmax"}))
    status = kubectl.wait_for_job("job", lambda status: committed(status) >= 1, "round 1", JOB_SECONDS)
    assert "NVIDIA driver" in kubectl("logs", "-l", client_selector("job"), "--tail=200")
    status = kubectl.wait_for_job("job", is_complete, "Complete", JOB_SECONDS)
    assert next(metric["value"] for metric in status["metrics"] if metric["name"] == "accuracy") > 0.5
