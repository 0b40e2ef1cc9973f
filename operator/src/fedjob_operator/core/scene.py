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
        """The aggregator's pod, if it is ready."""
        pod = self.pods.aggregator
        return pod if pod and pod.phase is PodPhase.READY else None

    @property
    def state(self) -> AggregatorState | None:
        """The state of the aggregator that runs now."""
        return self.seen.state if self.aggregator else None

    def view(self, round_number: int) -> RoundView | None:
        """The newest view of a round, if the aggregator that runs now gave one."""
        view = self.seen.round
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


def failed(scene: Scene, status: FederatedJobStatus, reason: Reason, message: str) -> Step:
    """The job cannot go on."""
    return Step(status=finish(status, failed=True, reason=reason, message=message, now=scene.now))


def progressing(
    scene: Scene, status: FederatedJobStatus, *, holds: bool, reason: Reason, message: str
) -> FederatedJobStatus:
    """Return the status with its Progressing condition set."""
    return set_condition(status, ConditionType.PROGRESSING, holds=holds, reason=reason, message=message, now=scene.now)
