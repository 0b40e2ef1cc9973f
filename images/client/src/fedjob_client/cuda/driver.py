"""What the machine's CUDA driver says: whether there is a GPU, asked without loading anything of Numba."""

import ctypes
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from fedjob_client.cuda.faults import UNAVAILABLE
from fedjob_client.errors import GpuUnavailableError

LIBRARY: Final = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
SIMULATOR_VARIABLE: Final = "NUMBA_ENABLE_CUDASIM"
MIN_VERSION: Final = 12_000
"""The CUDA version that a driver has to support, as it says it: 1000 · major + 10 · minor."""
MIN_DRIVER: Final = "525"
"""The first release of NVIDIA's driver that does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """A driver that can be used."""

    version: int
    """The newest CUDA version that it supports, 1000 · major + 10 · minor."""
    devices: int
    """GPUs that this process sees, from 1."""


def ask_driver(load: Callable[[str], Any] = ctypes.CDLL) -> Driver:
    """Ask the driver of this machine.

    Args:
        load: Loads a shared library by its name.

    Raises:
        GpuUnavailableError: There is none, it is too old, or it has no GPU for this process: says which.
    """
    try:
        library = load(LIBRARY)
        start, version_of, count_of = library.cuInit, library.cuDriverGetVersion, library.cuDeviceGetCount
    except (OSError, AttributeError) as error:
        raise GpuUnavailableError(
            f"there is no NVIDIA driver ({LIBRARY} cannot be loaded): the machine has no GPU, or the container was "
            "started without one"
        ) from error
    version, count = ctypes.c_int(0), ctypes.c_int(0)
    if version_of(ctypes.byref(version)) == 0 and version.value < MIN_VERSION:  # it may be asked before cuInit
        raise GpuUnavailableError(
            f"NVIDIA's driver supports CUDA {_dotted(version.value)}, these kernels need {_dotted(MIN_VERSION)}: "
            f"update it to release {MIN_DRIVER} or later"
        )
    code = start(0) or count_of(ctypes.byref(count))
    if code:
        meaning = UNAVAILABLE.get(code, "the driver cannot be started")
        raise GpuUnavailableError(f"{meaning} (CUDA error {code})")
    if count.value < 1:
        raise GpuUnavailableError(UNAVAILABLE[100])
    return Driver(version=version.value, devices=count.value)


def is_simulated() -> bool:
    """Whether Numba's CUDA simulator stands in for a GPU, as Numba itself reads it from the environment."""
    return os.environ.get(SIMULATOR_VARIABLE, "0") not in {"", "0"}


@cache
def cuda_available() -> bool:
    """Whether this machine has a GPU with a driver that the kernels can use; asked once in a process."""
    if is_simulated():
        return True
    try:
        ask_driver()
    except GpuUnavailableError:
        return False
    return True


def _dotted(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"


if __name__ == "__main__":
    try:
        found = ask_driver()
    except GpuUnavailableError as error:
        sys.exit(f"no GPU: {error}")
    sys.stdout.write(f"{found.devices} GPUs, driver for CUDA {_dotted(found.version)}\n")
