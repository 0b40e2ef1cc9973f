"""Which of several aggregators leads: chosen here alone, one per term, and never one that lacks what is committed.

The term is claimed in the status before anybody is asked. Then the aggregators are asked, which binds those that answer
to the term; of those the most advanced one is written into the status, and only then told to lead. So the intent is
before the effect, two leaders cannot both commit, and what a majority holds is among what a majority answers.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from fedjob_operator.api.enums import Ack
from fedjob_operator.api.v1alpha1 import (
    AggregatorStatus,
    FederatedJob,
    FederatedJobSpec,
    FederatedJobStatus,
    StandbyStatus,
)
from fedjob_operator.core.actions import Action, Appoint, WatchRound, appoint_key, open_key, state_key, watch_key
from fedjob_operator.core.layout import pod_name
from fedjob_operator.core.observed import Failure, PodPhase, PodRole, PodView
from fedjob_operator.core.obstacles import UNREACHABLE_AFTER
from fedjob_operator.core.scene import Scene, Step, failed, progressing
from fedjob_operator.core.tasks import base_of
from fedjob_protocol.errors import Word
from fedjob_protocol.messages import AggregatorState, RoundView
from fedjob_protocol.reasons import Reason
from fedjob_protocol.replicas import Acknowledgement, Commit, StandbyView
from fedjob_protocol.replication import Leadership

SILENT_SECONDS: Final = 10.0
"""How long the leader goes without hearing of a standby before the status says so; it is told again who leads."""
MAX_SILENCE: Final = 1e6
"""Longest silence that is believed, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Led:
    """What has to be done about who leads."""

    step: Step | None = None
    """What comes first, as nobody leads; ``None``: rounds may go on."""
    actions: tuple[Action, ...] = ()
    """What is done besides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Replica:
    """An aggregator that is ready and said what it holds."""

    pod: PodView
    state: AggregatorState

    @property
    def newest(self) -> Commit | None:
        return self.state.replica.newest if self.state.replica else None

    @property
    def rank(self) -> tuple[int, int, int]:
        """The higher, the more advanced; of equals the first one."""
        newest = self.newest
        return (-1, 0, -self.pod.index) if newest is None else (newest.round, newest.term, -self.pod.index)

    @property
    def is_closed(self) -> bool:
        """Whether it has the complete record, with metrics, of what it holds."""
        replica = self.state.replica
        return replica is not None and replica.newest is not None and replica.closed >= replica.newest.round


def replica_name(index: int) -> str:
    """How the aggregators of a job call each other: by their place, whatever pod is in it."""
    return f"{PodRole.AGGREGATOR}-{index}"


def needed_replicas(spec: FederatedJobSpec) -> int:
    """How many aggregators must answer before one of them is chosen, as many as must hold what is committed."""
    if spec.aggregator.replication.ack is Ack.NONE:
        return 1
    return spec.aggregator.replicas // 2 + 1


def lead(scene: Scene) -> Led:
    """See to it that exactly one of several aggregators leads; nothing has to be done where there is but one."""
    if not scene.has_standbys:
        return Led()
    status, replicas = scene.job.status, _replicas(scene)
    if broken := _foreign(scene.job, replicas):
        return Led(step=failed(scene, status, Reason.FOREIGN_VOLUME, broken))
    highest = max((replica.state.term for replica in replicas), default=0)
    if highest > status.term or status.term < 1:
        # Somebody reigned after us, or our status is older than a volume: claim a higher term first.
        return Led(step=Step(status=status.model_copy(update={"term": max(highest, 0) + 1})))
    known = status.aggregator
    if known is None or (known.boot_id is not None and _lost(scene, known, replicas) is not None):
        return Led(step=Step(status=_deposed(status)))
    if known.boot_id is None:
        return Led(step=_elect(scene, known, replicas))
    actions = _appointments(scene, known, replicas)
    if scene.state is None:
        return Led(step=Step(status=status, actions=actions))
    return Led(actions=actions)


def _replicas(scene: Scene) -> list[_Replica]:
    return [
        _Replica(pod=pod, state=scene.seen.replicas[pod.incarnation].state)
        for _, pod in sorted(scene.pods.aggregators.items())
        if pod.phase is PodPhase.READY and pod.url and pod.incarnation in scene.seen.replicas
    ]


def _foreign(job: FederatedJob, replicas: list[_Replica]) -> str | None:
    for replica in replicas:
        if replica.state.job_uid not in (None, job.metadata.uid):
            return (
                f"the folder of {replica_name(replica.pod.index)} belongs to job {replica.state.job_uid}, not to "
                f"{job.metadata.uid}; give it an empty one"
            )
    return None


# Losing a leader


def _lost(scene: Scene, known: AggregatorStatus, replicas: list[_Replica]) -> str | None:
    """Why the leader leads no more; ``None`` while it may."""
    pod = scene.pods.aggregator
    if pod is None:
        return "its pod is gone"
    if pod.phase is not PodPhase.READY:
        return f"its pod is {pod.phase}"
    state = next((replica.state for replica in replicas if replica.pod.incarnation == pod.incarnation), None)
    if state is not None and state.boot_id != known.boot_id:
        return "it was started again"
    refusal = scene.seen.failures.get(appoint_key(pod.incarnation, _leadership(scene, known)))
    if refusal is not None and refusal.word in _REFUSES_TO_LEAD:
        return f"it refuses to lead: {refusal.message}"
    silence = silence_of(scene, pod)
    return None if silence is None else f"it does not answer: {silence.message}"


_REFUSES_TO_LEAD: Final = frozenset({Word.WRONG_BASE, Word.WRONG_BOOT, Word.ROUND_CONFLICT})
"""Answers of a leader that is not, or not any more, what it was when it was chosen."""


def silence_of(scene: Scene, aggregator: PodView) -> Failure | None:
    """The call of an aggregator that has had no answer for a while, if there is one."""
    state = state_key(aggregator.incarnation)
    keys = [state]
    known, status = scene.job.status.aggregator, scene.job.status
    if scene.has_standbys and known is not None:
        keys.append(appoint_key(aggregator.incarnation, _leadership(scene, known)))
    if current := status.current_round:
        keys.append(open_key(aggregator.incarnation, current.number, status.term, current.attempt))
        keys.append(watch_key(aggregator.incarnation, current.number, current.attempt))
    failures = ((key, scene.seen.failures[key]) for key in keys if key in scene.seen.failures)
    # A refusal is an answer, and told by the round; what the state is never refused for is any of the round's reasons.
    silent = (item for key, item in failures if item.word is None or key == state)
    return next((item for item in silent if scene.now - item.since >= UNREACHABLE_AFTER), None)


def _deposed(status: FederatedJobStatus) -> FederatedJobStatus:
    """Nobody leads any more, in a term of its own."""
    known = status.aggregator or AggregatorStatus()
    nobody = known.model_copy(update={"leader": None, "uid": None, "boot_id": None})
    return status.model_copy(update={"term": status.term + 1, "aggregator": nobody})


# Choosing one


def _elect(scene: Scene, known: AggregatorStatus, replicas: list[_Replica]) -> Step:
    status = scene.job.status
    bound = [replica for replica in replicas if _is_bound(replica.state, status)]
    fit = [replica for replica in bound if _holds_what_is_committed(replica, status)]
    if len(bound) >= needed_replicas(scene.spec) and fit:
        chosen = _most_advanced(fit)
        update = {
            "leader": pod_name(scene.job.metadata.name, PodRole.AGGREGATOR, chosen.pod.index, chosen.pod.ordinal),
            "uid": chosen.pod.incarnation,
            "boot_id": chosen.state.boot_id,
        }
        return Step(status=status.model_copy(update={"aggregator": known.model_copy(update=update)}))
    if len(bound) == scene.spec.aggregator.replicas:
        return failed(scene, status, Reason.CHECKPOINT_LOST, _all_behind(bound, status))
    nobody = _leadership(scene, known)
    asked = [replica.pod for replica in replicas if replica not in bound]
    return Step(status=status, actions=tuple(_appoint(pod, nobody) for pod in asked))


def _most_advanced(fit: list[_Replica]) -> _Replica:
    """The highest stamp says which model may have been acknowledged; of its holders one with the complete record."""
    highest = max(fit, key=lambda replica: replica.rank)
    if highest.newest is None:
        return highest
    held = (highest.newest.round, highest.newest.digest)
    equal = [replica for replica in fit if replica.newest and (replica.newest.round, replica.newest.digest) == held]
    return max(equal, key=lambda replica: (replica.is_closed, replica.rank))


def _is_bound(state: AggregatorState, status: FederatedJobStatus) -> bool:
    """Whether it has said, in this term's election, what it holds."""
    return state.term == status.term and state.replica is not None and state.replica.term == status.term


def _holds_what_is_committed(replica: _Replica, status: FederatedJobStatus) -> bool:
    """Whether it ends with the committed round, or with the one in progress on top of it."""
    newest, model, current = replica.newest, status.model, status.current_round
    number, digest = (newest.round, newest.digest) if newest else (-1, None)
    if number == status.rounds.committed:
        return digest == (model.digest if model else None)
    is_next = newest is not None and current is not None and number == current.number == status.rounds.committed + 1
    return is_next and newest is not None and newest.parent == (model.digest if model else None)


def _all_behind(bound: list[_Replica], status: FederatedJobStatus) -> str:
    held = ", ".join(
        f"{replica_name(item.pod.index)} with {f'round {item.newest.round}' if item.newest else 'nothing'}"
        for item in bound
    )
    return (
        f"no aggregator holds round {status.rounds.committed} as the status has it: {held}; restore a folder that "
        "belongs to this job, or start a new one"
    )


# Telling them


def _leadership(scene: Scene, known: AggregatorStatus) -> Leadership:
    job, pod = scene.job, scene.pods.aggregator
    names = tuple(replica_name(index) for index in range(job.spec.aggregator.replicas))
    said = Leadership(
        job_uid=job.metadata.uid,
        term=max(job.status.term, 1),
        replicas=names,
        acknowledgement=Acknowledgement(job.spec.aggregator.replication.ack),
        committed=base_of(job),
    )
    if known.boot_id is None or pod is None or pod.url is None:
        return said
    leader = {"leader": replica_name(pod.index), "leader_boot_id": known.boot_id, "leader_url": pod.url}
    return said.model_copy(update=leader)


def _appointments(scene: Scene, known: AggregatorStatus, replicas: list[_Replica]) -> tuple[Action, ...]:
    said = _leadership(scene, known)
    silent = _silent(scene)
    return tuple(
        _appoint(replica.pod, said)
        for replica in replicas
        if not _is_told(replica.state, said) or replica_name(replica.pod.index) in silent
    )


def _is_told(state: AggregatorState, said: Leadership) -> bool:
    replica = state.replica
    return replica is not None and (replica.term, replica.leader) == (said.term, said.leader)


def _silent(scene: Scene) -> frozenset[str]:
    """Standbys that the leader has not heard of for a while: they may have forgotten whom they follow."""
    return frozenset(item.name for item in _seen_standbys(scene) if item.silent_seconds >= SILENT_SECONDS)


def _appoint(pod: PodView, said: Leadership) -> Appoint:
    return Appoint(url=pod.url or "", incarnation=pod.incarnation, leadership=said)


# What people see


def await_standbys(scene: Scene, aggregator: PodView, view: RoundView) -> Step:
    """Watch a round that is durable on the leader until enough aggregators hold it."""
    status, waiting = scene.job.status, view.replication
    if waiting is not None and waiting.seconds >= UNREACHABLE_AFTER.total_seconds():
        message = (
            f"round {view.round} is on {waiting.holders} of {waiting.needed} needed aggregators; "
            "it goes on when further ones hold it"
        )
        status = progressing(scene, status, holds=False, reason=Reason.REPLICATION_PENDING, message=message)
    watch = WatchRound(
        url=aggregator.url or "", incarnation=aggregator.incarnation, round=view.round, attempt=view.attempt
    )
    return Step(status=status, actions=(watch,))


def leadership_condition(scene: Scene) -> tuple[bool, Reason, str]:
    """The condition AggregatorReady of a job with standbys: whether it holds, why, and in words."""
    known, status = scene.job.status.aggregator, scene.job.status
    ready = sum(pod.phase is PodPhase.READY for pod in scene.pods.aggregators.values())
    total, needed = scene.spec.aggregator.replicas, needed_replicas(scene.spec)
    if scene.state is not None:
        return True, Reason.AGGREGATOR_READY, ""
    found = next((item for (role, _), item in scene.pods.obstacles.items() if _blocks(role, item.reason)), None)
    why = f"; {found.message}" if found else ""
    if ready < needed:
        is_new = status.start_time is None
        reason = Reason.AGGREGATOR_STARTING if is_new else Reason.WAITING_FOR_STANDBYS
        specific = found.reason if found and found.reason and is_new and found.is_specific else reason
        return False, specific, f"{ready} of {total} aggregators are ready, {needed} are needed to choose a leader{why}"
    if known is not None and known.boot_id is not None and (refusal := _refusal(scene, known)) is not None:
        return False, Reason.CHECKPOINT_FAILED, f"{known.leader} cannot begin to lead: {refusal.message}; trying again"
    if status.start_time is None:
        return False, Reason.AGGREGATOR_STARTING, "the aggregators are starting"
    if known is not None and known.boot_id is None and ready < total and _is_behind(scene):
        held = f"none of {ready} aggregators that answer holds round {status.rounds.committed}"
        return False, Reason.WAITING_FOR_STANDBYS, f"{held}; waiting for the others{why}"
    return False, Reason.LEADER_LOST, "the aggregator that led is gone; a standby takes its place"


def _refusal(scene: Scene, known: AggregatorStatus) -> Failure | None:
    """Why the aggregator that was chosen does not lead yet, if its storage does not let it."""
    pod = scene.pods.aggregator
    failure = scene.seen.failures.get(appoint_key(pod.incarnation, _leadership(scene, known))) if pod else None
    return failure if failure and failure.word == Word.STORAGE_FULL else None


def _blocks(role: PodRole, reason: Reason | None) -> bool:
    return role is PodRole.AGGREGATOR and reason is not None


def _is_behind(scene: Scene) -> bool:
    """Whether all that have answered in this election lack what is committed."""
    status = scene.job.status
    bound = [replica for replica in _replicas(scene) if _is_bound(replica.state, status)]
    return len(bound) > 0 and not any(_holds_what_is_committed(replica, status) for replica in bound)


def _seen_standbys(scene: Scene) -> list[StandbyView]:
    view, state = scene.newest_view, scene.state
    if state is None:
        return []
    if view is not None and view.boot_id == state.boot_id and view.standbys:
        return view.standbys
    return state.replica.standbys if state.replica else []


def with_standbys(scene: Scene, known: AggregatorStatus) -> AggregatorStatus:
    """Return what the status says of the aggregators, brought up to date."""
    ready = sum(pod.phase is PodPhase.READY for pod in scene.pods.aggregators.values())
    before = {item.name: item for item in known.standbys}
    seen = _seen_standbys(scene)
    now = tuple(_standby(scene, item, before.get(item.name)) for item in seen) or known.standbys
    return known.model_copy(update={"replicas": ready, "standbys": now})


def _standby(scene: Scene, view: StandbyView, before: StandbyStatus | None) -> StandbyStatus:
    fresh = StandbyStatus(name=view.name, committed=view.committed)
    if view.silent_seconds < SILENT_SECONDS:
        return fresh
    if before is not None and before.silent_since is not None:
        return before.model_copy(update={"committed": view.committed})
    since = scene.now - timedelta(seconds=min(view.silent_seconds, MAX_SILENCE))
    return fresh.model_copy(update={"silent_since": since})
