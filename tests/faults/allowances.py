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
        "none": Allowance(),
    }
)
"""By class of faults."""
