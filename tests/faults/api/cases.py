"""What a fault run is: a job, and something that goes wrong at a moment."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from tests.faults.allowances import Allowance
from tests.faults.api.allowances import ALLOWANCES
from tests.faults.api.jobs import ALL, SOME
from tests.faults.api.run import Moment, Run

REQUESTS: Final = {(ALL, "write"): 26, (ALL, "call"): 29, (SOME, "write"): 30, (SOME, "call"): 25}
"""How many an undisturbed run makes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A fault that happens to a job. Equal names are equal runs."""

    fault_class: str
    """A key of `ALLOWANCES`."""
    job: str
    """`ALL` or `SOME`."""
    arm: Callable[[Run], None]
    """Called when the first operator is ready and the job was not created yet; may create it."""
    name: str = ""
    """Which one of its class."""
    reach: Literal["direct", "api-proxy"] = "direct"
    """How operators reach pods; calls can be disturbed only on their way through the API server."""
    waits: bool = False
    """Whether most of the run is waiting."""

    def __str__(self) -> str:
        return f"{self.fault_class.replace(' ', '-')}-{self.job}"

    @property
    def key(self) -> str:
        """Its name among all."""
        return f"{self}-{self.name}".removesuffix("-")

    @property
    def allowance(self) -> Allowance:
        """What its class may cost."""
        return ALLOWANCES[self.fault_class]


def moments(seed: str, job: str, of: Literal["write", "call"], count: int) -> list[Moment]:
    """Moments of a run, drawn by a seed, in order; the same for the same arguments."""
    last = REQUESTS[job, of] - 4  # the last ones only release the clients
    numbers = random.Random(f"{seed} {job} {of}").sample(range(2, last), count)
    return [Moment(of, number) for number in sorted(numbers)]
