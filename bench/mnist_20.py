"""Accuracy of twenty clients on MNIST, beside Flower: ``python bench/mnist_20.py --data FOLDER``.

Twenty clients, ten chosen per round, ten rounds of one local epoch, batches of 50, the two-layer network; the data
divided by Dirichlet (alpha 0.5) and in shards (two per client); three seeds; measured on the official test images. Ours
is a real `fedjob run`, whose accuracies are read from its round log. ``--flower`` adds Flower's own server and FedAvg
with clients in PyTorch, in an environment of its own: the same initial model, parts, participants and order of batches.
A run takes one to two minutes on two cores.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
from children import HERE
from machine import Others, describe, require_linux
from peers import environment_with, run_peer
from report import Check, Row, Section, write_json

from fedjob_client.data.mnist import mnist
from fedjob_client.data.partition import owners
from fedjob_client.models.cnn import Cnn
from fedjob_operator.core.selection import init_seed, training_seed
from fedjob_protocol.builtin import CnnParameters
from fedjob_protocol.config import DataConfig, PartitionConfig
from fedjob_protocol.layout import ROUND_LOG_NAME
from fedjob_protocol.messages import RoundRecord

CLIENTS: Final = 20
PER_ROUND: Final = 10
ROUNDS: Final = 10
LAST: Final = 3
"""Rounds whose mean counts: single rounds jump."""
SEEDS: Final = (1, 2, 3)
SCHEMES: Final[dict[str, dict[str, Any]]] = {
    "Dirichlet": {"scheme": "Dirichlet", "alpha": 0.5},
    "Shards": {"scheme": "Shards", "shardsPerClient": 2},
}
GOAL: Final = 0.95
BATCH: Final = 50
LEARNING_RATE: Final = 0.1
RUN_SECONDS: Final = 3600.0


def main() -> None:
    """Measure, print, and write JSON where asked to."""
    require_linux()
    options = _options()
    machine = describe()
    print(", ".join(f"{name} {value}" for name, value in machine.items()), flush=True)
    python = environment_with(options.environment, ["flwr", options.torch, "numpy"]) if options.flower else None
    sections = []
    for scheme in options.schemes:
        began, others = time.perf_counter(), Others()
        with tempfile.TemporaryDirectory(prefix="fedjob-bench-") as folder:
            rows = _accuracies(Path(folder), scheme, options, python)
        checks = [
            Check(name=f"mean of {row.name}", value=float(np.mean(row.values)), unit="", goal=GOAL, at_most=False)
            for row in rows
            if scheme == "Dirichlet"
        ]
        title = f"MNIST, {scheme}: {PER_ROUND} of {CLIENTS} clients, {ROUNDS} rounds; mean accuracy of the last {LAST}"
        section = Section(
            name=f"mnist-{scheme.lower()}", title=title, rows=tuple(rows), checks=tuple(checks),
            seconds=time.perf_counter() - began, others=others.cores(),
        )  # fmt: skip
        sections.append(section)
        print(f"\n{section.text()}", flush=True)
    if options.json:
        write_json(options.json, machine, sections)


def _accuracies(folder: Path, scheme: str, options: argparse.Namespace, python: Path | None) -> list[Row]:
    """One value per seed: ours, and Flower's where it is asked for."""
    ours, theirs = [], []
    for seed in options.seeds:
        run = folder / f"{scheme}-{seed}"
        records = _run(run, scheme, seed, options.data)
        accuracies = [record.metrics["accuracy"] for record in records[1:] if record.metrics]
        print(f"{scheme}, seed {seed}: {_shown(accuracies)}", flush=True)
        ours.append(float(np.mean(accuracies[-LAST:])))
        if python is not None:
            peer = _flower(python, run, records, scheme, seed, options.data)
            print(f"{scheme}, seed {seed}, Flower: {_shown(peer)}", flush=True)
            theirs.append(float(np.mean(peer[-LAST:])))
        shutil.rmtree(run)
    rows = [Row(name="fedjob run", unit="", values=tuple(ours), note=f"seeds {options.seeds}")]
    return [*rows, Row(name="Flower", unit="", values=tuple(theirs))] if theirs else rows


def _run(folder: Path, scheme: str, seed: int, data: Path) -> list[RoundRecord]:
    """Run the job; return its round log."""
    folder.mkdir()
    job = {
        "apiVersion": "fedjob.dev/v1alpha1",
        "kind": "FederatedJob",
        "metadata": {"name": "mnist-20"},
        "spec": {
            "rounds": ROUNDS,
            "seed": seed,
            "model": {"name": "cnn"},
            "data": {"name": "mnist", "path": str(data.resolve()), "partition": SCHEMES[scheme]},
            "training": {"epochs": 1, "batchSize": BATCH, "learningRate": LEARNING_RATE},
            "clientGroups": [{"name": "clients", "replicas": CLIENTS}],
            "roundPolicy": {"clientsPerRound": PER_ROUND},
            "objective": {"metric": "accuracy", "mode": "Max"},
        },
    }
    (folder / "job.yaml").write_text(json.dumps(job), encoding="utf-8")  # JSON is YAML
    command = [sys.executable, "-P", "-m", "fedjob", "run", folder / "job.yaml", "--dir", folder / "run"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)
    if done.returncode != 0:
        sys.exit(
            f"bench: fedjob run ended with exit code {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    lines = (folder / "run" / "aggregator" / ROUND_LOG_NAME).read_text(encoding="utf-8").splitlines()
    return [RoundRecord.model_validate_json(line) for line in lines]


def _flower(python: Path, folder: Path, records: list[RoundRecord], scheme: str, seed: int, data: Path) -> list[float]:
    """The same rounds by Flower: what it needs to know is in a file, as it has nothing of ours."""
    source = mnist(DataConfig(name="mnist", path=str(data)), 0, 0)
    train, test = source.train().split(), source.test().split()
    values = {"index": 0, "count": CLIENTS, "seed": seed, **SCHEMES[scheme]}
    plan = {
        "rounds": [[each.client for each in record.contributors] for record in records[1:]],
        "seeds": [
            [training_seed(seed=seed, round_number=number, index=index) for index in range(CLIENTS)]
            for number in range(1, ROUNDS + 1)
        ],
        "batch": BATCH,
        "rate": LEARNING_RATE,
    }
    np.savez(
        folder / "problem.npz",
        x_train=train.x, y_train=train.y, x_test=test.x, y_test=test.y,
        owners=owners(train.y, PartitionConfig.model_validate(values)),
    )  # fmt: skip
    (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(init_seed(seed=seed))))
    np.savez(folder / "initial.npz", **Cnn(CnnParameters()).init(generator, (28, 28, 1), 10))
    arguments = [str(HERE / "mnist_flower.py"), str(folder)]
    answer: list[float] = json.loads(run_peer(python, arguments, timeout=RUN_SECONDS, threads=2).splitlines()[-1])
    return answer


def _shown(values: list[float]) -> str:
    return " ".join(f"{value:.4f}" for value in values)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Accuracy of twenty clients on MNIST, ours and Flower's.")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with the four IDX files")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="[default: 1 2 3]")
    parser.add_argument("--schemes", nargs="+", choices=list(SCHEMES), default=list(SCHEMES), help="[default: both]")
    parser.add_argument("--flower", action="store_true", help="beside Flower, installed into --environment")
    parser.add_argument("--torch", default="torch", metavar="REQUIREMENT", help="what pip installs [default: torch]")
    parser.add_argument(
        "--environment", type=Path, default=HERE.parent / ".cache" / "flower", metavar="DIR",
        help="environment with Flower and PyTorch [default: .cache/flower in the repository]",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all values to FILE")
    return parser.parse_args()


if __name__ == "__main__":
    main()
