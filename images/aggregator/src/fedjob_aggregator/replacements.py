"""Clients that somebody had replaced: how often, durably, so that asking twice replaces once.

The aggregator only keeps the wish; whoever makes the pods reads it and does it. A generation is what fences: the first
program of an index is generation 0, and only who names the generation that is there now has it replaced.
"""

import asyncio
import logging
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from fedjob_aggregator.disk import Disk
from fedjob_protocol.clients import ReplacedClient, ReplacedClients
from fedjob_protocol.errors import Refusal, Word

REPLACED_FILE: Final = "replaced.json"
MAX_GENERATION: Final = 1_000_000

_log = logging.getLogger(__name__)


class Replacements:
    """What was asked for, in a file of its own beside the manifest.

    A file that cannot be read counts as empty: whoever makes the pods has done what was asked for before, and keeps
    how often in the job's status.

    Args:
        folder: The aggregator's.
        disk: Operations on files.
    """

    def __init__(self, folder: Path, disk: Disk | None = None) -> None:
        self._folder = folder
        self._file = folder / REPLACED_FILE
        self._disk = disk or Disk()
        self._writing = asyncio.Lock()
        self._generations = _read(self._file)

    def listed(self) -> ReplacedClients:
        """Return every client that was to be replaced, by index."""
        entries = sorted(self._generations.items())
        return ReplacedClients(clients=[ReplacedClient(client=index, generation=count) for index, count in entries])

    async def replace(self, client: int, generation: int) -> ReplacedClient:
        """Have one generation of a client replaced; that it was asked for already is fine. Durable when it returns.

        Args:
            client: The index.
            generation: Which program of this index: how often it had been replaced.

        Returns:
            The client with the generation that it has after that.

        Raises:
            Refusal: ``storage-full``: nothing was changed.
        """
        async with self._writing:
            before = self._generations.get(client, 0)
            if generation >= before:
                wanted = {**self._generations, client: generation + 1}
                try:
                    await asyncio.to_thread(self._write, wanted)
                except OSError as error:
                    raise Refusal(Word.STORAGE_FULL, f"nothing was changed, try again: {error!r}") from error
                self._generations = wanted
                _log.info("client %d is to be replaced: generation %d", client, generation + 1)
            return ReplacedClient(client=client, generation=self._generations[client])

    def _write(self, generations: dict[int, int]) -> None:
        entries = [ReplacedClient(client=index, generation=count) for index, count in sorted(generations.items())]
        text = ReplacedClients(clients=entries).model_dump_json(by_alias=True)
        self._disk.write_new(self._file, [text.encode()])
        self._disk.sync_folder(self._folder)


def _read(file: Path) -> dict[int, int]:
    try:
        known = ReplacedClients.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError) as error:
        _log.warning("%s cannot be read and counts as empty: %s", file, error)
        return {}
    return {entry.client: entry.generation for entry in known.clients}
