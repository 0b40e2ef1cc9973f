"""Rounds as TensorBoard event files: ``fedjob run --tensorboard DIR``, ``fedjob rounds TARGET --tensorboard DIR``."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from fedjob.failure import EXIT_USAGE, Failure
from fedjob.show import read_log
from fedjob_protocol.messages import RoundRecord

MAX_CLIENTS: Final = 50
"""Clients of a round that get curves of their own, the first by index."""


def writer_class() -> Any:
    """What writes event files.

    Raises:
        Failure: It is not installed.
    """
    try:
        from tensorboardX import SummaryWriter  # noqa: PLC0415 - an extra
    except ImportError:
        raise Failure(
            "--tensorboard needs tensorboardX: pip install 'fedjob[tensorboard]'", exit_code=EXIT_USAGE
        ) from None
    return SummaryWriter


class EventFile:
    """One event file in a folder; another one at each start, as TensorBoard expects it.

    Args:
        folder: Where it goes.

    Raises:
        Failure: tensorboardX is not installed, or the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        make = writer_class()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._writer: Any = make(logdir=str(folder), flush_secs=1)
        except OSError as error:
            raise Failure(f"{folder}: {error.strerror or error}", exit_code=EXIT_USAGE) from error
        self._last = -1

    def __enter__(self) -> Self:
        """Nothing to begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what is left."""
        self._writer.close()

    def add(self, records: Iterable[RoundRecord]) -> None:
        """Write the rounds that were not written yet; the initial model has nothing to show."""
        for record in records:
            if record.round <= self._last:
                continue
            self._last = record.round
            at = record.committed_at.timestamp()
            for tag, value in scalars(record) if record.round > 0 else ():
                self._writer.add_scalar(tag, value, global_step=record.round, walltime=at)
        self._writer.flush()

    def follow(self, log: Path) -> None:
        """Write what is new in a round log."""
        self.add(read_log(log))


def scalars(record: RoundRecord) -> Iterator[tuple[str, float]]:
    """The curves of a round: metrics and their spread, the round itself, and its clients' training."""
    for name, value in sorted((record.metrics or {}).items()):
        yield f"metrics/{name}", value
    for name, spread in sorted(record.spread.items()):
        yield f"spread/{name}/lowest", spread.lowest
        yield f"spread/{name}/highest", spread.highest
        yield f"spread/{name}/deviation", spread.deviation
    yield "round/seconds", record.duration_seconds
    yield "round/examples", float(record.examples)
    yield "round/updates", float(len(record.contributors))
    yield "round/refused", float(len(record.refused))
    yield "round/failed", float(len(record.failed))
    for item in sorted(record.contributors, key=lambda item: item.client)[:MAX_CLIENTS]:
        for name, value in sorted(item.metrics.items()):
            yield f"clients/{item.name}/{name}", value


def write_events(records: Iterable[RoundRecord], events: Path) -> None:
    """Write rounds as an event file.

    Raises:
        Failure: tensorboardX is not installed, or the folder cannot be written.
    """
    with EventFile(events) as file:
        file.add(records)
