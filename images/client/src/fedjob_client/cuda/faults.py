"""What the driver says when something goes wrong, as errors that a job's status can show."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final

from fedjob_client.errors import GpuFailedError, GpuOutOfMemoryError, GpuUnavailableError
from fedjob_client.trainer import one_line

OUT_OF_MEMORY: Final = 2
UNKNOWN: Final = 999
UNAVAILABLE: Final = MappingProxyType(
    {
        3: "the driver is shutting down",
        34: "the CUDA library is a stub without a driver behind it: run on a node with NVIDIA's driver",
        35: "NVIDIA's driver is too old for these kernels: update it",
        46: "the GPU is busy or not available: another program has it for itself",
        100: "there is a driver and no GPU: none is there, or NVIDIA_VISIBLE_DEVICES or CUDA_VISIBLE_DEVICES hides it",
        101: "the GPU is not a valid device",
        209: "these kernels do not run on this GPU: it is too old or too new for them",
        218: "the driver cannot read these kernels: update it",
        222: "NVIDIA's driver is too old for these kernels: update it",
        802: "the GPU is not ready: its fabric is still being set up",
        803: "driver and kernel module are of different versions: the node has to be restarted",
        804: "the driver does not support this GPU in compatibility mode: update it",
    }
)
"""``CUresult`` values that mean that no GPU can be used, and what each means (CUDA driver API, ``CUresult``)."""
FAILED: Final = MappingProxyType(
    {
        214: "an uncorrectable memory error",
        700: "a kernel read or wrote where it may not",
        701: "a kernel needs more registers or shared memory than the GPU has",
        702: "a kernel ran longer than the GPU's time limit",
        710: "a kernel stopped at an assertion",
        714: "the GPU met a fault in hardware",
        715: "a kernel had an instruction that the GPU does not know",
        716: "a kernel read or wrote at an address that is not aligned",
        717: "a kernel used an address of the wrong space",
        718: "a kernel jumped to where no code is",
        719: "a kernel failed while it ran",
        999: "the driver failed for a reason that it does not know",
    }
)
"""``CUresult`` values after which the process's context is lost."""


_NAMED: Final = MappingProxyType(
    {
        "CUDA_ERROR_OUT_OF_MEMORY": OUT_OF_MEMORY,
        "CUDA_ERROR_NO_DEVICE": 100,
        "CUDA_ERROR_NO_BINARY_FOR_GPU": 209,
        "CUDA_ERROR_INVALID_PTX": 218,
        "CUDA_ERROR_UNSUPPORTED_PTX_VERSION": 222,
        "CUDA_ERROR_ILLEGAL_ADDRESS": 700,
        "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES": 701,
        "CUDA_ERROR_LAUNCH_TIMEOUT": 702,
        "CUDA_ERROR_LAUNCH_FAILED": 719,
    }
)
"""For exceptions that have the name of a result in their message and no code: those of ``cuda.core``."""
_OUT_OF_MEMORY_CLASS: Final = "OutOfMemoryError"
"""Of PyTorch, which is not imported for that; it has no code."""


def code_of(error: BaseException) -> int | None:
    """The driver's result code in an exception of Numba, ``cuda.core`` or PyTorch, if it has one."""
    for attribute in ("code", "error_code"):  # PyTorch's is a ``cudaError_t``: the values named above are the same
        code = getattr(error, attribute, None)
        try:
            if code is not None:
                return int(code)
        except (TypeError, ValueError):
            pass
    if type(error).__name__ == _OUT_OF_MEMORY_CLASS:
        return OUT_OF_MEMORY
    name = re.search(r"CUDA_ERROR_[A-Z_]+|CUDA error: ", str(error))
    return None if name is None else _NAMED.get(name.group(), UNKNOWN)


@contextmanager
def named(doing: str) -> Iterator[None]:
    """Raise errors of the driver as ours.

    Args:
        doing: What was being done, such as "copying the examples to the GPU".

    Raises:
        GpuOutOfMemoryError: The GPU has too little memory left.
        GpuFailedError: A kernel or the GPU failed: this process can compute no more on it.
        GpuUnavailableError: The GPU cannot be used at all.
    """
    try:
        yield
    except Exception as error:
        code = code_of(error)
        if code == OUT_OF_MEMORY:
            raise GpuOutOfMemoryError(f"{doing}: the GPU has too little memory left") from error
        if code is not None and code in UNAVAILABLE:
            raise GpuUnavailableError(f"{doing}: {UNAVAILABLE[code]} (CUDA error {code})") from error
        if code is not None:
            meaning = FAILED.get(code, one_line(error))
            raise GpuFailedError(
                f"{doing}: {meaning} (CUDA error {code}); the client has to be started anew"
            ) from error
        raise
