"""The closed vocabularies of the resource, spelled as in manifests. Those that also travel are the protocol's own."""

from enum import StrEnum

from fedjob_protocol.config import Device, PartitionScheme
from fedjob_protocol.messages import Weighting

__all__ = [
    "Ack",
    "Checkpoint",
    "ClientPods",
    "ConditionStatus",
    "ConditionType",
    "Device",
    "EvaluationMode",
    "LateJoiners",
    "ObjectiveMode",
    "OnQuorumLoss",
    "PartitionScheme",
    "Phase",
    "RoundState",
    "Weighting",
    "WhenDeleted",
]


class Checkpoint(StrEnum):
    """Which checkpoint of another job a model begins with."""

    BEST = "Best"
    FINAL = "Final"
    ROUND = "Round"


class OnQuorumLoss(StrEnum):
    """What happens when a round has failed in all its attempts."""

    WAIT = "Wait"
    FAIL = "Fail"


class LateJoiners(StrEnum):
    """Whether a client that was not there at the start takes part later."""

    ACCEPT = "Accept"
    REFUSE = "Refuse"


class ClientPods(StrEnum):
    """How long a client's pod lives."""

    PER_JOB = "PerJob"
    PER_ROUND = "PerRound"


class EvaluationMode(StrEnum):
    """Who evaluates a committed model."""

    EVALUATOR = "Evaluator"
    CLIENTS = "Clients"


class ObjectiveMode(StrEnum):
    """Which values of the objective's metric are better."""

    MAX = "Max"
    MIN = "Min"


class WhenDeleted(StrEnum):
    """What happens to the checkpoints' volume when the job is deleted."""

    RETAIN = "Retain"
    DELETE = "Delete"


class Ack(StrEnum):
    """Who must hold a checkpoint before its round is committed."""

    MAJORITY = "Majority"
    NONE = "None"


class Phase(StrEnum):
    """The state of a job in one word, derived from its conditions, for people."""

    PENDING = "Pending"
    STARTING = "Starting"
    RUNNING = "Running"
    WAITING_FOR_CLIENTS = "WaitingForClients"
    SUSPENDING = "Suspending"
    SUSPENDED = "Suspended"
    COMPLETE = "Complete"
    FAILED = "Failed"


class RoundState(StrEnum):
    """How far the current round is."""

    PROVISIONING = "Provisioning"
    OPEN = "Open"
    EVALUATING = "Evaluating"


class ConditionType(StrEnum):
    """The conditions that we write; readers meet others too, so a condition's type is a plain string."""

    ACCEPTED = "Accepted"
    CLIENTS_READY = "ClientsReady"
    AGGREGATOR_READY = "AggregatorReady"
    PROGRESSING = "Progressing"
    SUSPENDED = "Suspended"
    COMPLETE = "Complete"
    FAILED = "Failed"


class ConditionStatus(StrEnum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"
