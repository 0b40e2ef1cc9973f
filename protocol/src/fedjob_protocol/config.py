"""What a client program is told about its job: settings that stay the same for the life of a process.

The operator (or ``fedjob run``) hands `ClientConfig` to each client as JSON in the environment variable
``FEDJOB_CONFIG``.
"""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

from fedjob_protocol.messages import DEFAULT_MAX_MODEL_BYTES
from fedjob_protocol.wire import ClientIndex, Message, Name, Sha256, Url

CONFIG_VARIABLE = "FEDJOB_CONFIG"
"""Environment variable with the `ClientConfig` as JSON."""
TOKEN_VARIABLE = "FEDJOB_TOKEN"  # noqa: S105 - the variable's name
"""Environment variable with the job's token; absent means that none is asked for."""
STOPPED_EXIT_CODE_VARIABLE = "FEDJOB_STOPPED_EXIT_CODE"
"""Environment variable with the exit code of a client that is asked to end; absent means 0."""
TERMINATION_LOG_VARIABLE = "FEDJOB_TERMINATION_LOG"
"""Environment variable with the file that a dying program leaves its `Termination` in."""


class Role(StrEnum):
    """What a client process does in its job."""

    TRAINER = "Trainer"
    EVALUATOR = "Evaluator"
    SERVER = "Server"
    """Only answers ``/predict``; reads no data before it is asked for some."""


class Device(StrEnum):
    """Where a client computes."""

    AUTO = "Auto"
    CPU = "CPU"
    GPU = "GPU"


class PartitionScheme(StrEnum):
    """How one data set is divided among clients."""

    IID = "IID"
    DIRICHLET = "Dirichlet"
    SHARDS = "Shards"
    BY_LABEL = "ByLabel"
    QUANTITY_SKEW = "QuantitySkew"


class PartitionConfig(Message):
    """One client's part of a shared data set."""

    scheme: PartitionScheme
    index: int = Field(ge=0)
    """Which part is this client's."""
    count: int = Field(ge=1, le=100_000)
    """Into how many parts the data set is divided; fixed when the job was accepted."""
    alpha: float = Field(default=0.5, gt=0, le=1e6)
    """Concentration of the Dirichlet distribution; small is skewed."""
    shards_per_client: int = Field(default=2, ge=1, le=10_000)
    """Shards that each client gets under the scheme Shards."""
    seed: int = Field(default=0, ge=0, le=2**63 - 1)


class DataConfig(Message):
    """The data that a client trains or evaluates on."""

    name: Name
    path: Annotated[str, Field(max_length=4096)] | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    partition: PartitionConfig | None = None
    """Absent: the client trains on all that it finds."""
    max_train_samples: int | None = Field(default=None, ge=1)
    max_test_samples: int | None = Field(default=None, ge=1)


class ModelConfig(Message):
    """The model to train."""

    name: Name
    parameters: dict[str, Any] = Field(default_factory=dict)
    exclude: tuple[Annotated[str, Field(min_length=1, max_length=253)], ...] = Field(default=(), max_length=64)
    """Patterns of tensor names that stay at the client."""


class ClientConfig(Message):
    """Everything that a client process is told when it starts."""

    job_uid: Name
    job_name: Name
    role: Role = Role.TRAINER
    index: ClientIndex = 0
    """The client's index, unique in the job; an evaluator has 0."""
    name: Name
    group: Name = "clients"
    seed: int = Field(default=0, ge=0, le=2**63 - 1)
    """The job's seed."""
    model: ModelConfig
    data: DataConfig
    trainer: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$", max_length=253)] | None = None
    """``package.module:Class``; absent means the built-in trainer of the model's name."""
    trainer_path: str | None = None
    """Folder that is put on the import path for `trainer`."""
    device: Device = Device.AUTO
    model_file: str | None = None
    """Checkpoint to start with: served by ``/predict``, and uploaded by ``/v1/init`` when the job says ``initFrom``."""
    model_digest: Sha256 | None = None
    model_url: Url | None = None
    """Where a server fetches the model from, before it serves; with `model_digest`."""
    max_model_bytes: int = Field(default=DEFAULT_MAX_MODEL_BYTES, ge=1)


class Termination(Message):
    """Why a program ended, left in its termination log: Kubernetes shows it, the local engine reads the same file."""

    reason: Annotated[str, Field(max_length=128)]
    """A member of `fedjob_protocol.reasons.Reason`."""
    message: Annotated[str, Field(max_length=2048)]
