"""Any job in any state under any look at the world, drawn from a seed.

Each part is plausible most of the time, so that decisions get far, and wrong in some way now and then. Drawn with
`random.Random`, which is a hundred times as fast as a strategy for every field.
"""

from collections.abc import Mapping
from dataclasses import replace
from random import Random
from typing import Any, TypeVar

from fedjob_operator.api.v1alpha1 import (
    BestModel,
    CommittedModel,
    ConditionType,
    Divergence,
    FederatedJob,
    FederatedJobStatus,
    Metric,
    Origin,
    Recovery,
    RoundState,
    Startup,
)
from fedjob_operator.core.conditions import describe, finish, set_condition
from fedjob_operator.core.external import incarnation_of
from fedjob_operator.core.observed import (
    Exit,
    Failure,
    Observed,
    OriginSeen,
    PodCheck,
    PodPhase,
    PodRole,
    PodView,
    ServersSeen,
    TaskAck,
    Waiting,
)
from fedjob_operator.core.platform import LOCAL
from fedjob_protocol.clients import RegisteredClient
from fedjob_protocol.errors import Word
from fedjob_protocol.messages import AggregatorState, Base, CheckpointInfo, RoundView, StorageProblem
from fedjob_protocol.reasons import Reason
from fedjob_protocol.round import DURABLE
from fedjob_protocol.round import RoundState as AggregatorRound
from fedjob_protocol.tasks import EvaluationState, EvaluationView
from tests.support.builders import (
    BOOT,
    CLUSTER,
    UID,
    JobBuilder,
    a_job,
    at,
    chain_digest,
    contribution,
    digest_of,
    failure,
    info,
    record,
)

T = TypeVar("T")
ROUNDS = 3
JOBS: tuple[JobBuilder, ...] = (
    a_job(),
    a_job().clients(4, backoffLimit=0).policy(clientsPerRound=2, overSelect=1, minReports=1).having(minClients=2),
    a_job().policy(clientsPerRound="50%", maxAttempts=1, onQuorumLoss="Fail").evaluated(),
    a_job().evaluated(periodRounds=2, deadlineSeconds=60).objective(),
    a_job().evaluated().objective("loss", "Min").having(stop={"target": 0.1, "patienceRounds": 2}),
    a_job().having(activeDeadlineSeconds=50_000, joinWaitSeconds=0, minClients=1),
    a_job().having(
        clientGroups=[{"name": "a", "replicas": 1, "maxReplicas": 2}, {"name": "b", "replicas": 2, "backoffLimit": 1}]
    ),
    a_job().having(suspend=True).evaluated(),
    a_job()
    .having(evaluation={"modes": ["Evaluator", "Clients"], "deadlineSeconds": 60})
    .objective("clients/loss", "Min"),
    a_job().having(evaluation={"modes": ["Clients"]}, serve={"replicas": 2}).objective().having(stop={"target": 0.9}),
    a_job().having(model={"name": "mlp", "initFrom": {"federatedJob": {"name": "before"}}}, serve={"replicas": 1}),
    a_job().clients(3, gpus=1).having(lateJoiners="Refuse", minClients=1, startupDeadlineSeconds=60),
    a_job().clients(5, gpus=1).policy(clientsPerRound=2, minReports=1).having(clientPods="PerRound").evaluated(gpus=1),
    a_job().clients(4, backoffLimit=0).policy(overSelect=0).having(clientPods="PerRound", startupDeadlineSeconds=60),
    a_job()
    .policy(minReports=1)
    .having(
        clientGroups=[{"name": "here", "replicas": 1}, {"name": "outside", "external": {"minClients": 2}}],
        minClients=1,
        lateJoiners="Refuse",
    ),
)
METRICS: tuple[dict[str, float], ...] = (
    {},
    {"accuracy": 0.9, "loss": 0.05},
    {"loss": 1e300, "": 1.0, "x" * 65: 1.0},
    {f"m{index}": 1.0 for index in range(70)},
)
ORIGIN = Origin(job="before", uid="other", round=4, digest=chain_digest(4))
TEXTS = ("", "no", "x" * 3000)


class SceneMaker:
    """Draws one scene.

    Args:
        seed: Everything that is drawn comes from it.
    """

    def __init__(self, seed: int) -> None:
        self._rng = Random(seed)
        self.now = at(self._pick((0, 1, 60, 901, 3601, 60_000, 200_000)))
        self.platform = self._mostly(LOCAL, CLUSTER)
        self.job = self._make_job()
        self.seen = self._look()

    def with_failures(self, keys: list[str]) -> Observed:
        """The same look, with some of the calls that were asked for having failed."""
        failures = {
            key: Failure(word=self._pick((None, *Word)), message=self._pick(TEXTS), since=self._time())
            for key in keys
            if self._maybe(0.3)
        }
        return replace(self.seen, failures=failures)

    def _maybe(self, probability: float) -> bool:
        return self._rng.random() < probability

    def _pick(self, choices: tuple[T, ...] | list[T]) -> T:
        return self._rng.choice(choices)

    def _mostly(self, usual: T, *others: T) -> T:
        return usual if self._maybe(0.85) else self._pick(others)

    def _time(self) -> Any:
        return at(self._rng.choice((-1000, 0, 0, 1, 59, 1000, 100_000)))

    # The job

    def _make_job(self) -> FederatedJob:
        builder = self._pick(JOBS).rounds(ROUNDS)
        if self._maybe(0.97):
            builder = builder.accepted(term=self._pick((1, 2, 3)))
            committed = self._pick((-1, -1, 0, 0, 1, 2, ROUNDS))
            if committed >= 0:
                builder = builder.committed(committed).saying(**self._results(committed))
            else:
                builder = builder.saying(startup=self._startup())
            if committed < ROUNDS and self._maybe(0.85):
                builder = builder.in_round(committed + 1, *self._selection(builder, committed + 1), **self._intent())
            builder = replace(builder, status=self._conditions(builder.status))
        job = builder.build()
        return job.model_copy(update={"status": describe(job, job.status)})

    def _selection(self, builder: JobBuilder, number: int) -> list[int]:
        num_clients = sum(entry.count for entry in builder.status.layout)
        count = 1 if number == 0 else self._rng.randint(0, num_clients)
        return sorted(self._rng.sample(range(num_clients), count))

    def _intent(self) -> Mapping[str, Any]:
        return {
            "attempt": self._pick((1, 1, 2, 3, 4)),
            "redraw": self._pick((0, 0, 1, 2)),
            "state": self._mostly(RoundState.OPEN, RoundState.PROVISIONING),
            "boot_id": self._mostly(BOOT, "boot-b", None),
            "started_at": self._mostly(self._time(), None),
            "deadline": self._mostly(self._time(), None),
            "reported": self._pick((0, 1, 2)),
        }

    def _startup(self) -> Startup | None:
        retry_at = self._mostly(None, self._time())
        return self._mostly(Startup(began_at=self._time(), retry_at=retry_at), None)

    def _results(self, committed: int) -> Mapping[str, Any]:
        number = self._rng.randint(0, committed)
        return {
            "failed_attempts": self._pick((0, 0, 1, 2, 5)),
            "start_time": self._time(),
            "metrics": self._pick(((), (Metric(name="loss", value=0.5),))),
            "best": self._pick((None, BestModel(round=number, value=0.5, digest=chain_digest(number)))),
            "divergence": self._mostly(None, self._divergence(number)),
            "origin": self._pick((None, ORIGIN, ORIGIN.model_copy(update={"path": "/before"}))),
        }

    def _divergence(self, number: int) -> Divergence:
        base = CommittedModel(round=number, digest=chain_digest(number))
        recovery = Recovery(round=self._rng.randint(0, ROUNDS + 1), base=base)
        rounds, lowest = self._pick((0, 2, 3, 9)), self._pick((None, -1.0, 0.01, 1e300))
        return Divergence(lowest_loss=lowest, rounds=rounds, recovery=self._pick((None, recovery)))

    def _conditions(self, status: FederatedJobStatus) -> FederatedJobStatus:
        for kind in (ConditionType.PROGRESSING, ConditionType.CLIENTS_READY, ConditionType.AGGREGATOR_READY):
            if self._maybe(0.7):
                reason = self._mostly(Reason.ROUND_IN_PROGRESS, *Reason)
                holds = self._mostly(True, False)
                status = set_condition(status, kind, holds=holds, reason=reason, message="before", now=self._time())
        if self._maybe(0.1):
            reason = self._pick((Reason.SUSPENDED, Reason.SUSPENDING, Reason.RESUMED))
            status = set_condition(
                status, ConditionType.SUSPENDED, holds=reason is Reason.SUSPENDED, reason=reason, now=self._time()
            )
        if self._maybe(0.02):
            status = finish(status, failed=self._maybe(0.5), reason=Reason.QUORUM_LOST, message="", now=self._time())
        return status

    # What is seen

    def _look(self) -> Observed:
        pods = [*self._pods(PodRole.AGGREGATOR, 0), *self._pods(PodRole.EVALUATOR, 0)]
        for index in range(5):
            pods += self._pods(PodRole.CLIENT, index)
        self._rng.shuffle(pods)
        infos = {
            pod.incarnation: info(pod.index, examples=self._pick((None, -1, 0, 10, 2**60)))
            for pod in pods
            if pod.role is not PodRole.AGGREGATOR and self._maybe(0.9)
        }
        status = self.job.status
        state = self._state() if self._maybe(0.93) else None
        acks = {index: self._ack(index) for index in range(5) if self._maybe(0.3)}
        seen = Observed(pods=tuple(pods), state=state, infos=infos, acks=acks, pod_check=self._check())
        if self._maybe(0.8):
            number = status.current_round.number if status.current_round else status.rounds.committed
            seen = replace(seen, round=self._view(max(self._mostly(number, number - 1, number + 1, 0), 0)))
        view = seen.round
        if view and view.record and state and self._maybe(0.9):
            state = state.model_copy(update={"committed": _checkpoint(view.round, view.record.digest)})
            seen = replace(seen, state=state)
        answers = {index: self._evaluation(seen.round) for index in range(5) if self._maybe(0.6)}
        seen = replace(seen, client_evaluations=answers, origin=self._origin(), servers=self._servers())
        seen = replace(seen, evaluation=self._evaluation(seen.round)) if self._maybe(0.6) else seen
        return self._with_registered(seen) if self._maybe(0.8) else seen

    def _with_registered(self, seen: Observed) -> Observed:
        """With clients that registered themselves, some of whom are not who they say."""
        clients = [
            RegisteredClient(
                client=index,
                url=f"http://outside-{index}",
                boot_id=f"client-boot-{index}",
                since=self._time(),
                is_lost=self._mostly(False, True),
            )
            for index in range(5)
            if self._maybe(0.6)
        ]
        names = [incarnation_of(client) for client in clients]
        said = {name: info(self._mostly(client.client, 4)) for name, client in zip(names, clients, strict=True)}
        return replace(
            seen,
            registered={client.client: client for client in clients},
            infos={**seen.infos, **{name: item for name, item in said.items() if self._maybe(0.8)}},
            configured=frozenset(name for name in names if self._maybe(0.6)),
            turned_away=frozenset(name for name in names if self._maybe(0.3)),
        )

    def _origin(self) -> OriginSeen | None:
        current = self.job.status.current_round
        found = OriginSeen(
            attempt=self._mostly(current.attempt if current else 0, 0, 1, 2),
            origin=self._mostly(ORIGIN, None),
            message=self._pick(TEXTS),
            is_final=self._mostly(False, True),
            url=self._mostly("http://before", None),
            permit=self._mostly("permit", None),
        )
        return self._mostly(found, None)

    def _servers(self) -> ServersSeen | None:
        return self._pick((None, ServersSeen(replicas=self._pick((0, 1, 2)), at=self._time())))

    def _pods(self, role: PodRole, index: int) -> list[PodView]:
        pods = []
        for ordinal in self._mostly((0,), (), (1,), (3,), (9,), (0, 1), (2, 3)):
            phase = self._mostly(PodPhase.READY, PodPhase.EXITED, PodPhase.STARTING, PodPhase.STOPPING)
            title = f"{role}-{index}-{ordinal}"
            reason = self._mostly(Reason.CRASHED, *Reason)
            ended = phase is PodPhase.EXITED or self._maybe(0.1)
            waits = phase is PodPhase.STARTING and self._maybe(0.5)
            pods.append(
                PodView(
                    role=role,
                    index=index,
                    ordinal=ordinal,
                    incarnation=title,
                    phase=phase,
                    since=self._time(),
                    url=f"http://{title}" if phase is PodPhase.READY else None,
                    exit=Exit(reason=reason, message=self._pick(TEXTS)) if ended else None,
                    waiting=Waiting(reason=reason, message=self._pick(TEXTS)) if waits else None,
                    gpus_held=self._mostly(0, 1),
                )
            )
        return pods

    def _check(self) -> PodCheck | None:
        check = PodCheck(generation=self._mostly(1, 0, 2), problem=self._mostly(None, "no"))
        return check if self._maybe(0.8) else None

    def _digest(self, number: int) -> str:
        return self._mostly(chain_digest(number), chain_digest(number + 1), digest_of("another"))

    def _state(self) -> AggregatorState:
        known = self.job.status.rounds.committed
        committed = self._mostly(known, known + 1, known - 1)
        return AggregatorState(
            protocol=1,
            version="0",
            job_uid=UID if self._maybe(0.97) else self._pick((None, "another-uid")),
            term=self._mostly(1, 0, 2, 9),
            boot_id=self._mostly(BOOT, "boot-b"),
            committed=_checkpoint(committed, self._digest(committed)) if committed >= 0 else None,
        )

    def _view(self, number: int) -> RoundView:
        current = self.job.status.current_round
        usual = current.attempt if current else 1
        state, attempt = self._pick(list(AggregatorRound)), self._mostly(usual, *range(1, 6))
        reported = sorted(self._rng.sample(range(5), self._rng.randint(0, 3)))
        failed = [failure(self._rng.randint(0, 4), self._pick(list(Reason)), self._pick(TEXTS)) for _ in range(2)]
        done = record(
            number,
            digest=self._digest(number),
            contributors=[contribution(client) for client in reported],
            expects_evaluation=self._maybe(0.7),
            committed_at=self._time(),
            metrics=self._pick((None, *METRICS)),
        )
        return RoundView(
            round=number,
            state=state,
            term=self._mostly(self.job.status.term, 1, 2, 3, 4),
            attempt=attempt,
            boot_id=self._mostly(BOOT, "boot-b"),
            reported=reported,
            failed=failed[: self._rng.randint(0, 2)],
            storage=self._mostly(None, StorageProblem(message="full", failures=2)),
            record=done if state in DURABLE else None,
        )

    def _evaluation(self, view: RoundView | None) -> EvaluationView:
        number = view.round if view else 0
        digest = view.record.digest if view and view.record else chain_digest(number)
        return EvaluationView(
            base=Base(round=number, digest=self._mostly(digest, digest_of("another"))),
            state=self._pick(list(EvaluationState)),
            metrics=self._pick(METRICS),
            examples=self._pick((None, 0, 100)),
            reason=self._pick((None, Reason.TRAINER_ERROR)),
            message=self._pick((None, *TEXTS)),
        )

    def _ack(self, index: int) -> TaskAck:
        current = self.job.status.current_round
        return TaskAck(
            incarnation=f"client-{index}-0",
            round=current.number if current else 0,
            term=self._mostly(self.job.status.term, 1),
            attempt=self._mostly(current.attempt if current else 1, 1),
            boot_id=self._mostly(BOOT, "boot-b"),
        )


def _checkpoint(number: int, digest: str) -> CheckpointInfo:
    return CheckpointInfo(round=number, digest=digest, parent=None, bytes=1)
