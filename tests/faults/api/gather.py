"""What a run on the API server leaves behind, read for the oracles."""

import base64
import json
import time
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Final

from safetensors.numpy import load_file

from fedjob_operator.api.v1alpha1 import FederatedJob
from fedjob_protocol.layout import ROUND_LOG_NAME
from fedjob_protocol.messages import RoundRecord
from tests.faults.api.jobs import NAME
from tests.faults.api.run import Run
from tests.faults.evidence import Evidence
from tests.support.cluster.access import Document

GONE_SECONDS: Final = 30.0
"""How long what belongs to a deleted job may take to go."""
LOOK_SECONDS: Final = 0.05
KINDS: Final = ("pods", "services", "secrets", "networkpolicies", "persistentvolumeclaims")
SHORTEST_WEIGHT: Final = 8
"""Shorter printed forms may be any number."""


def gather(run: Run, job: Document) -> Evidence:
    """Delete the job of a settled run, and return what was seen of it.

    Args:
        run: The run.
        job: The resource as it was at the end.
    """
    version = job["metadata"]["resourceVersion"]
    history = run.stage.recorder.history(run.namespace, until=version)
    volume = volume_of(run)
    rounds = tuple(_rounds(volume))
    secrets = dict(chain(_tokens(run), _weights(volume)))
    events = run.cluster.events(run.namespace)
    writes = len(run.writes())
    files = [*volume.rglob("*.tmp"), *volume.rglob("*.new")]
    run.cluster.delete(run.namespace, NAME)
    return Evidence(
        status=FederatedJob.from_document(job).status,
        history=history,
        rounds=rounds,
        trainings=Counter((note["client"], note["round"]) for note in _trainings(run)),
        died=Counter(_deaths(run, rounds)),
        writes=writes,
        leftovers=(*(str(path.relative_to(volume)) for path in files), *_leftovers(run)),
        texts=dict(_texts(run, events)),
        secrets=secrets,
    )


def volume_of(run: Run) -> Path:
    """The aggregator's."""
    claims = run.cluster.api.list("persistentvolumeclaims", run.namespace)
    (uid,) = [claim["metadata"]["uid"] for claim in claims if "-aggregator-" in claim["metadata"]["name"]]
    return run.cluster.folder / "node" / "volumes" / str(uid)


def _rounds(volume: Path) -> Iterator[RoundRecord]:
    for line in (volume / ROUND_LOG_NAME).read_text(encoding="utf-8").splitlines():
        yield RoundRecord.model_validate_json(line)


def _trainings(run: Run) -> list[dict[str, Any]]:
    file = run.folder / "trainings"
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def _deaths(run: Run, rounds: tuple[RoundRecord, ...]) -> Iterator[tuple[int, int]]:
    """For each training that a harmed process began: whether it was harmed before the round was committed."""
    committed = {record.round: record.committed_at.timestamp() for record in rounds}
    never = float("inf")
    for note in _trainings(run):
        if run.harmed.get(note["pid"], never) < committed.get(note["round"], never):
            yield note["client"], note["round"]


def _leftovers(run: Run) -> list[str]:
    deadline = time.monotonic() + GONE_SECONDS
    while (found := _owned(run)) and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    return found


def _owned(run: Run) -> list[str]:
    objects = run.cluster.leftovers(run.namespace, KINDS)
    programs = [pod for pod in run.cluster.programs() if pod[0] == run.namespace]
    return objects + [f"process of {name}" for _, name in programs]


def _texts(run: Run, events: list[Document]) -> Iterator[tuple[str, str]]:
    for path in run.cluster.folder.glob(f"node/pods/{run.namespace}-*/log"):
        yield path.parent.name, path.read_text(encoding="utf-8", errors="replace")
    for number, operator in enumerate(run.operators):
        yield f"operator {number}", operator.log()
    yield "Events", json.dumps([(event["reason"], event["message"]) for event in events])


def _tokens(run: Run) -> Iterator[tuple[str, str]]:
    places = {run.namespace, *(operator.settings.own_namespace for operator in run.operators)}
    for secret in chain.from_iterable(run.cluster.api.list("secrets", place) for place in sorted(places)):
        for key, value in secret["data"].items():
            plain = base64.b64decode(value)
            name = f"{secret['metadata']['name']} {key}"
            yield f"base64 of {name}", value
            yield name, plain.decode() if plain.isascii() else plain.hex()


def _weights(volume: Path) -> Iterator[tuple[str, str]]:
    """Weights of the checkpoints that are there, as Python prints them and as hexadecimal bytes."""
    for path in sorted(volume.glob("checkpoints/*.safetensors")):
        for name, tensor in load_file(path).items():
            where = f"{name} of {path.stem}"
            yield f"bytes of {where}", tensor.tobytes()[:SHORTEST_WEIGHT].hex()
            for value in tensor.flat:
                for form in {str(value), str(float(value))}:
                    if len(form) >= SHORTEST_WEIGHT:
                        yield f"{form[:4]}… of {where}", form
