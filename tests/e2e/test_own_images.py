"""Images that users make from ours, by the recipes of the examples."""

import os

import pytest
import yaml

from tests.e2e.installation import build_and_load
from tests.e2e.jobs import JOB_SECONDS, is_complete
from tests.support.kubectl import committed
from tests.support.repository import ROOT

EXAMPLES = ROOT / "examples"


LARGE = (
    pytest.mark.skipif(
        not os.environ.get("FEDJOB_E2E_LARGE_IMAGES"),
        reason="images with PyTorch take 20 GB of disk: FEDJOB_E2E_LARGE_IMAGES=1 asks for them",
    ),
    pytest.mark.timeout(2400),
)


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
