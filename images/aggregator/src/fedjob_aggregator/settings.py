"""What the program is told when it starts; made from flags and the environment in ``command``."""

from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr

DEFAULT_MOST_UPLOADS: Final = 64
DEFAULT_IDLE_SECONDS: Final = 60.0


class Settings(BaseModel):
    """Settings of one aggregator process."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path
    """Checkpoints, manifest and round log."""
    job_uid: str | None = Field(default=None, min_length=1, max_length=253)
    """Whose folder it has to be; ``None``: the job whose round is opened first."""
    replica: str | None = Field(default=None, min_length=1, max_length=253)
    """Its name among the aggregators of the job; ``None``: there is no other, and it leads without being told."""
    token: SecretStr | None = None
    """What ``/v1`` wants in the header ``Fedjob-Token``; ``None``: nothing."""
    staging_bytes: int | None = Field(default=None, ge=0)
    """Memory for uploads on their way; ``None``: one update of the model, at least 64 MiB. Others go to disk."""
    most_uploads: int = Field(default=DEFAULT_MOST_UPLOADS, ge=1)
    """Uploads that are received at the same time; further ones wait."""
    idle_seconds: float = Field(default=DEFAULT_IDLE_SECONDS, gt=0)
    """An upload of which nothing arrives for so long is given up."""
