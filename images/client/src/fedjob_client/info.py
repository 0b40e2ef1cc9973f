"""What a client says about itself and its machine."""

import os
import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from fedjob_client.settings import THREAD_VARIABLES

CPU_INFO: Final = Path("/proc/cpuinfo")
PACKAGES: Final = ("fedjob-client", "numpy", "numba", "numba-cuda")


def fingerprint(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What the bits of a result may depend on: versions, CPU, numbers of threads."""
    found = {"python": platform.python_version(), "system": platform.system(), "cpu": _cpu()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found | {name.lower(): environment[name] for name in THREAD_VARIABLES if name in environment}


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
