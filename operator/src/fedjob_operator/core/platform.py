"""What the place where a job's programs run can do and wants: a cluster, or this machine."""

from dataclasses import dataclass
from typing import Final

from fedjob_operator.api.v1alpha1 import Images


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """Facts about the place that a decision depends on; the same for all jobs of one operator."""

    images: Images | None = None
    """Images of clients and aggregator where a job names none; ``None`` where no images are used."""
    checks_pods: bool = False
    """Whether pods can be refused before they are made, so that a job is accepted only after `CheckPods`."""
    looks_after_finished: bool = False
    """Whether a finished job is still looked after: its model served, its time to live kept."""
    progress_seconds: float = 5.0
    """Least seconds from one status to the next where only counts, messages and the like differ."""
    startup_attempts: int | None = None
    """Tries at starting a job before it fails; ``None`` tries for ever."""

    @property
    def has_containers(self) -> bool:
        """Whether programs run in containers, which have images and are given GPUs."""
        return self.images is not None


LOCAL: Final = Platform(progress_seconds=0.1, startup_attempts=3)
"""Processes of this machine: somebody waits for the end of the command."""
