"""One run of a job on the cluster, with what goes wrong meanwhile, and what it leaves behind for the oracles."""

import base64
import json
import re
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from fedjob_operator.api.v1alpha1 import FederatedJob
from fedjob_protocol.layout import ROUND_LOG_NAME
from fedjob_protocol.messages import RoundRecord
from tests.e2e.faults.logs import JobLogs
from tests.e2e.jobs import digits, is_complete, job_selector
from tests.faults.evidence import Evidence, StatusSeen
from tests.support.kubectl import RESOURCE, Document, Kubectl, committed, condition, wait_until

END_SECONDS: Final = 420.0
"""Deadline of a job with a fault: a node that is gone is missed after most of a minute only."""
ROUNDS: Final = 10
CLIENTS: Final = 4
KINDS: Final = ("pods", "services", "secrets", "networkpolicies", "persistentvolumeclaims")
_TRAINING: Final = re.compile(r"round (\d+): training begins")


def manifest(name: str, *, aggregators: int = 1) -> Document:
    """A job whose rounds take about a second, so that something can go wrong in them."""
    return digits(
        name,
        aggregator={
            "replicas": aggregators,
            "storage": {"size": "64Mi", "retentionPolicy": {"whenDeleted": "Delete"}},
        },
        rounds=ROUNDS,
        clients=CLIENTS,
        group={"backoffLimit": 20},
        training={"epochs": 60, "batchSize": 16, "learningRate": 0.05},
        roundPolicy={"deadlineSeconds": 300},
    )


@dataclass(slots=True)
class Run:
    """A run that is going on."""

    kubectl: Kubectl
    name: str
    logs: JobLogs
    statuses: list[Document] = field(default_factory=list)
    """Every version of the status that a watch saw."""

    def until_committed(self, number: int) -> None:
        """Wait until a round is committed."""
        self.kubectl.wait_for_job(self.name, lambda status: committed(status) >= number, f"round {number}", END_SECONDS)

    def until_complete(self) -> None:
        """Wait until the job is Complete, its clients are gone, and its model is served."""
        self.kubectl.wait_for_job(self.name, is_complete, "Complete", END_SECONDS)
        wait_until(lambda: len(self.pods()) == 1, "the release of the clients", 60)
        # a kubelet that starts again calls every pod unready at first, also that of a job that ended meanwhile
        self.kubectl.wait_for_job(self.name, _is_served, "its model's aggregator", 60)

    def until_reason(self, reason: str) -> str:
        """Wait until the job shows a reason; return its message."""
        found = self.kubectl.wait_for_job(self.name, lambda status: status.get("reason") == reason, reason, END_SECONDS)
        return str(found["message"])

    def pods(self, role: str | None = None) -> list[Document]:
        """The job's pods, by name."""
        selector = job_selector(self.name) + (f",fedjob.dev/role={role}" if role else "")
        return sorted(self.kubectl.list("pods", selector), key=lambda pod: str(pod["metadata"]["name"]))

    def evidence(self) -> Evidence:
        """Read what the oracles ask for, and delete the job."""
        document = self.kubectl.job(self.name)
        (aggregator,) = self.pods("aggregator")
        log = self.kubectl("exec", aggregator["metadata"]["name"], "--", "cat", f"/data/{ROUND_LOG_NAME}")
        rounds = tuple(RoundRecord.model_validate_json(line) for line in log.splitlines())
        tokens = {item["metadata"]["name"]: item for item in self.kubectl.list("secrets", job_selector(self.name))}
        events = self.kubectl("get", "events", "-o", "json")
        self.kubectl("delete", RESOURCE, self.name, seconds=30)
        self.logs.stop()
        return Evidence(
            status=FederatedJob.from_document(document).status,
            history=tuple(_seen(status) for status in self.statuses),
            rounds=rounds,
            trainings=Counter(self._trainings()),
            died=Counter(self._deaths()),
            writes=0,
            leftovers=tuple(self._leftovers()),
            texts={**self.logs.texts(), "events": events},
            secrets={name: base64.b64decode(item["data"]["token"]).decode() for name, item in tokens.items()},
        )

    def _processes(self) -> Iterator[tuple[int, list[int], bool]]:
        """Of each process of a client: its index, the rounds that it trained in, whether another one followed it."""
        found: dict[int, list[tuple[str, list[int]]]] = {}
        for (pod, _, _), lines in self.logs.lines.items():
            if place := re.fullmatch(rf"{self.name}-client-(\d+)-\d+", pod):
                rounds = [int(number) for number in _TRAINING.findall("\n".join(lines))]
                found.setdefault(int(place[1]), []).append((next(iter(lines), ""), rounds))
        for client, processes in found.items():
            processes.sort()  # by the time of their first line
            for position, (_, rounds) in enumerate(processes):
                yield client, rounds, position + 1 < len(processes)

    def _trainings(self) -> Iterator[tuple[int, int]]:
        for client, rounds, _ in self._processes():
            yield from ((client, number) for number in rounds)

    def _deaths(self) -> Iterator[tuple[int, int]]:
        """A process that another one followed died in the last round that it trained in, as far as can be known."""
        for client, rounds, was_followed in self._processes():
            if was_followed and rounds:
                yield client, rounds[-1]

    def _leftovers(self) -> list[str]:
        def there() -> list[str]:
            return [f"{kind}/{name}" for kind in KINDS for name in self.kubectl.names(kind, job_selector(self.name))]

        try:
            wait_until(lambda: not there(), "the end of everything", 60)
        except AssertionError:
            return there()
        return []


def _is_served(status: Document) -> bool:
    return bool(condition(status, "AggregatorReady").get("status") == "True")


def _seen(status: Document) -> StatusSeen:
    return StatusSeen(status.get("term", 0), committed(status), len(json.dumps(status)))


@contextmanager
def running(kubectl: Kubectl, name: str, *, aggregators: int = 1) -> Iterator[Run]:
    """Apply a job, watch it, and follow its logs."""
    kubectl.apply(manifest(name, aggregators=aggregators))
    run = Run(kubectl, name, JobLogs(kubectl, job_selector(name)))
    run.logs.start()
    words = ["get", RESOURCE, name, "--watch", "-o", "jsonpath={.status}{'\\n'}"]
    watch = subprocess.Popen(["kubectl", "--namespace", kubectl.namespace, *words], stdout=subprocess.PIPE, text=True)
    reader = threading.Thread(target=_remember, args=(watch, run.statuses.append), daemon=True)
    reader.start()
    try:
        yield run
    finally:
        watch.terminate()
        watch.wait()
        reader.join()
        run.logs.stop()


def _remember(watch: "subprocess.Popen[str]", keep: Callable[[Any], None]) -> None:
    assert watch.stdout is not None
    with watch.stdout:
        for line in watch.stdout:
            if line.strip():
                keep(json.loads(line))
