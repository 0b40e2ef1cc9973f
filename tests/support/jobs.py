"""Jobs in the words of the domain, and the fixed names and times that tests begin with.

A builder is immutable: each step returns a new one, so that tests can share a beginning.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Self

from fedjob_operator.api.resolve import layout
from fedjob_operator.api.v1alpha1 import (
    Clients,
    CommittedModel,
    CurrentRound,
    FederatedJob,
    FederatedJobStatus,
    Rounds,
    RoundState,
)

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
"""When tests begin."""
UID = "0000-uid"
BOOT = "boot-a"
XXH3 = "xxh3-128:" + "0" * 32


def at(seconds: float) -> datetime:
    """So many seconds after tests begin."""
    return EPOCH + timedelta(seconds=seconds)


def digest_of(*parts: object) -> str:
    """A digest made of anything."""
    return "sha256:" + sha256("/".join(str(part) for part in parts).encode()).hexdigest()


def model_digest(parent: str | None, contributors: Iterable[int]) -> str:
    """The digest of a model that depends on its parent and on who contributed, and on nothing else."""
    return digest_of("model", parent, *sorted(contributors))


def chain_digest(round_number: int) -> str:
    """The digest of a round's model in tests that only need some digest."""
    return digest_of("round", round_number)


@dataclass(frozen=True, slots=True)
class JobBuilder:
    """A job: one group of three clients, two rounds and no evaluation, unless told otherwise."""

    spec: Mapping[str, Any] = field(
        default_factory=lambda: {
            "rounds": 2,
            "seed": 7,
            "model": {"name": "mlp"},
            "data": {"name": "digits"},
            "clientGroups": [{"name": "clients", "replicas": 3}],
            "evaluation": {"modes": []},
            "roundPolicy": {},
        }
    )
    status: FederatedJobStatus = field(default_factory=lambda: FederatedJobStatus(term=1))
    """Claimed, unless told otherwise."""
    generation: int = 1

    def having(self, **fields: Any) -> Self:
        """Set fields of the spec, in the manifest's own spelling."""
        return replace(self, spec={**self.spec, **fields})

    def clients(self, count: int, **fields: Any) -> Self:
        """One group with so many clients."""
        return self.having(clientGroups=[{"name": "clients", "replicas": count, **fields}])

    def rounds(self, count: int) -> Self:
        """So many rounds."""
        return self.having(rounds=count)

    def policy(self, **fields: Any) -> Self:
        """Set fields of the round policy."""
        return self.having(roundPolicy={**self.spec["roundPolicy"], **fields})

    def evaluated(self, **fields: Any) -> Self:
        """With an evaluator."""
        return self.having(evaluation={"modes": ["Evaluator"], **fields})

    def objective(self, metric: str = "accuracy", mode: str = "Max") -> Self:
        """With an objective."""
        return self.having(objective={"metric": metric, "mode": mode})

    def edited(self, **fields: Any) -> Self:
        """Somebody changes fields of the spec: another generation."""
        return replace(self.having(**fields), generation=self.generation + 1)

    def saying(self, **status: Any) -> Self:
        """Set fields of the status, in Python's spelling."""
        return replace(self, status=self.status.model_copy(update=status))

    def accepted(self, *, term: int = 1) -> Self:
        """Claimed and accepted; no round was opened."""
        job = self.build()
        entries = layout(job.spec)
        return self.saying(
            term=term,
            layout=entries,
            rounds=Rounds(committed=-1, total=job.spec.rounds),
            clients=Clients(desired=sum(entry.count for entry in entries)),
        )

    def committed(self, round_number: int) -> Self:
        """Accepted and started; rounds up to this one are committed."""
        begun = self if self.status.layout else self.accepted()
        return begun.saying(
            rounds=begun.status.rounds.model_copy(update={"committed": round_number}),
            model=CommittedModel(round=round_number, digest=chain_digest(round_number)) if round_number >= 0 else None,
            start_time=begun.status.start_time or EPOCH,
        )

    def in_round(self, number: int, *selected: int, **fields: Any) -> Self:
        """The intent of a round is written, on top of the rounds before it."""
        values = {
            "state": RoundState.OPEN,
            "boot_id": BOOT,
            "started_at": EPOCH,
            "deadline": at(3600),
            **fields,
        }
        return self.committed(number - 1).saying(
            current_round=CurrentRound(number=number, selected=selected, **values),
        )

    def build(self) -> FederatedJob:
        """The job."""
        document = {
            "apiVersion": "fedjob.dev/v1alpha1",
            "kind": "FederatedJob",
            "metadata": {"name": "job", "uid": UID, "resourceVersion": "1", "generation": self.generation},
            "spec": self.spec,
        }
        return FederatedJob.from_document(document).model_copy(update={"status": self.status})


def a_job() -> JobBuilder:
    """Begin a job."""
    return JobBuilder()
