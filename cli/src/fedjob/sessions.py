"""Training sessions of ``fedjob serve``: each is a job over the clients that registered. Pure, but for its file.

All sessions of a server are rounds of one history: they share the job's unique id and the aggregator's folder, and each
begins with the model that the one before ended with.
"""

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from fedjob_operator.api.resolve import clients_per_round, over_select
from fedjob_operator.api.v1alpha1 import (
    CommittedModel,
    FederatedJob,
    FederatedJobStatus,
    Phase,
    Rounds,
    dump,
)
from fedjob_protocol.errors import FedJobError
from fedjob_protocol.messages import AggregatorState
from fedjob_protocol.sessions import MAX_HISTORY, SessionRecord, TrainingRequest

GROUP = "clients"
RUNNING = "Running"


class SessionsError(FedJobError):
    """The file of the sessions cannot be read; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """What sessions have in common."""

    job: FederatedJob
    """A sound job with the server's unique id: model, data, training, strategy, evaluation."""
    rounds: int
    """Rounds of a session that does not say."""
    places: int = 0
    """Places that a session has at least, also while nobody is registered."""


class History(BaseModel):
    """What a server remembers of its sessions."""

    model_config = ConfigDict(frozen=True)

    uid: str
    """Of the job that all sessions are rounds of."""
    sessions: tuple[SessionRecord, ...] = ()
    """Oldest first; all of them."""

    @property
    def last(self) -> SessionRecord | None:
        """The newest session."""
        return self.sessions[-1] if self.sessions else None

    def with_last(self, record: SessionRecord) -> "History":
        """Put a record in the place of the one with its number, or behind all others."""
        others = tuple(item for item in self.sessions if item.number != record.number)
        return self.model_copy(update={"sessions": (*others, record)})

    def newest(self) -> tuple[SessionRecord, ...]:
        """As many as a report takes."""
        return self.sessions[-MAX_HISTORY:]


def read_history(path: Path, *, uid: str) -> History:
    """Read the sessions of a folder; a new one has none.

    Args:
        path: The file.
        uid: Unique id of a new server's job.

    Raises:
        SessionsError: It is there and cannot be read.
    """
    try:
        return History.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return History(uid=uid)
    except (OSError, ValueError) as error:
        raise SessionsError(
            f"{path} cannot be read: {str(error).splitlines()[0]}; give --dir another folder"
        ) from error


def write_history(path: Path, history: History) -> None:
    """Replace the file of the sessions, durably.

    Raises:
        OSError: It cannot be written; what was there before is untouched.
    """
    fresh = path.with_name(path.name + ".new")
    with fresh.open("w", encoding="utf-8") as file:
        file.write(history.model_dump_json(indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def session_job(
    template: Template, request: TrainingRequest, *, clients: int, begun: AggregatorState, term: int, now: datetime
) -> FederatedJob:
    """Return the job of a session, not begun yet.

    Args:
        template: What sessions have in common.
        request: What somebody asked for.
        clients: How many are registered.
        begun: What the aggregator says: the model that the session begins with.
        term: The highest term so far.
        now: The time.

    Raises:
        pydantic.ValidationError: What was asked for makes no job.
    """
    document = dump(template.job)
    spec = document["spec"]
    committed = begun.committed
    first = committed.round if committed else -1
    spec["rounds"] = max(first, 0) + (request.rounds or template.rounds)
    spec["training"] = {**spec.get("training", {}), **_given(request, "learning_rate", "epochs", "batch_size")}
    samples = _given(request, "num_train_samples", "num_validation_samples")
    if samples:
        spec["data"] = {**spec.get("data", {"name": "own"}), **samples}
    places = max(clients, template.places, 1)
    spec["clientGroups"] = [{**spec["clientGroups"][0], "external": {"minClients": places}}]
    spec["roundPolicy"] = _fitting(document, places)
    job = FederatedJob.from_document({**document, "metadata": {**document["metadata"], "generation": 1}})
    model = CommittedModel(round=committed.round, digest=committed.digest) if committed else None
    status = FederatedJobStatus(
        term=max(term, begun.term), rounds=Rounds(committed=first, total=job.spec.rounds), model=model
    )
    metadata = job.metadata.model_copy(update={"creation_timestamp": now, "uid": template.job.metadata.uid})
    return job.model_copy(update={"metadata": metadata, "status": status})


def _fitting(document: dict[str, Any], places: int) -> dict[str, Any]:
    """The round policy, where it asks for more clients than a session has places."""
    given = document["spec"].get("roundPolicy", {})
    wanted = given.get("clientsPerRound")
    policy = {**given, **({"clientsPerRound": min(wanted, places)} if isinstance(wanted, int) else {})}
    plain = {**document, "spec": {**document["spec"], "roundPolicy": policy}}
    spec = FederatedJob.from_document(plain).spec
    chosen = clients_per_round(spec)
    policy["overSelect"] = min(over_select(spec), places - chosen)
    policy["minReports"] = min(spec.round_policy.min_reports or chosen, chosen)
    return policy


_NAMES = {
    "learning_rate": "learningRate",
    "epochs": "epochs",
    "batch_size": "batchSize",
    "num_train_samples": "maxTrainSamples",
    "num_validation_samples": "maxTestSamples",
}
"""Fields of the simple form, as the resource calls them."""


def _given(request: TrainingRequest, *names: str) -> dict[str, Any]:
    values = {name: getattr(request, name) for name in names}
    return {_NAMES[name]: value for name, value in values.items() if value is not None}


def begun_record(job: FederatedJob, *, number: int, clients: int, before: float | None, now: datetime) -> SessionRecord:
    """The record of a session that begins."""
    training, objective = job.spec.training, job.spec.objective
    first = max(job.status.rounds.committed, 0)
    return SessionRecord(
        number=number,
        state=RUNNING,
        clients=clients,
        first_round=first + 1,
        last_round=first,
        metric=objective.metric if objective else None,
        before=before,
        learning_rate=training.learning_rate,
        epochs=training.epochs,
        batch_size=training.batch_size,
        began=now,
    )


def with_progress(record: SessionRecord, job: FederatedJob, *, now: datetime) -> SessionRecord:
    """The record of a session as its job is now."""
    status = job.status
    values = {metric.name: metric.value for metric in status.metrics}
    is_over = status.phase in {Phase.COMPLETE, Phase.FAILED}
    state = f"{status.phase}: {status.message}" if status.phase is Phase.FAILED else str(status.phase)
    update = {
        "last_round": max(status.rounds.committed, record.last_round),
        "after": values.get(record.metric or "", record.after),
        "digest": status.model.digest if status.model else None,
        "state": state[:1024] if is_over else RUNNING,
        "ended": now if is_over else None,
    }
    return record.model_copy(update=update)
