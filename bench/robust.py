"""What robust rules are worth: two of ten clients send their updates with the wrong sign, and the data are IID.

    python bench/robust.py [--rounds 20] [--seeds 3] [--mnist DIR] [--json FILE]

Real `fedjob run`s of examples/11-robust, on the digits that come with the programs, or on MNIST files. Beside each
rule attacked: FedAvg attacked, and FedAvg and the rule without an attack, with the same seeds. Accuracy on the
held-out data, mean of the last three rounds, in percent. It measures no time, so the machine need not be idle.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any, Final

from children import run_python
from machine import describe
from report import Check, Row, Section, write_json

EXAMPLE: Final = Path(__file__).resolve().parents[1] / "examples/11-robust/job.yaml"
RUN_SECONDS: Final = 600.0
GOAL_POINTS: Final = 3.0
"""A rule that is attacked has to be within so many points of FedAvg that is not."""
LAST_ROUNDS: Final = 3
HONEST: Final = "[{name: honest, replicas: 10}]"
RULES: Final[dict[str, str]] = {
    "FedAvg": "{name: FedAvg}",
    "FedAvg, clipNorm 1": "{name: FedAvg, parameters: {clipNorm: 1}}",
    "Median": "{name: Median}",
    "TrimmedMean 0.2": "{name: TrimmedMean, parameters: {trimFraction: 0.2}}",
    "Krum 2": "{name: Krum, parameters: {byzantine: 2}}",
    "MultiKrum 2": "{name: MultiKrum, parameters: {byzantine: 2}}",
}
WITHOUT_GOAL: Final = frozenset({"FedAvg", "FedAvg, clipNorm 1"})
"""Neither tells a wrong direction from a right one."""


def robust(folder: Path, *, rounds: int, seeds: int, mnist: Path | None) -> Section:
    """Accuracy of each rule, attacked and not."""
    rows = []
    for rule, strategy in RULES.items():
        for attacked in (False, True):
            found = [
                _accuracy(
                    folder / f"{len(rows)}-{seed}", strategy, attacked=attacked, rounds=rounds, seed=seed, mnist=mnist
                )
                for seed in range(seeds)
            ]
            name = f"{rule}, {'2 of 10 flipped' if attacked else 'clean'}"
            rows.append(Row(name=name, unit="%", values=tuple(100 * value for value, _ in found), note=_named(found)))
            print(rows[-1].line(), flush=True)
    clean = mean(rows[0].values)
    checks = [
        Check(name=f"{rule}: points lost", value=clean - mean(row.values), unit="", goal=GOAL_POINTS)
        for rule, row in zip(RULES, rows[1::2], strict=True)
        if rule not in WITHOUT_GOAL
    ]
    data = "digits" if mnist is None else "MNIST"
    title = f"Robust rules: {data}, softmax, 10 clients, IID, {rounds} rounds, {seeds} seeds"
    return Section(name="robust", title=title, rows=tuple(rows), checks=tuple(checks))


def _accuracy(
    folder: Path, strategy: str, *, attacked: bool, rounds: int, seed: int, mnist: Path | None
) -> tuple[float, list[int]]:
    """Mean accuracy of the last rounds, and how many honest and faulty clients were rejected in all rounds."""
    overrides = [f"spec.rounds={rounds}", f"spec.seed={seed}", f"spec.strategy={strategy}"]
    if not attacked:
        overrides.append(f"spec.clientGroups={HONEST}")
    if mnist is not None:
        overrides += ["spec.data.name=mnist", f"spec.data.path={mnist}", "spec.training.batchSize=32"]
    arguments = [part for override in overrides for part in ("--set", override)]
    command = ["-m", "fedjob", "run", str(EXAMPLE), "--dir", str(folder), "-o", "json", *arguments]
    status = json.loads(run_python(command, timeout=RUN_SECONDS).splitlines()[-1])["status"]
    if status["phase"] != "Complete":
        sys.exit(f"bench: {status['phase']}: {status['reason']}: {status.get('message', '')}")
    last = status["recentRounds"][-LAST_ROUNDS:]
    log = (folder / "aggregator/rounds.jsonl").read_text(encoding="utf-8").splitlines()
    judged: list[dict[str, Any]] = [item for line in log for item in json.loads(line)["judgements"]]
    rejected = [item["client"] for item in judged if item["verdict"] != "Clipped"]
    faulty = sum(client >= 8 for client in rejected) if attacked else 0
    accuracies = [metric["value"] for row in last for metric in row["metrics"] if metric["name"] == "accuracy"]
    return mean(accuracies), [len(rejected) - faulty, faulty]


def _named(found: list[tuple[float, list[int]]]) -> str:
    honest, faulty = (sum(counts[which] for _, counts in found) for which in (0, 1))
    return f"named over all rounds: honest {honest}, faulty {faulty}" if honest + faulty else ""


def main() -> None:
    """Measure, print, and write JSON where asked to."""
    parser = argparse.ArgumentParser(description="Measure what robust rules are worth.")
    parser.add_argument("--rounds", type=int, default=20, help="rounds of each run [default: 20]")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each [default: 3]")
    parser.add_argument("--mnist", type=Path, metavar="DIR", default=os.environ.get("FEDJOB_TEST_MNIST"))
    parser.add_argument("--digits", action="store_true", help="digits, also where FEDJOB_TEST_MNIST names MNIST files")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all values to FILE")
    options = parser.parse_args()
    mnist = None if options.digits or options.mnist is None else Path(options.mnist)
    with tempfile.TemporaryDirectory(prefix="fedjob-robust-") as folder:
        section = robust(Path(folder), rounds=options.rounds, seeds=options.seeds, mnist=mnist)
    print(f"\n{section.text()}", flush=True)
    if options.json:
        write_json(options.json, describe(), [section])


if __name__ == "__main__":
    main()
