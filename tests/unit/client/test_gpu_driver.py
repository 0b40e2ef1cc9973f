"""What the driver says, played at its border: a library that answers as a real one would."""

import pytest

from fedjob_client.cuda.driver import LIBRARY, ask_driver
from fedjob_client.cuda.faults import code_of, named
from fedjob_client.errors import DataError, GpuFailedError, GpuOutOfMemoryError, GpuUnavailableError
from fedjob_protocol.reasons import Reason


class Library:
    """libcuda as far as it is asked."""

    def __init__(self, *, version=12080, devices=1, start=0, count=0):
        self.version, self.devices, self.start, self.count = version, devices, start, count

    def cuInit(self, flags):  # noqa: N802 - the driver's name
        assert flags == 0
        return self.start

    def cuDriverGetVersion(self, out):  # noqa: N802 - the driver's name
        out._obj.value = self.version
        return 0

    def cuDeviceGetCount(self, out):  # noqa: N802 - the driver's name
        out._obj.value = self.devices
        return self.count


def test_a_driver_with_a_gpu_is_described():
    asked = []

    def load(name):
        asked.append(name)
        return Library(devices=2)

    driver = ask_driver(load)
    assert (driver.version, driver.devices) == (12080, 2)
    assert asked == [LIBRARY]


@pytest.mark.parametrize(
    ("library", "message"),
    [
        (Library(version=11040), r"driver supports CUDA 11\.4, these kernels need 12\.0: update it to release 525 or"),
        (Library(version=11040, start=35), r"driver supports CUDA 11\.4"),
        (Library(start=100), r"no GPU: none is there, or NVIDIA_VISIBLE_DEVICES .* hides it \(CUDA error 100\)"),
        (Library(devices=0), "there is a driver and no GPU"),
        (Library(start=803), r"of different versions: the node has to be restarted \(CUDA error 803\)"),
        (Library(count=999), r"the driver cannot be started \(CUDA error 999\)"),
        (object(), f"there is no NVIDIA driver .{LIBRARY} cannot be loaded"),
    ],
)
def test_what_is_missing_is_named_with_what_to_do(library, message):
    with pytest.raises(GpuUnavailableError, match=message) as raised:
        ask_driver(lambda _: library)
    assert raised.value.reason is Reason.GPU_UNAVAILABLE


def test_a_machine_without_a_driver_has_none():
    def load(name):
        raise OSError(f"{name}: cannot open shared object file")

    with pytest.raises(GpuUnavailableError, match="the machine has no GPU, or the container was started without one"):
        ask_driver(load)


class CudaAPIError(Exception):
    """As Numba raises it."""

    def __init__(self, code, message="Call to cuLaunchKernel results in CUDA_ERROR"):
        super().__init__(f"[{code}] {message}")
        self.code = code


class OutOfMemoryError(RuntimeError):
    """Named as PyTorch's, which has no code."""


class AcceleratorError(RuntimeError):
    """As PyTorch raises it."""

    error_code = 700


@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), GpuOutOfMemoryError, "adding: the GPU has"),
        (AcceleratorError("CUDA error: an illegal address"), GpuFailedError, "read or wrote where it may not"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_INTERNAL_ERROR when calling x"), GpuFailedError, "CUDA error 999"),
        (CudaAPIError(2), GpuOutOfMemoryError, "adding: the GPU has too little memory left"),
        (RuntimeError("CUDA_ERROR_OUT_OF_MEMORY: The API call failed"), GpuOutOfMemoryError, "too little memory"),
        (CudaAPIError(222), GpuUnavailableError, r"driver is too old for these kernels: update it \(CUDA error 222\)"),
        (CudaAPIError(209), GpuUnavailableError, "do not run on this GPU"),
        (CudaAPIError(700), GpuFailedError, r"adding: a kernel read or wrote where it may not \(CUDA error 700\)"),
        (CudaAPIError(701), GpuFailedError, "more registers or shared memory than the GPU has"),
        (CudaAPIError(719), GpuFailedError, "failed while it ran .CUDA error 719.; the client has to be started anew"),
        (CudaAPIError(123, "unheard of"), GpuFailedError, r"unheard of \(CUDA error 123\)"),
        (RuntimeError("CUDA_ERROR_LAUNCH_FAILED: x"), GpuFailedError, "CUDA error 719"),
    ],
)
def test_errors_of_the_driver_get_names(error, expected, message):
    with pytest.raises(expected, match=message) as raised, named("adding"):
        raise error
    assert raised.value.__cause__ is error


@pytest.mark.parametrize("error", [ValueError("no code at all"), DataError("ours"), SystemExit(2)])
def test_other_errors_pass(error):
    with pytest.raises(type(error)), named("adding"):
        raise error
    assert code_of(ValueError("x")) is None
