"""Virtual environments of their own for the programs that ours are compared with: nothing of them is in ours."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from children import ONE_THREAD

INSTALL_SECONDS: Final = 1800.0
PINNING: Final = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA")
"""Variables that keep libraries from using what the processor can do; both sides are measured without them."""


def environment_with(folder: Path, requirements: list[str]) -> Path:
    """Return the interpreter of an environment with some packages; made once, and used again.

    Args:
        folder: Where the environment lies.
        requirements: What pip installs, by name.
    """
    python = folder / "bin" / "python"
    stamp = folder / "installed.txt"
    wanted = "\n".join(requirements) + "\n"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    print(f"installing {', '.join(requirements)} into {folder}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    install = [python, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", *requirements]
    subprocess.run(install, check=True, timeout=INSTALL_SECONDS)
    stamp.write_text(wanted, encoding="utf-8")
    return python


def run_peer(python: Path, arguments: list[str], *, timeout: float, threads: int = 1) -> str:
    """Run a program in another environment to its end; return what it printed."""
    counts = {name: str(threads) for name in ONE_THREAD}
    inherited = {name: value for name, value in os.environ.items() if name not in PINNING}
    done = subprocess.run(
        [python, *arguments],
        env={**inherited, **counts},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"bench: {' '.join(arguments)} ended with exit code {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout
