"""The resource `fedjob.dev/v1alpha1 FederatedJob` as typed, frozen data: the single source of its schema.

Everybody reads jobs through this module: the operator, the decision core, the command line. The CRD, its copy in the
chart and the reference are made from these models.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Final, Literal, Self

from pydantic import ConfigDict, Field

from fedjob_operator.api.base import (
    Base,
    Counter,
    Label,
    ObjectName,
    SpecModel,
    Text,
    Time,
    dump,
)
from fedjob_operator.api.enums import (
    Ack,
    Checkpoint,
    ClientPods,
    ConditionStatus,
    ConditionType,
    Device,
    EvaluationMode,
    LateJoiners,
    ObjectiveMode,
    OnQuorumLoss,
    PartitionScheme,
    Phase,
    RoundState,
    Weighting,
    WhenDeleted,
)
from fedjob_operator.api.learning import (
    ClaimCheckpoint,
    DataOverride,
    DataSpec,
    InitFrom,
    JobCheckpoint,
    LearningRateSchedule,
    ModelSpec,
    Objective,
    Optimizer,
    Partition,
    Stop,
    Strategy,
    Training,
)
from fedjob_operator.api.spec import (
    Aggregator,
    ClientGroup,
    Evaluation,
    External,
    FederatedJobSpec,
    Replication,
    RetentionPolicy,
    RoundPolicy,
    SecretRef,
    Serve,
    Storage,
)
from fedjob_operator.api.status import (
    AggregatorStatus,
    BestModel,
    Clients,
    CommittedModel,
    Condition,
    CurrentRound,
    Divergence,
    FederatedJobStatus,
    Gpus,
    Images,
    LayoutEntry,
    Metric,
    Origin,
    RecentRound,
    Recovery,
    ReplacedClient,
    Rounds,
    Serving,
    StandbyStatus,
    Startup,
    Summary,
)

__all__ = [
    "API_VERSION",
    "GROUP",
    "KIND",
    "PLURAL",
    "SHORT_NAME",
    "VERSION",
    "Ack",
    "Aggregator",
    "AggregatorStatus",
    "BestModel",
    "Checkpoint",
    "ClaimCheckpoint",
    "ClientGroup",
    "ClientPods",
    "Clients",
    "CommittedModel",
    "Condition",
    "ConditionStatus",
    "ConditionType",
    "CurrentRound",
    "DataOverride",
    "DataSpec",
    "Device",
    "Divergence",
    "Evaluation",
    "EvaluationMode",
    "External",
    "FederatedJob",
    "FederatedJobSpec",
    "FederatedJobStatus",
    "Gpus",
    "Images",
    "InitFrom",
    "JobCheckpoint",
    "LateJoiners",
    "LayoutEntry",
    "LearningRateSchedule",
    "Metric",
    "ModelSpec",
    "ObjectMeta",
    "Objective",
    "ObjectiveMode",
    "OnQuorumLoss",
    "Optimizer",
    "Origin",
    "Partition",
    "PartitionScheme",
    "Phase",
    "RecentRound",
    "Recovery",
    "ReplacedClient",
    "Replication",
    "RetentionPolicy",
    "RoundPolicy",
    "RoundState",
    "Rounds",
    "SecretRef",
    "Serve",
    "Serving",
    "StandbyStatus",
    "Startup",
    "Stop",
    "Storage",
    "Strategy",
    "Summary",
    "Training",
    "Weighting",
    "WhenDeleted",
    "dump",
]

GROUP: Final = "fedjob.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = "fedjob.dev/v1alpha1"
KIND: Final = "FederatedJob"
PLURAL: Final = "federatedjobs"
SHORT_NAME: Final = "fj"


class ObjectMeta(Base):
    """The part of Kubernetes' object metadata that we read; the rest is ignored."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="ignore")

    name: Label
    """Name of the job: a DNS-1035 label of at most 40 characters. Immutable."""
    namespace: ObjectName = "default"
    """Namespace of the job. Immutable. Default: default."""
    uid: Text = ""
    """Unique id, set by the API server or by `fedjob run`; empty in a manifest."""
    generation: Counter = 1
    """Goes up with every change of the spec; set by the API server."""
    resource_version: Text = ""
    """Version of the whole object; set by the API server."""
    labels: Mapping[str, str] = Field(default={})
    """Labels."""
    annotations: Mapping[str, str] = Field(default={})
    """Annotations."""
    creation_timestamp: Time | None = None
    """When the job was created; set by the API server or by `fedjob run`."""
    deletion_timestamp: Time | None = None
    """When the deletion of the job was asked for; set by the API server."""


class FederatedJob(SpecModel):
    """A federated training job: an aggregator, its clients, and the rounds they train together."""

    api_version: Literal["fedjob.dev/v1alpha1"] = API_VERSION
    """fedjob.dev/v1alpha1."""
    kind: Literal["FederatedJob"] = KIND
    """FederatedJob."""
    metadata: ObjectMeta
    """Name, namespace, labels and what the API server adds."""
    spec: FederatedJobSpec
    """What the job shall do."""
    status: FederatedJobStatus = FederatedJobStatus()
    """What has been seen and decided; written by the operator."""

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Read an object as it is in a manifest or comes from the API server: camelCase names only.

        Raises:
            pydantic.ValidationError: If a field is unknown, missing, of a wrong type or out of its bounds.
        """
        return cls.model_validate(document, by_alias=True, by_name=False)
