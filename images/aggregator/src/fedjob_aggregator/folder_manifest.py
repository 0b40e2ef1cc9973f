"""``manifest.json`` of the aggregator's folder: what counts, with a checksum. Data, and their reader and writer."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from fedjob_protocol.digests import sha256_of
from fedjob_protocol.errors import FedJobError
from fedjob_protocol.messages import CheckpointInfo, RoundRecord
from fedjob_protocol.reasons import Reason
from fedjob_protocol.wire import Message

CHECKSUM_KEY: Final = "checksum"


class FolderError(FedJobError):
    """The folder cannot be served: nothing in it was changed.

    Args:
        reason: For the job's status.
        message: The thing, what was seen, what to do.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class FolderManifest(Message):
    """Content of ``manifest.json``, which decides what counts."""

    format: int = 1
    job_uid: str | None = None
    """Whose folder this is; ``None`` until the first round is opened."""
    term: int = 0
    """The highest seen."""
    committed: CheckpointInfo | None = None
    previous: CheckpointInfo | None = None
    best: CheckpointInfo | None = None
    pending: RoundRecord | None = None
    """Record of the committed round; in the round log once it is complete."""
    stamp: int = 0
    """The term that the committed round is held under: that of its commit, or of a later leader that stood for it."""
    log_ends: int | None = None
    """Set while a standby's log is being replaced: lines after this round do not count."""


def parse_manifest(path: Path) -> FolderManifest:
    """Read a manifest.

    Raises:
        FolderError: ``CheckpointLost``: it is damaged.
        OSError: It cannot be read.
    """
    try:
        content = json.loads(path.read_bytes())
        checksum = content.pop(CHECKSUM_KEY)
        manifest = FolderManifest.model_validate(content)
    except (ValueError, KeyError, AttributeError, TypeError, ValidationError) as error:
        raise FolderError(Reason.CHECKPOINT_LOST, f"{path} cannot be read: {str(error)[:200]}; restore it") from error
    if checksum != sha256_of(_canonical(content)):
        raise FolderError(Reason.CHECKPOINT_LOST, f"{path} was changed or is damaged: its checksum differs; restore it")
    return manifest


def with_checksum(manifest: FolderManifest) -> bytes:
    """The manifest's file. Not indented: with many contributors that takes longer than the disk does."""
    content = _canonical(manifest.model_dump(mode="json", by_alias=True))
    return f'{{"{CHECKSUM_KEY}": "{sha256_of(content)}", '.encode() + content[1:] + b"\n"


def _canonical(content: Mapping[str, object]) -> bytes:
    return json.dumps(content, sort_keys=True).encode()
