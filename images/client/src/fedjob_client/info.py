"""What a client says about itself and its machine."""

import os
import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from threadpoolctl import threadpool_info

from fedjob_client.settings import THREAD_VARIABLES
from fedjob_protocol.routes import MAX_MACHINE_LENGTH

CPU_INFO: Final = Path("/proc/cpuinfo")
PACKAGES: Final = ("fedjob-client", "numpy", "numba", "numba-cuda")


def fingerprint(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What the bits of a result may depend on: versions, CPU, kernels of the linear algebra, numbers of threads."""
    found = {"python": platform.python_version(), "system": platform.system(), "cpu": _cpu(), "blas": _blas()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found | {name.lower(): environment[name] for name in THREAD_VARIABLES if name in environment}


def machine(backend: str) -> str:
    """What computes an update, for the round log: ``AMD EPYC 9B14, openblas Haswell, threads 1``.

    The linear algebra picks its kernels by the processor's instructions; another order of additions gives other bits.

    Args:
        backend: ``cpu``, or ``gpu`` where the trainer computes on one; that is then said last.

    Returns:
        Printable ASCII, at most `MAX_MACHINE_LENGTH` characters.
    """
    parts = [_cpu(), _blas(), *(["gpu"] if backend == "gpu" else [])]
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in ", ".join(parts))[:MAX_MACHINE_LENGTH]


@cache
def _blas() -> str:
    """NumPy's linear algebra; other packages may bring one of their own, and are loaded later or never."""
    libraries = [library for library in threadpool_info() if library["user_api"] == "blas"]
    own = [library for library in libraries if "numpy" in library["filepath"]]
    for library in own or libraries:
        kernels = library.get("architecture") or library.get("version") or ""
        return f"{library['internal_api']} {kernels}, threads {library['num_threads']}"
    return "no blas known"


@cache
def _cpu() -> str:
    try:
        with CPU_INFO.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass  # another system
    return platform.processor() or platform.machine()
