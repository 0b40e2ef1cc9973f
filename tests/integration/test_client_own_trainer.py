"""The README's own trainers, as they stand there."""

import json
import re
from pathlib import Path

import pytest

from fedjob_protocol.config import PartitionConfig, PartitionScheme, Role
from tests.integration.client_support import ROOT, a_client, a_config, an_aggregator, an_api

pytestmark = pytest.mark.integration

README = (ROOT / "images" / "client" / "README.md").read_text(encoding="utf-8")


def example(word: str) -> str:
    """The Python block of the README that has a word."""
    (found,) = [block for block in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL) if word in block]
    return found


async def test_the_scikit_learn_example_learns_the_digits(tmp_path: Path):
    (tmp_path / "my_trainer.py").write_text(example("sklearn"))
    data = {"name": "digits", "partition": PartitionConfig(scheme=PartitionScheme.DIRICHLET, index=0, count=2, alpha=5)}
    values = {"trainer": "my_trainer:MyTrainer", "trainer_path": str(tmp_path), "data": data}
    async with an_aggregator() as aggregator:
        with a_client(tmp_path, a_config(**values)) as client:
            async with an_api(client.url) as api:
                start = {"jobUid": "job-1", "seed": 1, "destination": aggregator.destination("init")}
                await api.call("POST", "/v1/init", start)
                await aggregator.until(lambda: len(aggregator.uploads) == 1)
                initial = aggregator.uploads[0].arrays()
                aggregator.serve(**initial)
                await api.train(1, aggregator.task(1))
                await aggregator.until(lambda: len(aggregator.uploads) == 2)
                delta = aggregator.uploads[1].arrays()
        aggregator.serve(**{name: array + delta[name] for name, array in initial.items()})
        with a_client(tmp_path, a_config(**values, role=Role.EVALUATOR)) as client:
            async with an_api(client.url) as api:
                base = {"round": 1, "digest": aggregator.digest}
                task = {"jobUid": "job-1", "base": base, "modelUrl": f"{aggregator.url}/model"}
                _, view = await api.call("POST", "/v1/evaluate?wait=20", task)
    assert view["state"] == "Done", view
    assert view["metrics"]["accuracy"] > 0.8
    assert json.loads(aggregator.uploads[1].headers["Fedjob-Metrics"]) == {}
