"""The machine that measures: what it is, and whether it is idle."""

import os
import platform
import resource
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Final

PACKAGES: Final = ("fedjob", "numpy", "numba", "fastapi", "starlette", "uvicorn", "uvloop", "httptools", "aiohttp")
IDLE_SHARE: Final = 0.05
"""Largest share of all cores that others may use when a measurement begins."""
SAMPLE_SECONDS: Final = 0.5
MAX_WAIT_SECONDS: Final = 20.0


def describe() -> dict[str, str]:
    """What figures may depend on, for people and for JSON."""
    return {
        "cpu": _field(Path("/proc/cpuinfo"), "model name") or platform.processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": _field(Path("/etc/os-release"), "PRETTY_NAME", separator="=").strip('"'),
        "kernel": platform.release(),
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def require_linux() -> None:
    """Leave with a clear line elsewhere: memory and load are read from /proc."""
    if sys.platform != "linux":
        sys.exit(f"bench: measures memory and load through /proc, so it runs on Linux only, not on {sys.platform}")


def wait_until_idle() -> None:
    """Wait, for a bounded time, until others leave the cores alone."""
    deadline = time.monotonic() + MAX_WAIT_SECONDS
    while time.monotonic() < deadline:
        busy, total = _cpu_ticks()
        time.sleep(SAMPLE_SECONDS)
        busy_after, total_after = _cpu_ticks()
        if busy_after - busy <= IDLE_SHARE * (total_after - total):
            break


class Others:
    """How many cores others used, on average, since this was made: they would disturb a measurement."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._busy = self._others()

    def cores(self) -> float:
        """Cores in use by anything but this process and the children that it has waited for."""
        return max(self._others() - self._busy, 0.0) / (time.monotonic() - self._began)

    @staticmethod
    def _others() -> float:
        own = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
        busy, _ = _cpu_ticks()
        return busy / os.sysconf("SC_CLK_TCK") - sum(usage.ru_utime + usage.ru_stime for usage in own)


def status_bytes(pid: int, field: str) -> int:
    """A size in /proc/PID/status, such as ``VmHWM``, in bytes."""
    return int(_field(Path(f"/proc/{pid}/status"), field).split()[0]) * 1024


def shared_memory_bytes() -> int:
    """All that lies in tmpfs and other shared memory of this machine, in bytes."""
    return int(_field(Path("/proc/meminfo"), "Shmem").split()[0]) * 1024


def _cpu_ticks() -> tuple[int, int]:
    ticks = [int(part) for part in Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)  # idle and waiting for disks are not busy


def _field(path: Path, name: str, *, separator: str = ":") -> str:
    for line in path.read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(separator)
        if key.strip() == name:
            return value.strip()
    return ""
