"""Which devices there are: a file that tests write and the plugin reads."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Devices:
    """What the plugin advertises."""

    count: int
    unhealthy: list[str] = field(default_factory=list)
    """Names of devices that are there and must not be used."""
    refuses: bool = False
    """Whether no device is given to a pod, though the scheduler believes that it can be."""

    def names(self) -> list[str]:
        """Names of all devices."""
        return [f"gpu-{number}" for number in range(self.count)]

    def write(self, file: Path) -> None:
        """Replace what a file says, at once."""
        new = file.with_suffix(".new")
        new.write_text(json.dumps(asdict(self)), encoding="utf-8")
        new.replace(file)

    @classmethod
    def read(cls, file: Path) -> "Devices":
        """Read a file."""
        return cls(**json.loads(file.read_text(encoding="utf-8")))
