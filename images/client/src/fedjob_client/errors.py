"""What goes wrong in a client, by the reason that the job's status will show."""

from typing import ClassVar

from fedjob_protocol.errors import FedJobError
from fedjob_protocol.reasons import Reason


class ClientError(FedJobError):
    """Base of the errors that a client explains to its job: one line, and a reason from the closed list."""

    reason: ClassVar[Reason] = Reason.CRASHED


class DataError(ClientError):
    """The data cannot be read, or do not fit the model: names the file, what was seen and what was expected."""

    reason = Reason.DATA_ERROR


class TrainerError(ClientError):
    """A trainer cannot be loaded, raised an exception, or returned something that is no update."""

    reason = Reason.TRAINER_ERROR


class ArchitectureError(ClientError):
    """A checkpoint to begin with has other tensors than the trainer's model."""

    reason = Reason.ARCHITECTURE_MISMATCH


class ModelError(ClientError):
    """The model to serve cannot be fetched."""

    reason = Reason.TRANSFER_FAILED


class NonFiniteError(TrainerError):
    """A trainer returned NaN or infinite values."""

    reason = Reason.NON_FINITE_UPDATE


class GpuUnavailableError(ClientError):
    """A GPU was asked for and cannot be used: says what is missing and what to do."""

    reason = Reason.GPU_UNAVAILABLE


class GpuOutOfMemoryError(ClientError):
    """The GPU's memory is too small for the least that a training needs."""

    reason = Reason.GPU_OUT_OF_MEMORY


class GpuFailedError(ClientError):
    """A kernel or the GPU failed. What this process holds on it is lost, and it can compute no more there."""

    reason = Reason.GPU_FAILED


class SettingsError(ClientError):
    """The client's own settings contradict themselves."""

    reason = Reason.INVALID_SPEC


class Cancelled(FedJobError):  # noqa: N818 - it is no error: a trainer lets it pass
    """Raised out of `TrainConfig.on_epoch` and `TrainConfig.check_cancelled` when nobody wants the result any more."""
