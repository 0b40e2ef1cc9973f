"""What turns cost a round, `clientPods: PerRound` against `PerJob`, on the cluster of the current kubeconfig.

Needs the installed chart, with its images on the nodes. Jobs of eight clients, four in each round, run one after the
other, the two ways in turn; a round's time is that from the commit of the first to that of the last, by their number.
With `--gpus 1` each client asks for one: with fewer on the nodes than four a round runs in waves.

    python bench/turns.py [TIMES] [--gpus N]
"""

import argparse
import json
import statistics
import subprocess
import time
import uuid
from typing import Any, Final

from first_round import LIMIT_SECONDS, RESOURCE, kubectl

CLIENTS: Final = 8
PER_ROUND: Final = 4
ROUNDS: Final = 8
GOAL_SECONDS: Final = 4.0
PATH: Final = "{.status.phase} {.status.rounds.committed}"


def manifest(name: str, way: str, gpus: int) -> dict[str, Any]:
    """A job whose rounds are short, so that what is around them shows."""
    return {
        "apiVersion": "fedjob.dev/v1alpha1",
        "kind": "FederatedJob",
        "metadata": {"name": name},
        "spec": {
            "rounds": ROUNDS,
            "clientPods": way,
            "model": {"name": "softmax"},
            "data": {"name": "digits", "partition": {"scheme": "IID"}},
            "clientGroups": [{"name": "clients", "replicas": CLIENTS, "gpus": gpus}],
            "roundPolicy": {"clientsPerRound": PER_ROUND, "deadlineSeconds": int(LIMIT_SECONDS)},
            "evaluation": {"modes": []},
            "aggregator": {"storage": {"size": "64Mi", "retentionPolicy": {"whenDeleted": "Delete"}}},
        },
    }


def measure(way: str, gpus: int) -> float:
    """Run a job; return the seconds of a round."""
    name = f"turns-{uuid.uuid4().hex[:6]}"
    kubectl("create", "namespace", name)
    kubectl("apply", "--namespace", name, "-f", "-", text=json.dumps(manifest(name, way, gpus)))
    watch = ["kubectl", "get", RESOURCE, name, "--namespace", name, "-o", f"jsonpath={PATH}{{'\\n'}}"]
    watch += ["--watch", f"--request-timeout={ROUNDS * LIMIT_SECONDS:.0f}s"]
    first: tuple[int, float] | None = None
    number = -1
    with subprocess.Popen(watch, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        for line in watching.stdout:
            now = time.monotonic()
            phase, committed = [*line.rstrip("\n").split(" "), ""][:2]
            number = int(committed or -1)
            if number >= 1 and first is None:
                first = number, now
            if number >= ROUNDS or phase == "Failed":
                break
        watching.terminate()
    kubectl("delete", "namespace", name)
    if first is None or number < ROUNDS:
        raise SystemExit(f"the job did not come to its end; is the chart installed, and are there {gpus} GPUs?")
    return (now - first[1]) / (ROUNDS - first[0])


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description="Measure what clients' turns cost a round.")
    parser.add_argument("times", type=int, nargs="?", default=5, help="runs of each (default: 5)")
    parser.add_argument("--gpus", type=int, default=0, help="GPUs that each client of PerRound asks for (default: 0)")
    options = parser.parse_args()
    runs = [(measure("PerJob", 0), measure("PerRound", options.gpus)) for _ in range(options.times)]
    ways = {"PerJob": [always for always, _ in runs], "PerRound": [turns for _, turns in runs]}
    extra = [turns - always for always, turns in runs]
    print(f"{f'seconds of a round, {PER_ROUND} of {CLIENTS} clients':40} {'median':>8} {'range':>16}")
    for title, values in {**ways, f"extra (goal: {GOAL_SECONDS:.0f})": extra}.items():
        print(f"{title:40} {statistics.median(values):8.2f} {min(values):7.2f} - {max(values):.2f}")
    print(json.dumps({"gpus": options.gpus, "seconds": {way: [round(v, 3) for v in ways[way]] for way in ways}}))


if __name__ == "__main__":
    main()
