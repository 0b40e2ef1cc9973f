"""Whether a client computes on a GPU: ``device: GPU | Auto | CPU``. What is not done is said, and why."""

import importlib.util
import logging
import sys
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal

from fedjob_client.cuda.driver import ask_driver, cuda_available, is_simulated
from fedjob_client.cuda.plan import MAX_CLASSES
from fedjob_client.data.dataset import Split
from fedjob_client.errors import GpuUnavailableError, SettingsError
from fedjob_client.models.linear import LinearRegression
from fedjob_client.models.logistic import LogisticRegression
from fedjob_client.models.model import Model
from fedjob_client.models.softmax import SoftmaxRegression
from fedjob_protocol.config import Device

if TYPE_CHECKING:
    from fedjob_client.cuda.training import GpuTraining

_log = logging.getLogger(__name__)

PACKAGE: Final = "numba_cuda"
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


def gpu_training(device: Device, model: Model, train: Split, classes: int | None) -> "GpuTraining | None":
    """Have the examples put on a GPU; ``None`` if the client computes on the CPU.

    Args:
        device: What was asked for.
        model: The built-in model.
        train: The training examples, as the model takes them.
        classes: Of the data set; ``None``: its labels are values.

    Raises:
        GpuUnavailableError: A GPU was asked for and cannot be used.
        SettingsError: A GPU was asked for, and the model has no kernels.
    """
    if device is Device.CPU:
        return None
    try:
        scores = classes or 1 if isinstance(model, SoftmaxRegression) else 1
        _check_model(model, scores)
        check_gpu()
        return _tried(model, train, scores)
    except (GpuUnavailableError, SettingsError) as error:
        if device is Device.GPU:
            raise
        # On a machine without a GPU that is what everybody expects; on one with a GPU somebody pays for it.
        _log.log(logging.WARNING if cuda_available() else logging.INFO, "device: Auto: computing on the CPU: %s", error)
        return None


def _check_model(model: Model, scores: int) -> None:
    """Make sure that a model has kernels; raises `SettingsError`."""
    if type(model) not in LINKS:
        raise SettingsError(
            f"device: GPU was asked for, and the built-in {type(model).__name__} runs on the CPU; linear, logistic and "
            "softmax regression run on GPUs, networks by a trainer on PyTorch: use one of them, or Auto or CPU"
        )
    if scores > MAX_CLASSES:
        raise SettingsError(
            f"device: GPU was asked for, and its kernels take at most {MAX_CLASSES} classes, the data have {scores}: "
            "use Auto or CPU"
        )


def _tried(model: Model, train: Split, scores: int) -> "GpuTraining":
    """Compile the kernels and compare what they compute with the reference once, so that a job starts on what works."""
    from fedjob_client.cuda.training import GpuTraining  # noqa: PLC0415 - imports Numba, which takes half a second

    threads = None
    if is_simulated():
        threads = SIMULATED_THREADS
        sys.setswitchinterval(SIMULATED_TURN_SECONDS)
    training = GpuTraining(LINKS[type(model)], model, train, classes=scores, threads=threads)
    try:
        training.try_out()
    except GpuUnavailableError:
        raise
    except Exception as error:
        raise GpuUnavailableError(f"the kernels do not run on this machine's GPU: {error}") from error
    _log.info("training on %s", "Numba's CUDA simulator, in place of a GPU" if is_simulated() else "a GPU")
    return training
