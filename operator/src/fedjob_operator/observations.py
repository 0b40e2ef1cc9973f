"""What this process remembers of what it saw: a cache that may be lost at any time.

Only the reconcile loop uses it. Nothing in here is needed for correctness: after a restart everything is asked again,
and every call is idempotent.
"""

from dataclasses import replace
from datetime import datetime

from fedjob_operator.core.actions import (
    Action,
    Appoint,
    Call,
    ConfigureClient,
    Evaluate,
    FetchInfo,
    ListReplaced,
    OpenRound,
    ReadState,
    RecordEvaluation,
    ReportFailure,
    StartTask,
    TurnAway,
    WatchRound,
)
from fedjob_operator.core.external import incarnation_of
from fedjob_operator.core.observed import (
    Failure,
    Observed,
    OriginSeen,
    PodCheck,
    PodRole,
    PodView,
    ReplicaSeen,
    ServersSeen,
    TaskAck,
)
from fedjob_protocol.clients import RegisteredClient, ReplacedClient, ReplacedClients
from fedjob_protocol.errors import Word
from fedjob_protocol.messages import AggregatorState, CheckpointInfo, RoundView
from fedjob_protocol.tasks import ClientInfo, EvaluationState, EvaluationView, TaskView

Answer = (
    AggregatorState
    | ClientInfo
    | EvaluationView
    | OriginSeen
    | PodCheck
    | ReplacedClients
    | RoundView
    | ServersSeen
    | TaskView
    | None
)
"""What performing an action gave; ``None`` for pods."""

_ON_ROUNDS = (OpenRound, WatchRound, ReportFailure, RecordEvaluation)
"""Calls to the aggregator about a round."""
_OUT_OF_DATE = frozenset(
    {
        Word.NOT_FOUND,
        Word.WRONG_BOOT,
        Word.WRONG_ROUND,
        Word.WRONG_BASE,
        Word.ROUND_CLOSED,
        Word.ROUND_CONFLICT,
        Word.STALE_ATTEMPT,
        Word.NOT_LEADER,
    }
)
"""Answers that say that what we believe of the aggregator is out of date: it was restarted in place, or the answer to
an earlier call was lost. Its state is read again, as after ``stale-term``, where somebody reigns after us."""


class Observations:
    """Answers and failures since this process started."""

    def __init__(self) -> None:
        self._seen = Observed()
        self._replicas: dict[str, ReplicaSeen] = {}
        self._evaluator: str | None = None
        self._outside: frozenset[str] = frozenset()

    def look(self, pods: tuple[PodView, ...]) -> Observed:
        """Return everything seen, together with the pods that there are now."""
        aggregators = [pod for pod in pods if pod.role is PodRole.AGGREGATOR and pod.index == 0]
        newest = max(aggregators, key=lambda pod: pod.ordinal, default=None)
        incarnation = newest.incarnation if newest else None
        self._aggregator = incarnation
        running = {pod.incarnation for pod in pods} | self._outside
        if not running.issuperset(self._replicas):
            # Another process: what the one before held in memory says nothing about this one.
            self._replicas = {key: said for key, said in self._replicas.items() if key in running}
        if not running.issuperset(self._seen.infos):
            infos = {key: info for key, info in self._seen.infos.items() if key in running}
            self._seen = replace(self._seen, infos=infos)
        evaluation = self._seen.evaluation
        if evaluation and evaluation.state is EvaluationState.FAILED and self._evaluator not in running:
            # Its successor may do better.
            self._seen = replace(self._seen, evaluation=None)
        only = self._replicas.get(incarnation or "")
        return replace(
            self._seen,
            pods=pods,
            state=only.state if only else None,
            round=only.round if only else None,
            replicas=self._replicas,
        )

    def learn(self, action: Action, answer: Answer) -> None:
        """Take in the answer of a call that succeeded."""
        self._forget_failure(action.key)
        if isinstance(action, Call):
            self._forget_silence(action.incarnation)
        match action, answer:
            case _, PodCheck() | ServersSeen() | OriginSeen():
                self._learn_of_cluster(answer)
            case Evaluate(), EvaluationView():
                self._learn_evaluation(action, answer)
            case ((ReadState() | Appoint()), AggregatorState()):
                self._set(action.incarnation, ReplicaSeen(state=answer, round=answer.current))
            case ListReplaced(), ReplacedClients():
                self._learn_replaced(answer.clients)
                self._learn_registered(answer.registered)
            case ConfigureClient(), ClientInfo():
                infos, told = {**self._seen.infos, action.incarnation: answer}, self._seen.configured
                self._seen = replace(self._seen, infos=infos, configured=told | {action.incarnation})
            case TurnAway(), ClientInfo():
                self._seen = replace(self._seen, turned_away=self._seen.turned_away | {action.incarnation})
            case FetchInfo(), ClientInfo():
                self._seen = replace(self._seen, infos={**self._seen.infos, action.incarnation: answer})
            case ((OpenRound() | WatchRound() | ReportFailure() | RecordEvaluation()), RoundView()):
                self._learn_round(action.incarnation, answer)
            case StartTask(), TaskView():
                self._acknowledge(action)
            case _:
                pass

    def _learn_of_cluster(self, answer: PodCheck | ServersSeen | OriginSeen) -> None:
        match answer:
            case PodCheck():
                self._seen = replace(self._seen, pod_check=answer)
            case ServersSeen():
                self._seen = replace(self._seen, servers=answer)
            case OriginSeen():
                self._seen = replace(self._seen, origin=answer)

    def _learn_evaluation(self, action: Evaluate, answer: EvaluationView) -> None:
        if action.client is not None:
            answers = {**self._seen.client_evaluations, action.client: answer}
            self._seen = replace(self._seen, client_evaluations=answers)
        else:
            self._evaluator = action.incarnation
            self._seen = replace(self._seen, evaluation=answer)

    def fail(self, action: Action, *, word: str | None, message: str, now: datetime) -> None:
        """Take in that a call failed; the first of several in a row gives the time."""
        before = self._seen.failures.get(action.key)
        failure = Failure(word=word, message=message, since=before.since if before else now)
        self._seen = replace(self._seen, failures={**self._seen.failures, action.key: failure})
        if word == Word.STALE_TERM:
            self._replicas = {}
        elif word in _OUT_OF_DATE and isinstance(action, _ON_ROUNDS):
            self._set(action.incarnation, None)

    def _forget_failure(self, key: str) -> None:
        if key in self._seen.failures:
            left = {other: failure for other, failure in self._seen.failures.items() if other != key}
            self._seen = replace(self._seen, failures=left)

    def _learn_replaced(self, clients: list[ReplacedClient]) -> None:
        asked = {entry.client: entry.generation for entry in clients}
        if asked.items() - self._seen.replaced.items():
            self._seen = replace(self._seen, replaced={**self._seen.replaced, **asked})

    def _learn_registered(self, clients: list[RegisteredClient] | None) -> None:
        if clients is None:
            return
        registered = {client.client: client for client in clients}
        if registered != self._seen.registered:
            self._outside = frozenset(incarnation_of(client) for client in clients)
            self._seen = replace(
                self._seen,
                registered=registered,
                configured=self._seen.configured & self._outside,
                turned_away=self._seen.turned_away & self._outside,
            )

    def _forget_silence(self, incarnation: str) -> None:
        """Whoever answers is not silent, whatever calls before had no answer."""
        failures = self._seen.failures
        asked = f"/{incarnation}/"
        left = {key: item for key, item in failures.items() if item.word is not None or asked not in f"{key}/"}
        if len(left) < len(failures):
            self._seen = replace(self._seen, failures=left)

    def _set(self, incarnation: str, said: ReplicaSeen | None) -> None:
        """Remember what an aggregator said, or that it is out of date; what was handed out before stays as it is."""
        others = {key: other for key, other in self._replicas.items() if key != incarnation}
        self._replicas = others if said is None else {**others, incarnation: said}

    def _learn_round(self, incarnation: str, view: RoundView) -> None:
        said = self._replicas.get(incarnation)
        if said is None:
            return
        self._learn_replaced(view.replaced)
        if said.state.boot_id != view.boot_id:
            # Restarted in place, unnoticed by whoever watches pods: read its state again.
            self._set(incarnation, None)
            return
        before = said.round
        is_newer = before is None or (view.round, view.attempt) >= (before.round, before.attempt)
        self._set(incarnation, ReplicaSeen(state=_committed(said.state, view), round=view if is_newer else before))
        if is_newer:
            self._drop_old_failures(view.round)

    def _drop_old_failures(self, round_number: int) -> None:
        """Calls of rounds that are over are never made again; keep the cache small."""
        if len(self._seen.failures) > 100:
            marker = f"/{round_number}/"
            left = {key: failure for key, failure in self._seen.failures.items() if marker in key}
            self._seen = replace(self._seen, failures=left)

    def _acknowledge(self, action: StartTask) -> None:
        goal = action.task.destination
        ack = TaskAck(
            incarnation=action.incarnation,
            round=action.round,
            term=goal.term,
            attempt=goal.attempt,
            boot_id=goal.boot_id,
        )
        self._seen = replace(self._seen, acks={**self._seen.acks, action.client: ack})


def _committed(state: AggregatorState, view: RoundView) -> AggregatorState:
    """Bring the state, which is read once per boot, up to date with a round that was committed since."""
    record = view.record
    if record is None or (state.committed and state.committed.round >= record.round):
        return state
    newest = CheckpointInfo(round=record.round, digest=record.digest, parent=record.parent, bytes=record.model_bytes)
    return state.model_copy(update={"committed": newest})
