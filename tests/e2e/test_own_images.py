"""Images that users make from ours, by the recipes of the examples."""

import pytest
import yaml

from tests.e2e.installation import build_and_load
from tests.e2e.jobs import JOB_SECONDS, is_complete
from tests.support.kubectl import committed
from tests.support.repository import ROOT

EXAMPLES = ROOT / "examples"


@pytest.mark.parametrize(
    ("example", "program", "argument"),
    [("12-own-strategy", "aggregator", "AGGREGATOR"), ("51-scikit-learn", "client", "BASE")],
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
