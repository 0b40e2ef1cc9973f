"""The folder of a job: checkpoints, ``manifest.json``, the round log.

After a crash at any moment it is as if the step that was under way had either happened or not.

A checkpoint's metadata hold its round and the digest of the one before, and nothing that differs between equal runs.
So the SHA-256 of the file, as ``sha256sum`` prints it, is the digest of the model and of its whole history. Where a
strategy remembers something, that is in a file beside it, whose digest is in the metadata, too.

Order of a commit: state, then checkpoint written, fsynced, renamed, folder fsynced; then the manifest with the round's
record in the same way; only then old checkpoints go. A checkpoint counts once the manifest names it.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Final, NamedTuple

from filelock import FileLock, Timeout

from fedjob_aggregator.disk import TEMPORARY_SUFFIX, Disk
from fedjob_aggregator.folder_manifest import FolderError, FolderManifest, parse_manifest, with_checksum
from fedjob_aggregator.roundlog import DamagedLogError, RoundLog
from fedjob_protocol.digests import Sha256, sha256_of
from fedjob_protocol.errors import Refusal, Word
from fedjob_protocol.layout import (
    BASE_KEY,
    CHECKPOINT_FOLDER,
    PARENT_KEY,
    ROUND_KEY,
    ROUND_LOG_NAME,
    STATE_BYTES_KEY,
    STATE_KEY,
    checkpoint_name,
    state_name,
)
from fedjob_protocol.messages import Base, CheckpointInfo, RoundRecord
from fedjob_protocol.reasons import Reason
from fedjob_protocol.weights import LENGTH_BYTES, Header, Manifest, header_bytes, parse_header

LOCK_SECONDS: Final = 10.0
"""How long a predecessor that is dying may hold the folder."""
MANIFEST_FILE: Final = "manifest.json"
LOCK_FILE: Final = ".lock"
HASH_BLOCK_BYTES: Final = 1 << 20

_log = logging.getLogger(__name__)


class NewState(NamedTuple):
    """What a strategy will remember after a round."""

    tensors: Manifest
    data: Iterable[bytes | memoryview]
    """The tensors' data in the order of `Manifest.placements`; written as it comes."""


class StateInfo(NamedTuple):
    """What a strategy remembers after a round, as a file."""

    round: int
    digest: str
    bytes: int


class CheckpointStore:
    """The only one who writes to the folder. One thread at a time; reading checkpoints is safe in any.

    Args:
        folder: Made if it is not there.
        disk: Operations on files.
        job_uid: Whose folder it has to be; ``None``: whoever comes first.

    Raises:
        FolderError: ``FolderInUse``: by another process; ``ForeignVolume``; ``CheckpointLost``: what it says it has is
            damaged or missing; ``CheckpointFailed``: it cannot be written.
    """

    def __init__(self, folder: Path, disk: Disk | None = None, *, job_uid: str | None = None) -> None:
        self._folder = folder
        self._disk = disk or Disk()
        self._checkpoints = folder / CHECKPOINT_FOLDER
        try:
            self._checkpoints.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(folder / LOCK_FILE)
            try:
                self.manifest = self._read_manifest(job_uid)
                self._header = self._verify()
                self.log = self._open_log()
                self._prune()
            except BaseException:
                self._lock.release()
                raise
        except DamagedLogError as error:
            raise FolderError(Reason.CHECKPOINT_LOST, str(error)) from error
        except OSError as error:
            raise FolderError(Reason.CHECKPOINT_FAILED, f"cannot use the folder {folder}: {error}") from error

    @property
    def staging_folder(self) -> Path:
        """Where uploads may be staged: on the volume of the checkpoints."""
        return self._checkpoints

    @property
    def tensors(self) -> Manifest | None:
        """Tensors of the committed model; ``None`` before round 0."""
        return None if self._header is None else self._header.manifest

    @property
    def header(self) -> Header | None:
        """Header of the newest checkpoint; ``None`` before round 0."""
        return self._header

    @property
    def record(self) -> RoundRecord | None:
        """Record of the committed round, as complete as it is."""
        pending = self.manifest.pending
        return pending if pending is None or pending.round > self.log.last_round else self.log.record(pending.round)

    def find(self, which: str) -> CheckpointInfo | None:
        """A checkpoint by ``latest``, ``best`` or a round's number; ``None`` if it is not kept."""
        manifest = self.manifest
        if which == "latest":
            return manifest.committed
        if which == "best":
            return manifest.best
        kept = (manifest.committed, manifest.previous, manifest.best)
        return next((info for info in kept if info is not None and str(info.round) == which), None)

    def base(self, base: Base) -> CheckpointInfo | None:
        """The checkpoint that a round starts from; ``None`` if it is not kept."""
        found = self.find(str(base.round))
        return found if found is not None and found.digest == base.digest else None

    def open(self, info: CheckpointInfo) -> IO[bytes]:
        """Open a checkpoint for reading; it can be read to its end even if it is removed meanwhile.

        Raises:
            OSError: It is gone.
        """
        return self._path(info.round).open("rb", buffering=0)

    def open_state(self, round_number: int) -> IO[bytes]:
        """Open what a strategy remembers after a round.

        Raises:
            OSError: It is gone, or there was none.
        """
        return self._state_path(round_number).open("rb", buffering=0)

    def state_of(self, info: CheckpointInfo) -> StateInfo | None:
        """What a strategy remembers after a round, as its checkpoint says; ``None`` if nothing.

        Raises:
            OSError: The checkpoint cannot be read.
        """
        with self.open(info) as file:
            metadata = file_header(file, info.bytes).metadata
        if STATE_KEY not in metadata:
            return None
        return StateInfo(info.round, metadata[STATE_KEY], int(metadata[STATE_BYTES_KEY]))

    def claim(self, job_uid: str, term: int) -> None:
        """Remember durably for whom this folder is and the highest term seen.

        Raises:
            OSError: The manifest could not be written.
        """
        if (self.manifest.job_uid, self.manifest.term) != (job_uid, term):
            self._write_manifest(self.manifest.model_copy(update={"job_uid": job_uid, "term": term}))

    def commit(
        self,
        round_number: int,
        tensors: Manifest,
        data: Iterable[bytes | memoryview],
        make_record: Callable[[CheckpointInfo], RoundRecord],
        *,
        term: int | None = None,
        base: Base | None = None,
        state: NewState | None = None,
    ) -> RoundRecord:
        """Make the next model durable together with its record.

        Args:
            round_number: One more than the committed round.
            tensors: What the data are.
            data: The tensors' data in the order of `Manifest.placements`; written as it comes.
            make_record: Called when the checkpoint is written.
            term: In which this aggregator leads; ``None``: it has no standbys, and whoever asks may commit.
            base: The model that the round started from; ``None`` in round 0.
            state: What the strategy remembers. It is written before the first of ``data`` is taken, so that they may
                be made of what `open_state` reads.

        Raises:
            OSError: The storage refuses; nothing changed, and it may be tried again.
            Refusal: ``stale-term``: a higher term was seen.
        """
        if term is not None and term != self.manifest.term:
            raise Refusal(Word.STALE_TERM, f"term {term} is over: term {self.manifest.term} was seen")
        committed = self.manifest.committed
        assert round_number == (-1 if committed is None else committed.round) + 1  # compare-and-set
        self._keep_pending()
        parent = None if committed is None else committed.digest
        metadata = {ROUND_KEY: str(round_number)} | ({} if parent is None else {PARENT_KEY: parent})
        if base is not None and base.digest != parent:
            metadata[BASE_KEY] = base.digest
        if state is not None:
            metadata |= self._write_state(round_number, state)
        head = header_bytes(tensors, metadata)
        digest = Sha256()
        self._disk.write_new(self._path(round_number), _hashed(head, data, digest))
        self._disk.sync_folder(self._checkpoints)
        total_bytes = len(head) + tensors.total_bytes
        info = CheckpointInfo(round=round_number, digest=digest.digest(), parent=parent, bytes=total_bytes)
        record = make_record(info)
        self._write_manifest(
            self.manifest.model_copy(
                update={"committed": info, "previous": committed, "pending": record, "stamp": self.manifest.term}
            )
        )
        self._header = parse_header(head, total_bytes)
        self._prune()
        return record

    def keep(self, record: RoundRecord) -> None:
        """Close the record of the committed round: into the log, and its checkpoint is kept if it is the best.

        Raises:
            OSError: The storage refuses; may be tried again.
        """
        self.log.append(record)
        self._keep_best(record)

    def close(self) -> None:
        """Let the folder go."""
        self.log.close()
        self._lock.release()

    def _write_state(self, round_number: int, state: NewState) -> dict[str, str]:
        head = header_bytes(state.tensors, {ROUND_KEY: str(round_number)})
        digest = Sha256()
        self._disk.write_new(self._state_path(round_number), _hashed(head, state.data, digest))
        return {STATE_KEY: digest.digest(), STATE_BYTES_KEY: str(len(head) + state.tensors.total_bytes)}

    def _path(self, round_number: int) -> Path:
        return self._folder / checkpoint_name(round_number)

    def _state_path(self, round_number: int) -> Path:
        return self._folder / state_name(round_number)

    def _keep_best(self, record: RoundRecord) -> None:
        committed = self.manifest.committed
        if record.best and committed is not None and committed.digest == record.digest != _digest(self.manifest.best):
            self._write_manifest(self.manifest.model_copy(update={"best": committed}))
            self._prune()

    def _keep_pending(self) -> None:
        """A record may leave the manifest only when it is in the log."""
        pending = self.manifest.pending
        if pending is not None:
            self.log.append(pending)

    def _write_manifest(self, manifest: FolderManifest) -> None:
        self._disk.write_new(self._folder / MANIFEST_FILE, [with_checksum(manifest)])
        self._disk.sync_folder(self._folder)
        self.manifest = manifest

    def _read_manifest(self, job_uid: str | None) -> FolderManifest:
        path = self._folder / MANIFEST_FILE
        if not path.exists():
            found = next(self._checkpoints.glob("round-*.safetensors"), None)
            if found is not None:
                raise FolderError(
                    Reason.CHECKPOINT_LOST, f"{found} is there, but {path} is not; restore it or use another folder"
                )
            return FolderManifest(job_uid=job_uid)
        manifest = parse_manifest(path)
        if job_uid is not None and manifest.job_uid not in {None, job_uid}:
            raise FolderError(
                Reason.FOREIGN_VOLUME,
                f"the folder {self._folder} belongs to job {manifest.job_uid}, not to {job_uid}; use another one",
            )
        return manifest

    def _verify(self) -> Header | None:
        """Check what the manifest names; only the newest is needed, others are forgotten if they are damaged."""
        committed = self.manifest.committed
        if committed is None:
            return None
        problem = self._problem(committed)
        if problem is not None:
            raise FolderError(Reason.CHECKPOINT_LOST, f"{problem}; restore the file or start another job")
        for name in ("previous", "best"):
            info: CheckpointInfo | None = getattr(self.manifest, name)
            problem = None if info is None or info == committed else self._problem(info)
            if problem is not None:
                _log.warning("the %s checkpoint is not kept any more: %s", name, problem)
                self.manifest = self.manifest.model_copy(update={name: None})
        with self.open(committed) as file:
            return file_header(file, committed.bytes)

    def _problem(self, info: CheckpointInfo) -> str | None:
        problem = _file_problem(self._path(info.round), info.digest, "checkpoint")
        if problem is not None:
            return problem
        state = self.state_of(info)
        return None if state is None else _file_problem(self._state_path(info.round), state.digest, "strategy's state")

    def _open_log(self) -> RoundLog:
        log = RoundLog(self._folder / ROUND_LOG_NAME, self._disk)
        try:
            if self.manifest.log_ends is not None:
                log.truncate(self.manifest.log_ends)
            self._repair(log)
        except BaseException:
            log.close()
            raise
        return log

    def _repair(self, log: RoundLog) -> None:
        """Make log and manifest agree: either may be one step behind the other after a crash."""
        committed, pending = self.manifest.committed, self.manifest.pending
        last = -1 if committed is None else committed.round
        if log.last_round not in {last, last - 1} or (log.last_round < last and pending is None):
            raise DamagedLogError(f"{self._folder / ROUND_LOG_NAME} ends at round {log.last_round}, not at {last}")
        if pending is not None and log.last_round < last and not pending.expects_evaluation:
            log.append(pending)
        if last >= 0 and log.last_round == last:
            record = log.record(last)
            assert record is not None
            self._keep_best(record)

    def _prune(self) -> None:
        """Remove what the manifest does not name: leftovers of crashes and old checkpoints."""
        kept = {
            path
            for info in (self.manifest.committed, self.manifest.previous, self.manifest.best)
            if info is not None
            for path in (self._path(info.round), self._state_path(info.round))
        }
        leftovers = [self._folder / (MANIFEST_FILE + TEMPORARY_SUFFIX)]
        leftovers += [path for path in self._checkpoints.glob("round-*.safetensors*") if path not in kept]
        for path in leftovers:
            try:
                self._disk.remove(path)
            except OSError as error:  # harmless: tried again at the next commit
                _log.warning("cannot remove %s: %s", path, error)


def _locked(path: Path) -> FileLock:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=LOCK_SECONDS)
    except Timeout:
        raise FolderError(
            Reason.FOLDER_IN_USE,
            f"the folder {path.parent} is used by another aggregator; stop it or use another folder",
        ) from None
    return lock


def file_header(file: IO[bytes], total_bytes: int) -> Header:
    """Read the header of a file that was written here, or that has the right digest.

    Raises:
        OSError: The file cannot be read.
    """
    head = file.read(LENGTH_BYTES)
    head += file.read(int.from_bytes(head, "little"))
    return parse_header(head, total_bytes)


def _file_problem(path: Path, expected: str, kind: str) -> str | None:
    try:
        with path.open("rb", buffering=0) as file:
            digest = sha256_of(iter(lambda: file.read(HASH_BLOCK_BYTES), b""))
    except FileNotFoundError:
        return f"the {kind} {path} is missing"
    return None if digest == expected else f"the {kind} {path} has {digest}, {expected} was committed"


def _hashed(head: bytes, data: Iterable[bytes | memoryview], digest: Sha256) -> Iterator[bytes | memoryview]:
    digest.update(head)
    yield head
    for block in data:
        digest.update(block)
        yield block


def _digest(info: CheckpointInfo | None) -> str | None:
    return None if info is None else info.digest
