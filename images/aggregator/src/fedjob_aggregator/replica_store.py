"""The folder of an aggregator that is one of several: what a standby does to make it equal to its leader's.

After a crash at any moment the folder holds what it held before a step or after it, never a mixture; a copy that was
under way is begun again.
"""

import logging
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from fedjob_aggregator.checkpoints import LOCK_FILE, CheckpointStore, file_header
from fedjob_aggregator.disk import Disk
from fedjob_aggregator.folder_manifest import FolderError
from fedjob_protocol.messages import CheckpointInfo, RoundRecord
from fedjob_protocol.reasons import Reason
from fedjob_protocol.replicas import Commit

DAMAGED_FOLDER: Final = "damaged"
"""Where what cannot be used any more is put, so that it can be looked at; only the last such content is kept."""

_log = logging.getLogger(__name__)


class ReplicaStore(CheckpointStore):
    """`CheckpointStore`, and what a standby needs besides; used by one thread at a time."""

    @property
    def newest(self) -> Commit | None:
        """The newest checkpoint and the term that it is held under."""
        info = self.manifest.committed
        if info is None:
            return None
        return Commit(round=info.round, digest=info.digest, parent=info.parent, term=self.manifest.stamp)

    def stamp(self, term: int) -> None:
        """Stand for what is held in a term of one's own.

        Raises:
            OSError: The manifest could not be written.
        """
        if self.manifest.committed is not None and self.manifest.stamp != term:
            self._write_manifest(self.manifest.model_copy(update={"stamp": term}))

    def settle_log(self) -> None:
        """End a copy of the log that was cut off: its lines do not count.

        Raises:
            OSError: The storage refuses; may be tried again.
        """
        ends = self.manifest.log_ends
        if ends is not None:
            self.log.truncate(ends)
            self._write_manifest(self.manifest.model_copy(update={"log_ends": None}))

    def copy(self, round_number: int, blocks: Iterable[memoryview]) -> None:
        """Write a copy of a checkpoint, which counts once it is installed; may be called in any thread.

        Raises:
            OSError: The storage refuses, or so do the blocks; the file is gone again.
        """
        self._disk.write_new(self._path(round_number), blocks)

    def copy_state(self, round_number: int, blocks: Iterable[memoryview]) -> None:
        """Write a copy of what a strategy remembers; as `copy`, and after it, for the same round.

        Raises:
            OSError: The storage refuses, or so do the blocks; the file is gone again.
        """
        self._disk.write_new(self._state_path(round_number), blocks)

    def step_back(self, round_number: int, record: RoundRecord | None, *, log_ends: int) -> None:
        """Give up what the leader does not have.

        Args:
            round_number: The newest checkpoint that stays: the committed one, the one before, or -1 for none.
            record: Its record, as the leader has it; ``None`` for none.
            log_ends: The last line of the log that stays.

        Raises:
            OSError: The storage refuses; may be tried again.
        """
        manifest = self.manifest
        kept = next((info for info in (manifest.committed, manifest.previous) if _is_round(info, round_number)), None)
        best = manifest.best if manifest.best and manifest.best.round <= round_number else None
        update: dict[str, object] = {"committed": kept, "pending": record if kept else None, "best": best}
        update |= {"previous": None if kept != manifest.committed else manifest.previous, "log_ends": log_ends}
        self._write_manifest(manifest.model_copy(update=update))
        self.log.truncate(log_ends)
        self._read_header()
        self._prune()

    def extend(self, records: Iterable[RoundRecord]) -> None:
        """Add complete records of the leader to the log, from the one after its last on.

        Raises:
            OSError: The storage refuses; may be tried again.
        """
        committed = self.manifest.committed
        for record in records:
            if committed is None or record.round > committed.round:
                self._mark_log()
            self.log.append(record)

    def _mark_log(self) -> None:
        """Before the log gets ahead of the checkpoints: its lines count only once those have followed."""
        if self.manifest.log_ends is None:
            self._write_manifest(self.manifest.model_copy(update={"log_ends": self.log.last_round}))

    def install(self, info: CheckpointInfo, record: RoundRecord, *, stamp: int) -> None:
        """Let a copy count that was received whole: it becomes the committed round.

        Args:
            info: What it is.
            record: Its record, as complete as the leader has it.
            stamp: The term that the leader holds it under.

        Raises:
            OSError: The storage refuses; may be tried again.
        """
        self._disk.sync_folder(self._checkpoints)
        before = self.manifest.committed
        previous = before if before is not None and before.digest == info.parent else None
        update = {"committed": info, "previous": previous, "pending": record, "stamp": stamp, "log_ends": None}
        self._write_manifest(self.manifest.model_copy(update=update))
        self._read_header()
        self._prune()

    def install_best(self, info: CheckpointInfo) -> None:
        """Keep a copy as the best model.

        Raises:
            OSError: The storage refuses; may be tried again.
        """
        self._disk.sync_folder(self._checkpoints)
        self._write_manifest(self.manifest.model_copy(update={"best": info}))
        self._prune()

    def _read_header(self) -> None:
        committed = self.manifest.committed
        if committed is None:
            self._header = None
            return
        with self.open(committed) as file:
            self._header = file_header(file, committed.bytes)


def open_replica(folder: Path, disk: Disk | None, *, job_uid: str | None) -> ReplicaStore:
    """Open the folder of one of several aggregators; what is damaged is set aside, as the others have it, too.

    Raises:
        FolderError: As `CheckpointStore`, but ``CheckpointLost``.
    """
    try:
        return ReplicaStore(folder, disk, job_uid=job_uid)
    except FolderError as error:
        if error.reason is not Reason.CHECKPOINT_LOST:
            raise
        _log.error("%s; it is set aside in %s, and copied from the leader", error, folder / DAMAGED_FOLDER)
    _set_aside(folder)
    return ReplicaStore(folder, disk, job_uid=job_uid)


def _set_aside(folder: Path) -> None:
    """Empty a folder, but for its lock.

    Raises:
        FolderError: ``CheckpointFailed``: it could not be done.
    """
    damaged = folder / DAMAGED_FOLDER
    try:
        shutil.rmtree(damaged, ignore_errors=True)
        damaged.mkdir()
        for path in folder.iterdir():
            if path.name not in {DAMAGED_FOLDER, LOCK_FILE} and not path.name.startswith("."):
                path.rename(damaged / path.name)
    except OSError as error:
        raise FolderError(Reason.CHECKPOINT_FAILED, f"cannot set {folder} aside: {error}") from error


def _is_round(info: CheckpointInfo | None, round_number: int) -> bool:
    return info is not None and info.round == round_number
