"""The machine that measures: what it is, and whether it is idle."""

import os
import platform
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


def wait_until_idle() -> float:
    """Wait, for a bounded time, until others leave the cores alone; return the load average of the last minute."""
    deadline = time.monotonic() + MAX_WAIT_SECONDS
    while time.monotonic() < deadline:
        busy, total = _cpu_ticks()
        time.sleep(SAMPLE_SECONDS)
        busy_after, total_after = _cpu_ticks()
        if busy_after - busy <= IDLE_SHARE * (total_after - total):
            break
    return os.getloadavg()[0]


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
