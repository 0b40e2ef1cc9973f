"""Our own repository: its root and its files."""

import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DISTRIBUTIONS = {
    "protocol": "fedjob_protocol",
    "operator": "fedjob_operator",
    "images/client": "fedjob_client",
    "images/aggregator": "fedjob_aggregator",
    "cli": "fedjob",
}
"""Folder and import name of each distribution."""


@cache
def files() -> tuple[Path, ...]:
    """Every file that is tracked or about to be, relative to the root; skips the test where there is no git."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is no git checkout")
    return tuple(path for name in listed.split("\0") if name and (ROOT / (path := Path(name))).is_file())
