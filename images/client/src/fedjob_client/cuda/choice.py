"""Whether a client computes on a GPU: ``device: GPU | Auto | CPU``. What is not done is said, and why."""

import importlib.util
import logging
import sys
from functools import cache
from typing import Any, Final, Literal, Protocol

from fedjob_client.cuda.driver import ask_driver, cuda_available, is_simulated
from fedjob_client.cuda.plan import MAX_CLASSES
from fedjob_client.data.dataset import Split
from fedjob_client.errors import GpuUnavailableError, SettingsError
from fedjob_client.models.cnn import Cnn
from fedjob_client.models.linear import LinearRegression
from fedjob_client.models.logistic import LogisticRegression
from fedjob_client.models.mlp import Mlp
from fedjob_client.models.model import Model
from fedjob_client.models.softmax import SoftmaxRegression
from fedjob_client.trainer import Metrics, Params, TrainConfig
from fedjob_protocol.config import Device

_log = logging.getLogger(__name__)

PACKAGE: Final = "numba_cuda"
NETWORKS_PACKAGE: Final = "torch"
NETWORKS_DEVICE: Final = "cuda"
NETWORKS: Final = (Mlp, Cnn)
"""The models that PyTorch computes."""
SIMULATED_THREADS: Final = 4
"""Of a block in the simulator, where each is a thread of Python."""
SIMULATED_TURN_SECONDS: Final = 1e-4
"""These threads wait for each other all the time: shorter turns make the simulator many times faster."""
LINKS: Final[dict[type[Any], str]] = {
    LinearRegression: "linear",
    LogisticRegression: "logistic",
    SoftmaxRegression: "softmax",
}
"""The models that have kernels."""


class TrainingOnGpu(Protocol):
    """A model and one client's examples, on a GPU."""

    def train(self, params: Params, config: TrainConfig) -> tuple[Params, Metrics]:
        """Train from ``params``; return what came out, and the last epoch's metrics."""
        ...

    def try_out(self) -> None:
        """Compute a little and compare it with the CPU, so that a job starts on what works.

        Raises:
            GpuUnavailableError: The results differ.
            Exception: Whatever the library raises where it cannot compute.
        """
        ...


def check_gpu() -> None:
    """Make sure that this process can compute on a GPU, as far as that is known without doing it.

    Raises:
        GpuUnavailableError: Says what is missing.
    """
    missing = missing_for_gpu()
    if missing is not None:
        raise GpuUnavailableError(missing)


@cache
def missing_for_gpu() -> str | None:
    """What is missing to compute on a GPU; asked once in a process."""
    if is_simulated():
        return None
    try:
        ask_driver()
    except GpuUnavailableError as error:
        return str(error)
    if importlib.util.find_spec(PACKAGE) is None:
        return (
            "there is a GPU, but numba-cuda is not installed: install fedjob-client[cuda], or use the image client-cuda"
        )
    return None


@cache
def missing_for_networks() -> str | None:
    """What is missing to train a built-in network on a GPU; asked once in a process. Imports PyTorch if it is there."""
    try:
        ask_driver()
    except GpuUnavailableError as error:
        return str(error)
    if importlib.util.find_spec(NETWORKS_PACKAGE) is None:
        return (
            "there is a GPU, but PyTorch, by which built-in networks train there, is not installed: install torch, or "
            "use an image of the client that has it"
        )
    import torch  # noqa: PLC0415 - seconds, and some hundred MiB

    if not torch.cuda.is_available():
        return f"there is a GPU, but PyTorch {torch.__version__} finds none that it can use: install its CUDA build"
    return None


def simple_backend(device: Device) -> Literal["cpu", "gpu"]:
    """Where the simple forms compute.

    Raises:
        GpuUnavailableError: A GPU is asked for, and there is none.
    """
    if device is Device.CPU:
        return "cpu"
    try:
        check_gpu()
    except GpuUnavailableError:
        if device is Device.GPU:
            raise
        return "cpu"
    return "gpu"


def gpu_training(device: Device, model: Model, train: Split, classes: int | None) -> TrainingOnGpu | None:
    """Have the examples put on a GPU; ``None`` if the client computes on the CPU.

    Args:
        device: What was asked for.
        model: The built-in model.
        train: The training examples, as the model takes them.
        classes: Of the data set; ``None``: its labels are values.

    Raises:
        GpuUnavailableError: A GPU was asked for and cannot be used.
        SettingsError: A GPU was asked for, and the model cannot use one.
    """
    if device is Device.CPU:
        return None
    try:
        training = _network(model, train) if isinstance(model, NETWORKS) else _regression(model, train, classes)
        return _tried(training)
    except (GpuUnavailableError, SettingsError) as error:
        if device is Device.GPU:
            raise
        # On a machine without a GPU that is what everybody expects; on one with a GPU somebody pays for it.
        _log.log(logging.WARNING if cuda_available() else logging.INFO, "device: Auto: computing on the CPU: %s", error)
        return None


def _network(model: Model, train: Split) -> TrainingOnGpu:
    missing = missing_for_networks()
    if missing is not None:
        raise GpuUnavailableError(missing)
    from fedjob_client.cuda.networks import GpuNetwork  # noqa: PLC0415 - imports PyTorch

    return GpuNetwork(model, train, device=NETWORKS_DEVICE)


def _regression(model: Model, train: Split, classes: int | None) -> TrainingOnGpu:
    scores = classes or 1 if isinstance(model, SoftmaxRegression) else 1
    if type(model) not in LINKS:
        raise SettingsError(f"device: GPU was asked for, and the model {type(model).__name__} runs on the CPU only")
    if scores > MAX_CLASSES:
        raise SettingsError(
            f"device: GPU was asked for, and its kernels take at most {MAX_CLASSES} classes, the data have {scores}: "
            "use Auto or CPU"
        )
    check_gpu()
    from fedjob_client.cuda.training import GpuTraining  # noqa: PLC0415 - imports Numba, which takes half a second

    threads = None
    if is_simulated():
        threads = SIMULATED_THREADS
        sys.setswitchinterval(SIMULATED_TURN_SECONDS)
    return GpuTraining(LINKS[type(model)], model, train, classes=scores, threads=threads)


def _tried(training: TrainingOnGpu) -> TrainingOnGpu:
    try:
        training.try_out()
    except GpuUnavailableError:
        raise
    except Exception as error:
        raise GpuUnavailableError(f"this machine's GPU cannot be computed on: {error}") from error
    _log.info("training on %s", "Numba's CUDA simulator, in place of a GPU" if is_simulated() else "a GPU")
    return training
