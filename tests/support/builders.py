"""Builders: jobs and what is seen of the world, said in the words of the domain.

Builders are immutable: each step returns a new one, so that tests can share a beginning.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, Self

from fedjob_operator.api.v1alpha1 import FederatedJob, Images
from fedjob_operator.core.actions import Action, StartTask
from fedjob_operator.core.decide import Decision, decide
from fedjob_operator.core.external import incarnation_of
from fedjob_operator.core.observed import (
    Exit,
    Failure,
    Observed,
    PodCheck,
    PodPhase,
    PodRole,
    PodView,
    TaskAck,
    Waiting,
)
from fedjob_operator.core.platform import LOCAL, Platform
from fedjob_protocol.clients import RegisteredClient
from fedjob_protocol.messages import (
    AggregatorState,
    Base,
    CheckpointInfo,
    Contribution,
    FailedClient,
    RoundRecord,
    RoundView,
    StorageProblem,
)
from fedjob_protocol.reasons import Reason
from fedjob_protocol.round import DURABLE
from fedjob_protocol.round import RoundState as AggregatorRound
from fedjob_protocol.tasks import ClientInfo, EvaluationState, EvaluationView
from tests.support.jobs import (  # noqa: F401 - some are here for those who import them from here
    BOOT,
    EPOCH,
    UID,
    XXH3,
    JobBuilder,
    a_job,
    at,
    chain_digest,
    digest_of,
    model_digest,
)

CLUSTER = Platform(
    images=Images(client="client:1", aggregator="aggregator:1"), checks_pods=True, looks_after_finished=True
)
"""A cluster with images, which is asked about pods before they are made."""


# What is seen


def pod(
    role: PodRole = PodRole.CLIENT,
    index: int = 0,
    *,
    ordinal: int = 0,
    phase: PodPhase = PodPhase.READY,
    since: datetime = EPOCH,
    exit: Exit | None = None,  # noqa: A002 - the field's name
    waiting: Waiting | None = None,
    gpus_held: int = 0,
    is_kept: bool = False,
    cohort: int | None = None,
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
        waiting=waiting,
        gpus_held=gpus_held,
        is_kept=is_kept,
        cohort=cohort,
    )


def info(
    index: int, *, role: str = "Trainer", examples: int | None = 100, backend: Literal["cpu", "gpu"] = "cpu"
) -> ClientInfo:
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
        backend=backend,
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

    def ready(
        self,
        *indices: int,
        ordinal: int = 0,
        since: datetime = EPOCH,
        examples: int | None = 100,
        backend: Literal["cpu", "gpu"] = "cpu",
    ) -> Self:
        """Clients that are ready and said what they hold."""
        builder = self
        for index in indices:
            view = pod(PodRole.CLIENT, index, ordinal=ordinal, since=since)
            builder = builder._introduced(view, info(index, examples=examples, backend=backend))
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

    def waiting(self, index: int, reason: Reason, message: str, role: PodRole = PodRole.CLIENT) -> Self:
        """A pod that something holds up."""
        held = Waiting(reason=reason, message=message)
        return self.pod(pod(role, index, phase=PodPhase.STARTING, waiting=held))

    def stopping(self, *indices: int, role: PodRole = PodRole.CLIENT) -> Self:
        """Pods that were asked to end."""
        builder = self
        for index in indices:
            builder = builder.pod(pod(role, index, phase=PodPhase.STOPPING))
        return builder

    def checked(self, problem: str | None = None, *, generation: int = 1) -> Self:
        """The cluster looked at the pods of a spec."""
        check = PodCheck(generation=generation, problem=problem)
        return replace(self, observed=replace(self.observed, pod_check=check))

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

    def registered(self, *indices: int, lost: tuple[int, ...] = (), since: float = 0) -> Self:
        """Clients that registered themselves, and nothing else of them is known; some are lost."""
        clients = {
            index: RegisteredClient(
                client=index,
                url=f"http://outside-{index}",
                boot_id=f"client-boot-{index}",
                since=at(since),
                is_lost=index in lost,
            )
            for index in (*indices, *lost)
        }
        known = {**(self.observed.registered or {}), **clients}
        return replace(self, observed=replace(self.observed, registered=known))

    def answering(self, index: int, *, who: int | None = None) -> Self:
        """Somebody answers where a client registered: itself, or another one."""
        assert self.observed.registered is not None
        infos = {
            **self.observed.infos,
            incarnation_of(self.observed.registered[index]): info(index if who is None else who),
        }
        return replace(self, observed=replace(self.observed, infos=infos))

    def outside(self, *indices: int, since: float = 0) -> Self:
        """Clients that registered themselves and took the job."""
        there = self.registered(*indices, since=since)
        for index in indices:
            there = there.answering(index)
        assert there.observed.registered is not None
        names = frozenset(incarnation_of(there.observed.registered[index]) for index in indices)
        return replace(there, observed=replace(there.observed, configured=there.observed.configured | names))

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


def decided(
    job: JobBuilder | FederatedJob, what: SeenBuilder, *, now: datetime = EPOCH, platform: Platform = LOCAL
) -> Decision:
    """Decide."""
    return decide(job.build() if isinstance(job, JobBuilder) else job, what.observed, now, platform=platform)


def settled(
    job: JobBuilder | FederatedJob,
    what: SeenBuilder,
    *,
    now: datetime = EPOCH,
    passes: int = 12,
    platform: Platform = LOCAL,
) -> tuple[FederatedJob, Decision]:
    """Decide and write until a decision changes nothing, as the loop does.

    Returns:
        The job as it was written at last, and the decision that left it as it is.
    """
    current = job.build() if isinstance(job, JobBuilder) else job
    for _ in range(passes):
        decision = decide(current, what.observed, now, platform=platform)
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
