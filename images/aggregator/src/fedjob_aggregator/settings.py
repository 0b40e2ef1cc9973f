"""What the program is told when it starts; made from flags and the environment in ``command``."""

from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from fedjob_aggregator.registrations import RegistrationSettings
from fedjob_aggregator.registry import OPEN_GROUP, Group, Limits
from fedjob_protocol.registration import ExternalGroup

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
    registration: RegistrationSettings = Field(default_factory=lambda: open_registration(Limits()))
    """Who may register itself."""
    sessions: bool = False
    """Whether it is the front of a server of training sessions."""
    session_clients: int = Field(default=0, ge=0)
    """Places that a session has at least, also while nobody is registered."""
    idle_seconds: float = Field(default=DEFAULT_IDLE_SECONDS, gt=0)
    """An upload of which nothing arrives for so long is given up."""


def open_registration(
    limits: Limits, *, token: str | None = None, allowed: tuple[str, ...] = (), refused: tuple[str, ...] = ()
) -> RegistrationSettings:
    """Registration without a job's groups: whoever registers gets the next index."""
    group = Group(external=ExternalGroup(group=OPEN_GROUP, first=0, count=limits.most), token=token)
    return RegistrationSettings(groups=(group,), limits=limits, allowed_hosts=allowed, refused_hosts=refused)
