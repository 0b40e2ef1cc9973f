"""Builders: jobs and what is seen of the world, said in the words of the domain.

Builders are immutable: each step returns a new one, so that tests can share a beginning.
"""

from collections.abc import Callable, Iterable, Mapping
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
from fedjob_operator.core.actions import Action, StartTask
from fedjob_operator.core.decide import Decision, decide
from fedjob_operator.core.observed import Exit, Failure, Observed, PodPhase, PodRole, PodView, TaskAck
from fedjob_protocol.messages import (
    AggregatorState,
    Base,
    CheckpointInfo,
    ClientInfo,
    Contribution,
    EvaluationState,
    EvaluationView,
    FailedClient,
    RoundRecord,
    RoundView,
    StorageProblem,
)
from fedjob_protocol.reasons import Reason
from fedjob_protocol.round import DURABLE
from fedjob_protocol.round import RoundState as AggregatorRound

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


# Jobs


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
            "metadata": {"name": "job", "uid": UID, "resourceVersion": "1"},
            "spec": self.spec,
        }
        return FederatedJob.from_document(document).model_copy(update={"status": self.status})


def a_job() -> JobBuilder:
    """Begin a job."""
    return JobBuilder()


# What is seen


def pod(
    role: PodRole = PodRole.CLIENT,
    index: int = 0,
    *,
    ordinal: int = 0,
    phase: PodPhase = PodPhase.READY,
    since: datetime = EPOCH,
    exit: Exit | None = None,  # noqa: A002 - the field's name
) -> PodView:
    """One pod."""
    title = f"{role}-{index}-{ordinal}"
    return PodView(
        role=role,
        index=index,
        ordinal=ordinal,
        incarnation=title,
        phase=phase,
        since=since,
        url=f"http://{title}" if phase is PodPhase.READY else None,
        exit=exit,
    )


def info(index: int, *, role: str = "Trainer", examples: int | None = 100) -> ClientInfo:
    """What a client says of itself."""
    return ClientInfo(
        protocol=1,
        version="0",
        job_uid=UID,
        role=role,
        index=index,
        name=f"clients-{index}",
        group="clients",
        boot_id=f"client-boot-{index}",
        backend="cpu",
        examples=examples,
    )


def contribution(client: int) -> Contribution:
    """One folded update."""
    return Contribution(
        client=client,
        name=f"clients-{client}",
        examples=10,
        bytes=100,
        digest=XXH3,
        received_seconds=1.0,
        transfer_seconds=0.5,
    )


def record(round_number: int, *contributors: int, **fields: Any) -> RoundRecord:
    """A committed round."""
    values: dict[str, Any] = {
        "round": round_number,
        "attempt": 1,
        "redraw": 0,
        "term": 1,
        "parent": chain_digest(round_number - 1) if round_number else None,
        "digest": chain_digest(round_number),
        "model_bytes": 1000,
        "participants": list(contributors),
        "contributors": [contribution(client) for client in contributors],
        "examples": 10 * len(contributors),
        "started_at": EPOCH,
        "committed_at": EPOCH,
        "duration_seconds": 1.0,
        "commit_seconds": 0.1,
        "close_reason": "ClientsPerRound",
        "expects_evaluation": False,
    }
    return RoundRecord(**{**values, **fields})


def failure(client: int, reason: Reason = Reason.TRAINER_ERROR, message: str = "ValueError: no") -> FailedClient:
    """A participant that failed."""
    return FailedClient(client=client, reason=reason, message=message)


@dataclass(frozen=True, slots=True)
class SeenBuilder:
    """What was observed; nothing, unless told otherwise."""

    observed: Observed = field(default_factory=Observed)

    def pod(self, view: PodView) -> Self:
        """One more pod, or another view of it."""
        others = tuple(
            other
            for other in self.observed.pods
            if (other.role, other.index, other.ordinal) != (view.role, view.index, view.ordinal)
        )
        return replace(self, observed=replace(self.observed, pods=(*others, view)))

    def aggregator(
        self, *, committed: int = -1, digest: str | None = None, boot: str = BOOT, term: int = 0, **fields: Any
    ) -> Self:
        """A ready aggregator whose state was read."""
        known = digest or chain_digest(committed)
        checkpoint = CheckpointInfo(round=committed, digest=known, parent=None, bytes=1000) if committed >= 0 else None
        values: dict[str, Any] = {"job_uid": None if committed < 0 else UID, **fields}
        state = AggregatorState(protocol=1, version="0", term=term, boot_id=boot, committed=checkpoint, **values)
        ready = self.pod(pod(PodRole.AGGREGATOR))
        return replace(ready, observed=replace(ready.observed, state=state))

    def ready(self, *indices: int, ordinal: int = 0, since: datetime = EPOCH, examples: int | None = 100) -> Self:
        """Clients that are ready and said what they hold."""
        builder = self
        for index in indices:
            builder = builder._introduced(
                pod(PodRole.CLIENT, index, ordinal=ordinal, since=since), info(index, examples=examples)
            )
        return builder

    def evaluator(self) -> Self:
        """A ready evaluator."""
        return self._introduced(pod(PodRole.EVALUATOR), info(0, role="Evaluator"))

    def _introduced(self, view: PodView, said: ClientInfo) -> Self:
        seen = self.pod(view)
        infos = {**seen.observed.infos, view.incarnation: said}
        return replace(seen, observed=replace(seen.observed, infos=infos))

    def starting(self, *indices: int) -> Self:
        """Clients whose pods are starting."""
        builder = self
        for index in indices:
            builder = builder.pod(pod(PodRole.CLIENT, index, phase=PodPhase.STARTING))
        return builder

    def exited(
        self,
        role: PodRole = PodRole.CLIENT,
        index: int = 0,
        *,
        ordinal: int = 0,
        since: datetime = EPOCH,
        reason: Reason = Reason.CRASHED,
        message: str = "exit code 1",
    ) -> Self:
        """A pod that ended."""
        end = Exit(reason=reason, message=message)
        return self.pod(pod(role, index, ordinal=ordinal, phase=PodPhase.EXITED, since=since, exit=end))

    def lost(self, *indices: int, limit: int = 3, reason: Reason = Reason.CRASHED) -> Self:
        """Clients that ended too often."""
        builder = self
        for index in indices:
            builder = builder.exited(index=index, ordinal=limit, reason=reason)
        return builder

    def round(
        self,
        number: int,
        state: AggregatorRound = AggregatorRound.OPEN,
        *,
        reported: Iterable[int] = (),
        failed: Iterable[FailedClient] = (),
        storage: StorageProblem | None = None,
        **fields: Any,
    ) -> Self:
        """A view of a round; a durable one is in the aggregator's state too, as `Observations` keeps it."""
        reports = sorted(reported)
        values: dict[str, Any] = {"term": 1, "attempt": 1, "boot_id": BOOT, "record": None, **fields}
        if state in DURABLE and values["record"] is None:
            values["record"] = record(number, *reports, expects_evaluation=state is AggregatorRound.COMMITTED)
        view = RoundView(round=number, state=state, reported=reports, failed=list(failed), storage=storage, **values)
        observed = replace(self.observed, round=view)
        if view.record and observed.state:
            committed = CheckpointInfo(round=number, digest=view.record.digest, parent=None, bytes=1000)
            observed = replace(observed, state=observed.state.model_copy(update={"committed": committed}))
        return replace(self, observed=observed)

    def evaluation(self, round_number: int, state: EvaluationState = EvaluationState.DONE, **fields: Any) -> Self:
        """The evaluator's answer."""
        base = Base(round=round_number, digest=chain_digest(round_number))
        return replace(
            self, observed=replace(self.observed, evaluation=EvaluationView(base=base, state=state, **fields))
        )

    def acknowledged(self, action: StartTask) -> Self:
        """A client accepted a task."""
        goal = action.task.destination
        ack = TaskAck(
            incarnation=action.incarnation,
            round=action.round,
            term=goal.term,
            attempt=goal.attempt,
            boot_id=goal.boot_id,
        )
        return replace(self, observed=replace(self.observed, acks={**self.observed.acks, action.client: ack}))

    def failing(self, action: Action, word: str | None = None, message: str = "no answer") -> Self:
        """A call that failed the last time."""
        said = Failure(word=word, message=message, since=EPOCH)
        return replace(self, observed=replace(self.observed, failures={**self.observed.failures, action.key: said}))


def seen() -> SeenBuilder:
    """Begin an observation."""
    return SeenBuilder()


# Decisions


def decided(job: JobBuilder | FederatedJob, what: SeenBuilder, *, now: datetime = EPOCH) -> Decision:
    """Decide."""
    return decide(job.build() if isinstance(job, JobBuilder) else job, what.observed, now)


def settled(
    job: JobBuilder | FederatedJob, what: SeenBuilder, *, now: datetime = EPOCH, passes: int = 12
) -> tuple[FederatedJob, Decision]:
    """Decide and write until a decision changes nothing, as the loop does.

    Returns:
        The job as it was written at last, and the decision that left it as it is.
    """
    current = job.build() if isinstance(job, JobBuilder) else job
    for _ in range(passes):
        decision = decide(current, what.observed, now)
        if decision.status == current.status:
            return current, decision
        current = current.model_copy(update={"status": decision.status})
    raise AssertionError(f"no fixed point after {passes} passes: {current.status}")


def of_type(decision: Decision, kind: type[Any]) -> list[Any]:
    """The actions of one type."""
    return [action for action in decision.actions if isinstance(action, kind)]


def only(decision: Decision, kind: type[Any], where: Callable[[Any], bool] = lambda _: True) -> Any:
    """The single action of one type."""
    found = [action for action in of_type(decision, kind) if where(action)]
    assert len(found) == 1, f"{len(found)} of {kind.__name__} in {[action.key for action in decision.actions]}"
    return found[0]
