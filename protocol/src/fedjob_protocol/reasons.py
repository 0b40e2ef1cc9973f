"""Why a job waits or failed: a closed list, each with the sentence that the documentation shows."""

from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Reason(StrEnum):
    """Reasons of conditions and phases."""

    # Going well
    ACCEPTED = "Accepted"
    STARTING = "Starting"
    ROUND_IN_PROGRESS = "RoundInProgress"
    EVALUATING = "Evaluating"
    ROUNDS_COMPLETED = "RoundsCompleted"
    TARGET_REACHED = "TargetReached"
    NO_IMPROVEMENT = "NoImprovement"
    CLIENTS_READY = "ClientsReady"
    AGGREGATOR_READY = "AggregatorReady"
    SUSPENDING = "Suspending"
    SUSPENDED = "Suspended"
    RESUMED = "Resumed"
    # Waiting
    WAITING_FOR_CLIENTS = "WaitingForClients"
    PROVISIONING = "Provisioning"
    INITIAL_MODEL_PENDING = "InitialModelPending"
    AGGREGATOR_STARTING = "AggregatorStarting"
    AGGREGATOR_UNREACHABLE = "AggregatorUnreachable"
    LEADER_LOST = "LeaderLost"
    WAITING_FOR_STANDBYS = "WaitingForStandbys"
    REPLICATION_PENDING = "ReplicationPending"
    QUORUM_LOST = "QuorumLost"
    CHECKPOINT_FAILED = "CheckpointFailed"
    EVALUATION_FAILED = "EvaluationFailed"
    UNSCHEDULABLE = "Unschedulable"
    GPU_UNAVAILABLE = "GpuUnavailable"
    QUOTA_EXCEEDED = "QuotaExceeded"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    CONTAINER_CANNOT_RUN = "ContainerCannotRun"
    VOLUME_UNAVAILABLE = "VolumeUnavailable"
    VOLUME_MOUNT_FAILED = "VolumeMountFailed"
    NODE_UNREACHABLE = "NodeUnreachable"
    POD_REFUSED = "PodRefused"
    INVALID_POD_TEMPLATE = "InvalidPodTemplate"
    # Failures of processes
    CLIENT_LOST = "ClientLost"
    LATE_JOINER = "LateJoiner"
    CRASHED = "Crashed"
    OOM_KILLED = "OOMKilled"
    GPU_OUT_OF_MEMORY = "GpuOutOfMemory"
    GPU_FAILED = "GpuFailed"
    EVICTED = "Evicted"
    FOLDER_IN_USE = "FolderInUse"
    DATA_ERROR = "DataError"
    TRAINER_ERROR = "TrainerError"
    # Failures of rounds
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    NON_FINITE_UPDATE = "NonFiniteUpdate"
    UPDATE_REFUSED = "UpdateRefused"
    STRATEGY_FAILED = "StrategyFailed"
    TRANSFER_FAILED = "TransferFailed"
    NON_FINITE_METRIC = "NonFiniteMetric"
    # Failures of the job
    INVALID_SPEC = "InvalidSpec"
    CHECKPOINT_LOST = "CheckpointLost"
    FOREIGN_VOLUME = "ForeignVolume"
    DIVERGED = "Diverged"
    INIT_FAILED = "InitFailed"
    INITIAL_MODEL_LOST = "InitialModelLost"
    ARCHITECTURE_MISMATCH = "ArchitectureMismatch"
    STARTUP_DEADLINE_EXCEEDED = "StartupDeadlineExceeded"
    ACTIVE_DEADLINE_EXCEEDED = "ActiveDeadlineExceeded"
    PROTOCOL_MISMATCH = "ProtocolMismatch"


GOING_WELL: Final = frozenset(
    {
        Reason.ACCEPTED,
        Reason.STARTING,
        Reason.ROUND_IN_PROGRESS,
        Reason.EVALUATING,
        Reason.ROUNDS_COMPLETED,
        Reason.TARGET_REACHED,
        Reason.NO_IMPROVEMENT,
        Reason.CLIENTS_READY,
        Reason.AGGREGATOR_READY,
        Reason.SUSPENDING,
        Reason.SUSPENDED,
        Reason.RESUMED,
        Reason.PROVISIONING,
    }
)
"""Reasons of a job that nothing is wrong with; each other one is explained in the page on troubleshooting."""

DESCRIPTIONS: Final = MappingProxyType(
    {
        Reason.ACCEPTED: "The manifest is valid and the job's layout is fixed.",
        Reason.STARTING: "The aggregator and the clients are being started.",
        Reason.ROUND_IN_PROGRESS: "A round is open: clients train and upload.",
        Reason.EVALUATING: "The round is committed and its model is being evaluated.",
        Reason.ROUNDS_COMPLETED: "All rounds are committed.",
        Reason.TARGET_REACHED: "The objective reached `stop.target`.",
        Reason.NO_IMPROVEMENT: "The objective did not improve for `stop.patienceRounds` evaluations.",
        Reason.CLIENTS_READY: "Enough clients are ready.",
        Reason.AGGREGATOR_READY: "The aggregator answers.",
        Reason.SUSPENDING: "`spec.suspend` is true; pods are being released.",
        Reason.SUSPENDED: "`spec.suspend` is true and all pods are gone.",
        Reason.RESUMED: "`spec.suspend` was set to false.",
        Reason.WAITING_FOR_CLIENTS: "Fewer clients are ready than the job needs; it goes on when they are back.",
        Reason.PROVISIONING: "The round's participants are being made ready.",
        Reason.INITIAL_MODEL_PENDING: (
            "The job that `model.initFrom` names is not there yet, has not finished, or does not serve its model now."
        ),
        Reason.AGGREGATOR_STARTING: "The aggregator is being started.",
        Reason.AGGREGATOR_UNREACHABLE: "The aggregator does not answer.",
        Reason.LEADER_LOST: "The aggregator that led is gone or does not answer; a standby is about to take its place.",
        Reason.WAITING_FOR_STANDBYS: (
            "Too few aggregators answer, or those that do hold less than is committed; none is promoted."
        ),
        Reason.REPLICATION_PENDING: "A round is durable on the leader and waits until enough aggregators hold it.",
        Reason.QUORUM_LOST: "A round got fewer reports than `minReports` in all its attempts.",
        Reason.CHECKPOINT_FAILED: "The checkpoint cannot be written, for example because the disk is full; retried.",
        Reason.EVALUATION_FAILED: "The evaluator failed or took too long.",
        Reason.UNSCHEDULABLE: "No node can take a pod; the scheduler's words are in the message.",
        Reason.GPU_UNAVAILABLE: "A client that asked for a GPU computes without one, or no node has one left.",
        Reason.QUOTA_EXCEEDED: "The namespace's quota does not allow a further pod.",
        Reason.IMAGE_PULL_FAILED: "An image cannot be pulled: its name, its registry or the pull secret is wrong.",
        Reason.CONTAINER_CANNOT_RUN: "A container cannot be started, for example because its image lacks the program.",
        Reason.VOLUME_UNAVAILABLE: "A claim that a pod needs is not there or has no volume.",
        Reason.VOLUME_MOUNT_FAILED: "A node cannot mount a pod's volume; the kubelet's words are in the message.",
        Reason.NODE_UNREACHABLE: "A pod's node does not answer; what has a volume of its own waits for it.",
        Reason.POD_REFUSED: "The API server or the kubelet refused a pod.",
        Reason.INVALID_POD_TEMPLATE: "The API server would refuse the pods that a template yields.",
        Reason.CLIENT_LOST: "A client was replaced `backoffLimit` times, or one that registered itself was not heard "
        "of for 30 s, and counts as lost.",
        Reason.LATE_JOINER: "A client came after the start of a job that refuses late joiners.",
        Reason.CRASHED: "A process ended without being asked to.",
        Reason.OOM_KILLED: "A process was killed because it used more memory than its limit.",
        Reason.GPU_OUT_OF_MEMORY: "A GPU's memory is too small for a client's training, even piece by piece.",
        Reason.GPU_FAILED: "A kernel or the GPU itself failed; the client is started anew.",
        Reason.EVICTED: "A pod was removed from its node, for example because the node ran out of memory or disk.",
        Reason.FOLDER_IN_USE: "Another process uses the aggregator's folder; tried again.",
        Reason.DATA_ERROR: "A client cannot read its data.",
        Reason.TRAINER_ERROR: "A trainer raised an exception.",
        Reason.DEADLINE_EXCEEDED: "A round's deadline passed below `minReports`.",
        Reason.NON_FINITE_UPDATE: "A client's update has NaN or infinite values.",
        Reason.UPDATE_REFUSED: "A client's update was refused; its machine word is in the message.",
        Reason.STRATEGY_FAILED: "The strategy raised an exception, or made values that are no finite numbers.",
        Reason.TRANSFER_FAILED: "A client could not fetch the model or deliver its update before the deadline.",
        Reason.NON_FINITE_METRIC: "A metric is not a finite number and was left out.",
        Reason.INVALID_SPEC: "The manifest contradicts itself.",
        Reason.CHECKPOINT_LOST: "The aggregator holds fewer committed rounds than the status says; none is repeated.",
        Reason.DIVERGED: "The training diverged again after a round from the best model; that one is kept.",
        Reason.FOREIGN_VOLUME: "The aggregator's folder belongs to another job.",
        Reason.INIT_FAILED: "The initial model could not be made or was refused.",
        Reason.INITIAL_MODEL_LOST: "The checkpoint that `model.initFrom` names is not kept, or is another one now.",
        Reason.ARCHITECTURE_MISMATCH: (
            "The checkpoint that `model.initFrom` names has other tensors than the model: names, shapes or types."
        ),
        Reason.STARTUP_DEADLINE_EXCEEDED: "The job did not start within `startupDeadlineSeconds`.",
        Reason.ACTIVE_DEADLINE_EXCEEDED: "The job ran longer than `activeDeadlineSeconds`.",
        Reason.PROTOCOL_MISMATCH: "A program of another release speaks another protocol version.",
    }
)
"""One sentence per reason, for the documentation."""
