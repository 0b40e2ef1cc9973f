import json
import math

from tests.gpu.conftest import SIMULATED
from tests.support.runs import fedjob, manifest, write_manifest

SAMPLES, ROUNDS = (24, 2) if SIMULATED else (200_000, 10)


def run(folder, device, *, model="logistic", data="synthetic-logistic"):
    folder.mkdir()
    document = manifest(
        "on-gpus",
        rounds=ROUNDS,
        seed=3,
        model={"name": model},
        data={"name": data, "parameters": {"numSamples": SAMPLES, "numTestSamples": 50, "features": 2}},
        training={"epochs": 2, "batchSize": 1_000_000, "learningRate": 0.1},
        clientGroups=[{"name": "clients", "replicas": 2, "device": device}],
    )
    done = fedjob("run", write_manifest(folder, document), "--dir", folder / "run", "-o", "json", cwd=folder)
    assert done.returncode == 0, done.stderr
    logs = [path.read_text(encoding="utf-8") for path in sorted((folder / "run" / "logs").glob("client*.log"))]
    return json.loads(done.stdout.splitlines()[-1])["status"], logs


def test_a_whole_job_with_clients_on_the_gpu_learns_and_repeats_its_digest(tmp_path):
    first, logs = run(tmp_path / "first", "GPU")
    again, _ = run(tmp_path / "again", "Auto")
    assert len(logs) == 2
    assert all("training on " in log and "computing on the CPU" not in log for log in logs)
    assert first["phase"] == "Complete"
    assert first["model"]["digest"] == again["model"]["digest"]
    measured = {item["name"]: item["value"] for item in first["metrics"]}
    assert measured["loss"] < math.log(2)
    assert measured["accuracy"] > 0.6
