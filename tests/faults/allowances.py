"""What each class of faults may cost: the one place where a fault run may differ from an undisturbed one."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

WRITES_SHARE: Final = 0.2
"""Writes may differ by this share of those of the undisturbed run, whatever the fault."""
STATUS_BYTES: Final = 16 << 10
"""Largest status of the small jobs that the harness runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What one class of faults may change."""

    writes: int = 0
    """Writes beyond `WRITES_SHARE`, more or fewer: claims, attempts, replaced pods."""
    same_reporters: bool = True
    """Whether in every round the same clients have to report as without the fault; then every digest is the same."""
    end: tuple[str, str] | None = None
    """Phase and reason in which the job has to end, where these are not those of the undisturbed run."""
    status_bytes: int = STATUS_BYTES
    """Largest status."""


ALLOWANCES: Final[Mapping[str, Allowance]] = MappingProxyType(
    {
        # A claim, the wait for its programs, a new attempt at the round; how clients become ready is told in up to
        # so many steps as there are clients.
        "operator killed": Allowance(writes=14),
        # A new attempt; the wait for it.
        "aggregator killed": Allowance(writes=10),
        # Each client that goes and comes is told.
        "client killed": Allowance(writes=14),
        # One more attempt for each time that its pod dies.
        "client lost": Allowance(writes=20, same_reporters=False),
        "client stopped or slow": Allowance(writes=10, same_reporters=False),
        "upload sent wrongly": Allowance(writes=8),
        "upload sent late": Allowance(writes=8, same_reporters=False),
        # Each further failure of a commit is told, in steps of at least a tenth of a second.
        "disk refuses": Allowance(writes=20),
        # The operator is killed there, too.
        "disk loses what is not needed": Allowance(writes=14),
        "disk loses what is committed": Allowance(writes=15, end=("Failed", "CheckpointLost")),
        "disk of another job": Allowance(writes=15, end=("Failed", "ForeignVolume")),
    }
)
"""By class of faults."""
