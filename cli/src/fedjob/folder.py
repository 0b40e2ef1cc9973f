"""The folder of a local run: what is where in it, its lock, and which one a command means."""

import os
import re
from pathlib import Path

from filelock import FileLock, Timeout

from fedjob_protocol.errors import FedJobError

RUNS = Path("runs")
"""Where runs go unless ``--dir`` says otherwise, below the current folder."""


class FolderError(FedJobError):
    """A folder cannot be used; the message says why and what to do."""


class RunFolder:
    """Names of the files of one run.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def job_file(self) -> Path:
        """The resource with its status, as JSON."""
        return self.path / "job.json"

    @property
    def aggregator(self) -> Path:
        """The aggregator's folder, of several the first one's: checkpoints and round log."""
        return self.path / "aggregator"

    def prepare(self) -> None:
        """Create the folder and what belongs in it.

        Raises:
            FolderError: The operating system refused.
        """
        try:
            for folder in (self.path / "logs", self.path / "run", self.aggregator):
                folder.mkdir(parents=True, exist_ok=True)
            for stale in (self.path / "run").iterdir():
                stale.unlink()
        except OSError as error:
            raise FolderError(f"{self.path}: {error.strerror or error}") from error

    def lock(self) -> FileLock:
        """Take the folder's lock, which the operating system frees however this process ends.

        Raises:
            FolderError: Another process holds it.
        """
        lock = FileLock(self.path / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise FolderError(
                f"{self.path} is in use by another `fedjob run` or `serve`; wait for it, or give --dir another folder"
            ) from None
        except OSError as error:
            raise FolderError(f"{self.path}: cannot lock it: {error.strerror or error}") from error
        return lock


def choose(name: str, given: Path | None, *, resume: bool) -> RunFolder:
    """Return the folder of a run.

    Args:
        name: The job's name.
        given: ``--dir``; absent means a folder below `RUNS`.
        resume: Whether an existing run is meant.

    Raises:
        FolderError: There is nothing to resume, or something that a new run would overwrite.
    """
    if given is not None:
        folder = RunFolder(given)
        exists = folder.job_file.exists()
        if resume and not exists:
            raise FolderError(f"{given} holds no run to resume; leave out --resume to start one")
        if exists and not resume:
            raise FolderError(f"{given} holds a run already; give --resume to go on with it, or --dir another folder")
        return folder
    taken = _runs_of(name)
    if not resume:
        number = max(taken, default=0) + 1
        return RunFolder(_numbered(name, number))
    if not taken:
        raise FolderError(f"there is no run of {name} below {RUNS}/ to resume; leave out --resume to start one")
    return RunFolder(_numbered(name, max(taken)))


def _numbered(name: str, number: int) -> Path:
    return RUNS / (name if number == 1 else f"{name}-{number}")


def _runs_of(name: str) -> list[int]:
    """Numbers of the runs that there are: ``name`` is 1, ``name-2`` is 2."""
    pattern = re.compile(rf"{re.escape(name)}(?:-([2-9]|[1-9][0-9]+))?")
    found = []
    for entry in os.scandir(RUNS) if RUNS.is_dir() else ():
        match = pattern.fullmatch(entry.name)
        if match and entry.is_dir() and (Path(entry.path) / "job.json").exists():
            found.append(int(match.group(1) or 1))
    return found
