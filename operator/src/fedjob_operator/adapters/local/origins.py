"""Other runs on this machine, whose checkpoints a run may begin with."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fedjob_operator.adapters.local.job_file import JobFile
from fedjob_operator.adapters.local.processes import leader_folder
from fedjob_operator.api.v1alpha1 import FederatedJob
from fedjob_operator.core.actions import FindOrigin
from fedjob_operator.core.observed import OriginSeen
from fedjob_operator.core.origin import choose_checkpoint
from fedjob_protocol.layout import checkpoint_name

JOB_FILE = "job.json"
"""In the folder of a run: the resource."""


class LocalOrigins:
    """`fedjob_operator.ports.Origins` in the folders of other runs.

    Args:
        own: Folder of the run that asks.
        among: Folders whose subfolders are runs.
    """

    def __init__(self, own: Path, among: Sequence[Path]) -> None:
        self._own = own
        self._among = tuple(among)

    async def find(self, action: FindOrigin) -> OriginSeen:
        """Look for the checkpoint in the newest run of that name."""
        ask = action.ask
        newest = await asyncio.to_thread(self._newest, ask.name)
        if newest is None:
            places = " and ".join(dict.fromkeys(map(str, self._among)))
            message = f"there is no run of {ask.name} in {places}: run that job first, or name one that is there"
            return OriginSeen(attempt=action.attempt, message=message, is_final=True)
        folder, other = newest
        found = choose_checkpoint(ask, other, attempt=action.attempt)
        if found.origin is None:
            return found
        path = folder / leader_folder(other) / checkpoint_name(found.origin.round)
        if not path.is_file():
            return OriginSeen(attempt=action.attempt, message=f"{path} is gone", is_final=True)
        return replace(found, origin=found.origin.model_copy(update={"path": str(path)}))

    def _newest(self, name: str) -> tuple[Path, FederatedJob] | None:
        runs: list[tuple[Path, FederatedJob]] = []
        for folder in sorted({path.parent.resolve() for place in self._among for path in place.glob(f"*/{JOB_FILE}")}):
            if folder == self._own.resolve():
                continue
            try:
                job = JobFile(folder / JOB_FILE).load()
            except (OSError, ValueError):
                continue  # no run, or one of another release: it is not this one
            if job.metadata.name == name:
                runs.append((folder, job))
        return max(runs, key=lambda run: (str(run[1].metadata.creation_timestamp), str(run[0])), default=None)
