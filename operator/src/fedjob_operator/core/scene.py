"""What the parts of a decision share, and what each of them returns."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Self

from fedjob_operator.api.v1alpha1 import ConditionType, FederatedJob, FederatedJobSpec, FederatedJobStatus
from fedjob_operator.core.actions import Action
from fedjob_operator.core.conditions import finish, set_condition
from fedjob_operator.core.observed import Observed, PodPhase, PodView
from fedjob_operator.core.platform import Platform
from fedjob_operator.core.pods import PodPlan
from fedjob_protocol.messages import AggregatorState, RoundView
from fedjob_protocol.reasons import Reason
from fedjob_protocol.replicas import ReplicaRole


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One look at the world."""

    job: FederatedJob
    seen: Observed
    pods: PodPlan
    now: datetime
    platform: Platform

    @property
    def spec(self) -> FederatedJobSpec:
        """The job's spec."""
        return self.job.spec

    @property
    def aggregator(self) -> PodView | None:
        """The aggregator's pod, if it is ready; of several, the leader's."""
        pod = self.pods.aggregator
        return pod if pod and pod.phase is PodPhase.READY else None

    @property
    def has_standbys(self) -> bool:
        """Whether the job has several aggregators."""
        return self.spec.aggregator.replicas > 1

    @property
    def state(self) -> AggregatorState | None:
        """The state of the aggregator that runs now; of several, the leader's once it leads in the current term."""
        pod = self.aggregator
        if pod is None or not self.has_standbys:
            return self.seen.state if pod else None
        seen = self.seen.replicas.get(pod.incarnation)
        return seen.state if seen and is_leading(seen.state, self.job.status) else None

    @property
    def newest_view(self) -> RoundView | None:
        """The newest view of a round that the aggregator, or the leader, gave."""
        if not self.has_standbys or self.aggregator is None:
            return self.seen.round
        seen = self.seen.replicas.get(self.aggregator.incarnation)
        return seen.round if seen else None

    def view(self, round_number: int) -> RoundView | None:
        """The newest view of a round, if the aggregator that runs now gave one."""
        view = self.newest_view
        if self.state is None or view is None or view.boot_id != self.state.boot_id:
            return None
        return view if view.round == round_number else None

    def committed(self) -> tuple[int, str | None]:
        """Number and digest of the last round that the aggregator committed; (-1, None) before round 0."""
        found = self.state.committed if self.state else None
        return (found.round, found.digest) if found else (-1, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a part of the decision wants: a status, actions, and when to look again."""

    status: FederatedJobStatus
    actions: tuple[Action, ...] = ()
    wake_at: datetime | None = None

    def acting(self, *actions: Action) -> Self:
        """Return the step with further actions."""
        return replace(self, actions=(*self.actions, *actions))

    def waking(self, at: datetime | None) -> Self:
        """Return the step with an earlier look, if this is earlier."""
        if at is None or (self.wake_at is not None and self.wake_at <= at):
            return self
        return replace(self, wake_at=at)


def is_leading(state: AggregatorState, status: FederatedJobStatus) -> bool:
    """Whether one of several aggregators says that it leads in the term of the status, as the run that was chosen."""
    replica, known = state.replica, status.aggregator
    if replica is None or known is None or state.boot_id != known.boot_id:
        return False
    return replica.role is ReplicaRole.LEADER and replica.term == status.term


def failed(scene: Scene, status: FederatedJobStatus, reason: Reason, message: str) -> Step:
    """The job cannot go on."""
    return Step(status=finish(status, failed=True, reason=reason, message=message, now=scene.now))


def progressing(
    scene: Scene, status: FederatedJobStatus, *, holds: bool, reason: Reason, message: str
) -> FederatedJobStatus:
    """Return the status with its Progressing condition set."""
    return set_condition(status, ConditionType.PROGRESSING, holds=holds, reason=reason, message=message, now=scene.now)
