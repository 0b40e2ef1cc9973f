"""Rounds as TensorBoard event files: ``fedjob run --tensorboard DIR``, ``fedjob rounds TARGET --tensorboard DIR``."""

import os
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from fedjob.engine import utc_now
from fedjob.failure import EXIT_USAGE, Failure
from fedjob.show import read_log
from fedjob_protocol.messages import RoundRecord

MAX_CLIENTS: Final = 50
"""Clients of a round that get curves of their own, the first by index."""
FILE_VERSION: Final = "brain.Event:2"
"""What the first record of an event file says; readers know the format by it."""


def check_installed() -> None:
    """See that event files can be written at all.

    Raises:
        Failure: tensorboardX is not installed.
    """
    try:
        import tensorboardX  # noqa: F401, PLC0415 - an extra
    except ImportError:
        raise Failure(
            "--tensorboard needs tensorboardX: pip install 'fedjob[tensorboard]'", exit_code=EXIT_USAGE
        ) from None


class EventFile:
    """One event file in a folder; another one at each start, as TensorBoard expects it.

    It is written by whoever calls, not by a thread of its own: what the disk refuses is told to the caller.

    Args:
        folder: Where it goes.

    Raises:
        Failure: tensorboardX is not installed, or the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        check_installed()
        from tensorboardX.record_writer import RecordWriter  # noqa: PLC0415 - an extra

        self._last = -1
        # Absolute: the package takes what begins with "s3:" or "gs:" for a bucket.
        name = f"events.out.tfevents.{int(utc_now().timestamp())}.{socket.gethostname()}.{os.getpid()}"
        self._path = folder.absolute() / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._records: Any = RecordWriter(str(self._path))
        except OSError as error:
            raise Failure(f"{folder}: {error.strerror or error}", exit_code=EXIT_USAGE) from error
        self._or_fail(self._begin)

    def __enter__(self) -> Self:
        """Nothing to begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it; what was added is on the disk already."""
        self._close()

    def add(self, records: Iterable[RoundRecord]) -> None:
        """Write the rounds that were not written yet; the initial model has nothing to show.

        Raises:
            Failure: The file cannot be written; it is closed, and ends where the disk ended.
        """
        self._or_fail(lambda: self._add(records))

    def follow(self, log: Path) -> None:
        """Write what is new in a round log.

        Raises:
            Failure: The log cannot be read, or the file cannot be written.
        """
        self.add(read_log(log))

    def _begin(self) -> None:
        from tensorboardX.proto.event_pb2 import Event  # noqa: PLC0415 - an extra

        self._records.write(Event(wall_time=utc_now().timestamp(), file_version=FILE_VERSION).SerializeToString())
        self._records.flush()

    def _add(self, records: Iterable[RoundRecord]) -> None:
        from tensorboardX.proto.event_pb2 import Event  # noqa: PLC0415 - an extra
        from tensorboardX.summary import scalar  # noqa: PLC0415 - an extra

        for record in records:
            if record.round <= self._last:
                continue
            self._last = record.round
            at = record.committed_at.timestamp()
            for tag, value in scalars(record) if record.round > 0 else ():
                event = Event(wall_time=at, step=record.round, summary=scalar(tag, value))
                self._records.write(event.SerializeToString())
        self._records.flush()

    def _or_fail(self, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            self._close()
            reason = error.strerror or error
            raise Failure(f"{self._path} cannot be written: {reason}; make room, or name another folder") from error

    def _close(self) -> None:
        with suppress(OSError):  # everything was flushed before, or its failure was told
            self._records.close()


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


class Curves:
    """The event file of a job that is under way: a disk that takes no more ends the curves, not the job.

    Args:
        file: Where the rounds go; ``None`` where nobody wants curves.
        tell: Told once why there are no more.
    """

    def __init__(self, file: EventFile | None, *, tell: Callable[[str], None]) -> None:
        self._file = file
        self._tell = tell

    def follow(self, log: Path) -> None:
        """Write what is new in a round log, as long as that works."""
        if self._file is None:
            return
        try:
            self._file.follow(log)
        except Failure as failure:
            self._file = None
            self._tell(f"{failure}; the job goes on without curves: `fedjob rounds` writes them afterwards")
