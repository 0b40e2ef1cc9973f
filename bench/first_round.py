"""How long after ``kubectl apply`` the first round is committed, on the cluster of the current kubeconfig.

Needs the installed chart, with its images on the nodes. Applies a job of three clients a few times, each in a fresh
namespace, and prints a table and one line of JSON.

    python bench/first_round.py [TIMES]
"""

import json
import statistics
import subprocess
import sys
import time
import uuid
from typing import Any, Final

RESOURCE: Final = "federatedjobs.fedjob.dev"
LIMIT_SECONDS: Final = 180.0
PATH: Final = (
    "{.status.phase} {.status.rounds.committed} {.status.conditions[?(@.type=='ClientsReady')].status} "
    "{.status.conditions[?(@.type=='AggregatorReady')].status}"
)


def manifest(name: str) -> dict[str, Any]:
    """A job of three clients and no evaluation."""
    return {
        "apiVersion": "fedjob.dev/v1alpha1",
        "kind": "FederatedJob",
        "metadata": {"name": name},
        "spec": {
            "rounds": 3,
            "model": {"name": "softmax"},
            "data": {"name": "digits", "partition": {"scheme": "IID"}},
            "clientGroups": [{"name": "clients", "replicas": 3}],
            "evaluation": {"modes": []},
            "aggregator": {"storage": {"size": "64Mi", "retentionPolicy": {"whenDeleted": "Delete"}}},
        },
    }


def kubectl(*arguments: str, text: str | None = None) -> str:
    """Run kubectl."""
    done = subprocess.run(["kubectl", *arguments], input=text, capture_output=True, text=True, check=True)
    return done.stdout


def measure(name: str) -> dict[str, float]:
    """Apply a job; return the seconds until its clients, its aggregator, its initial model and its first round."""
    kubectl("create", "namespace", name)
    seen: dict[str, float] = {}
    begin = time.monotonic()
    kubectl("apply", "--namespace", name, "-f", "-", text=json.dumps(manifest(name)))
    watch = ["kubectl", "get", RESOURCE, name, "--namespace", name, "-o", f"jsonpath={PATH}{{'\\n'}}"]
    watch += ["--watch", f"--request-timeout={LIMIT_SECONDS:.0f}s"]
    with subprocess.Popen(watch, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        for line in watching.stdout:
            now = time.monotonic() - begin
            phase, committed, clients, aggregator = (line.rstrip("\n").split(" ") + [""] * 4)[:4]
            number = int(committed or -1)
            facts = {
                "clients": clients == "True",
                "aggregator": aggregator == "True",
                "model": number >= 0,
                "round": number >= 1,
            }
            for fact, holds in facts.items():
                if holds:
                    seen.setdefault(fact, now)
            if "round" in seen or phase == "Failed":
                break
        watching.terminate()
    kubectl("delete", "namespace", name, "--wait=false")
    if "round" not in seen:
        sys.exit(f"no round within {LIMIT_SECONDS:.0f} s; is the chart installed, with its images on the nodes?")
    return seen


def main() -> None:
    """Measure, and print."""
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    runs = [measure(f"first-{uuid.uuid4().hex[:6]}") for _ in range(times)]
    print(f"{'seconds after kubectl apply':32} {'median':>8} {'range':>16}")
    figures = {}
    for fact, title in (
        ("clients", "three clients are ready"),
        ("aggregator", "the aggregator is ready"),
        ("model", "the initial model is committed"),
        ("round", "the first round is committed"),
    ):
        values = sorted(run[fact] for run in runs if fact in run)
        if values:
            figures[fact] = {"median": round(statistics.median(values), 2), "all": [round(v, 2) for v in values]}
            print(f"{title:32} {statistics.median(values):8.2f} {values[0]:7.2f} - {values[-1]:.2f}")
    print(json.dumps({"runs": times, "seconds": figures}))


if __name__ == "__main__":
    main()
