"""Ten of twenty clients take part in each round; the job is killed in the middle and resumed."""

import random
import signal
from pathlib import Path

import pytest

from tests.support.runs import Folder, assert_gone, fedjob, live_run, manifest, write_manifest

ROUNDS = 6
JOB = manifest(
    "ten-of-twenty",
    rounds=ROUNDS,
    seed=13,
    model={"name": "linear"},
    data={"name": "synthetic-linear", "parameters": {"numSamples": 400}},
    training={"epochs": 20, "batchSize": 10, "learningRate": 0.001},
    roundPolicy={"clientsPerRound": 10},
    clientGroups=[{"name": "clients", "replicas": 20}],
    evaluation={"modes": []},
)


@pytest.mark.slow
def test_ten_of_twenty_clients_killed_and_resumed_end_in_the_undisturbed_model(tmp_path: Path) -> None:
    file = write_manifest(tmp_path, JOB)
    calm = fedjob("run", file, "--dir", tmp_path / "calm", cwd=tmp_path)
    assert calm.returncode == 0, calm.stdout + calm.stderr
    undisturbed = Folder(tmp_path / "calm").rounds()

    folder = tmp_path / "killed"
    with live_run(file, folder) as run:
        run.wait_until(lambda: Folder(folder).committed() >= 2, "the commit of round 2")
        children, clients = run.children(), [p for name, p in run.programs().items() if name.startswith("client")]
        for client in random.Random(5).sample(clients, k=3):
            client.kill()
        run.signal(signal.SIGKILL)
        run.process.wait()
    with live_run(file, folder, "--resume") as run:
        assert_gone(children)
        assert run.finish() == 0, run.output

    resumed = Folder(folder).rounds()
    assert [record.participants for record in resumed] == [record.participants for record in undisturbed]
    assert {len(record.contributors) for record in resumed[1:]} == {10}
    assert [record.digest for record in resumed] == [record.digest for record in undisturbed]
