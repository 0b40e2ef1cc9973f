"""What a decision may ask for: a closed union, each action idempotent and named by its content.

Performing an action twice is harmless: pods are create-only under deterministic names, and every HTTP call is
idempotent by protocol. ``key`` names an action; one that is under way is not started again.
"""

from dataclasses import dataclass

from fedjob_operator.api.v1alpha1 import JobCheckpoint, Origin
from fedjob_operator.core.observed import PodRole
from fedjob_protocol.config import ClientConfig
from fedjob_protocol.messages import Evaluation, FailureReport, RoundSpec
from fedjob_protocol.registration import TurnedAway
from fedjob_protocol.replication import Leadership
from fedjob_protocol.tasks import EvaluateTask, InitTask, TrainTask


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatePod:
    """Create a pod; that it exists already is fine."""

    role: PodRole
    index: int
    ordinal: int
    cohort: int | None = None
    """Of a pod that a queue admits together with others: which start of them it belongs to."""

    @property
    def key(self) -> str:
        """Identity of the action."""
        return f"create/{self.role}/{self.index}/{self.ordinal}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletePod:
    """Delete a pod; that it is gone already is fine."""

    role: PodRole
    index: int
    ordinal: int
    incarnation: str

    @property
    def key(self) -> str:
        """Identity of the action."""
        return f"delete/{self.role}/{self.index}/{self.ordinal}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckPods:
    """Ask the cluster whether it would take the pods that the spec yields; nothing is made."""

    generation: int

    @property
    def key(self) -> str:
        """Identity of the action."""
        return f"check/{self.generation}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteJob:
    """Delete the job itself: it finished longer ago than its time to live."""

    @property
    def key(self) -> str:
        """Identity of the action."""
        return "delete-job"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeModel:
    """Have so many servers of a complete job's model; what is there already is changed to that."""

    replicas: int

    @property
    def key(self) -> str:
        """Identity of the action."""
        return f"serve/{self.replicas}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FindOrigin:
    """Look for the other job's checkpoint that this job begins with, and for where it is served."""

    ask: JobCheckpoint
    """What the spec names."""
    attempt: int
    """Of round 0, for which its address is needed; 0 before there is one."""
    origin: Origin | None
    """What was found before: the same is looked for."""

    @property
    def key(self) -> str:
        """Identity of the action."""
        return f"origin/{self.attempt}/{self.origin.digest if self.origin else '-'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Base of the HTTP calls: to which running program, and where it answers."""

    url: str
    incarnation: str
    boot_id: str | None = None
    """Of a client that registered itself: what the token that it is called with is made from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchInfo(Call):
    """Read a client's ``/v1/info``."""

    role: PodRole
    index: int

    @property
    def key(self) -> str:
        """Identity of the action."""
        return f"info/{self.role}/{self.index}/{self.incarnation}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigureClient(Call):
    """Tell a client that registered itself its job; `config` is filled in by whoever performs it."""

    index: int
    config: ClientConfig | None = None

    @property
    def key(self) -> str:
        """Identity of the action."""
        return f"configure/{self.index}/{self.incarnation}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnAway(Call):
    """Tell a client that registered itself that the job is over, or goes on without it."""

    notice: TurnedAway

    @property
    def key(self) -> str:
        """Identity of the action."""
        return f"turn-away/{self.incarnation}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadState(Call):
    """Read the aggregator's ``/v1/state``."""

    @property
    def key(self) -> str:
        """Identity of the action."""
        return state_key(self.incarnation)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListReplaced(Call):
    """Read from the aggregator which clients somebody wants replaced."""

    @property
    def key(self) -> str:
        """Identity of the action."""
        return f"replaced/{self.incarnation}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Appoint(Call):
    """Tell one of several aggregators who leads, or that an election is under way."""

    leadership: Leadership

    @property
    def key(self) -> str:
        """Identity of the action."""
        return appoint_key(self.incarnation, self.leadership)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRound(Call):
    """Open a round, or hand an open one the current term."""

    round: int
    spec: RoundSpec

    @property
    def key(self) -> str:
        """Identity of the action."""
        return open_key(self.incarnation, self.round, self.spec.term, self.spec.attempt)


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchRound(Call):
    """Long-poll a round until it is no longer open, or some seconds have passed."""

    round: int
    attempt: int
    settled: int | None = None
    """Also until another number of participants than this have reported or failed; ``None`` does not care."""

    @property
    def key(self) -> str:
        """Identity of the action."""
        return watch_key(self.incarnation, self.round, self.attempt)


@dataclass(frozen=True, slots=True, kw_only=True)
class StartTask(Call):
    """Give a client its task of a round."""

    client: int
    round: int
    task: TrainTask | InitTask

    @property
    def key(self) -> str:
        """Identity of the action."""
        goal = self.task.destination
        return f"task/{self.client}/{self.incarnation}/{self.round}/{goal.term}/{goal.attempt}/{goal.boot_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFailure(Call):
    """Tell the aggregator, in a lost client's place, that it will not report."""

    client: int
    round: int
    report: FailureReport

    @property
    def key(self) -> str:
        """Identity of the action."""
        return f"failure/{self.incarnation}/{self.client}/{self.round}/{self.report.term}/{self.report.attempt}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluate(Call):
    """Let the evaluator, or a client, evaluate a committed model, and wait for its answer."""

    task: EvaluateTask
    client: int | None = None
    """Index of the client; ``None`` is the evaluator."""

    @property
    def key(self) -> str:
        """Identity of the action; with where the model is, which changes when the aggregator is started again."""
        base = self.task.base
        return f"evaluate/{self.incarnation}/{base.round}/{base.digest}/{self.task.model_url}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordEvaluation(Call):
    """Post a round's evaluation to the aggregator, which closes the record."""

    round: int
    evaluation: Evaluation

    @property
    def key(self) -> str:
        """Identity of the action."""
        return f"record/{self.incarnation}/{self.round}/{self.evaluation.term}"


Action = (
    CreatePod
    | DeletePod
    | CheckPods
    | DeleteJob
    | FindOrigin
    | ServeModel
    | FetchInfo
    | ConfigureClient
    | TurnAway
    | ReadState
    | ListReplaced
    | Appoint
    | OpenRound
    | WatchRound
    | StartTask
    | ReportFailure
    | Evaluate
    | RecordEvaluation
)
"""Everything that a decision may ask for."""


def state_key(incarnation: str) -> str:
    """Identity of `ReadState`."""
    return f"state/{incarnation}"


def appoint_key(incarnation: str, leadership: Leadership) -> str:
    """Identity of `Appoint`."""
    return f"appoint/{incarnation}/{leadership.term}/{leadership.leader or '-'}/{leadership.leader_boot_id or '-'}"


def open_key(incarnation: str, round_number: int, term: int, attempt: int) -> str:
    """Identity of `OpenRound`."""
    return f"open/{incarnation}/{round_number}/{term}/{attempt}"


def watch_key(incarnation: str, round_number: int, attempt: int) -> str:
    """Identity of `WatchRound`."""
    return f"watch/{incarnation}/{round_number}/{attempt}"
