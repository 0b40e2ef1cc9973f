"""The round log ``rounds.jsonl``: one line of JSON per round, complete and for good.

Appended by one thread; pages may be read by any, since lines that are there never change.
"""

import re
from pathlib import Path
from typing import Final

from fedjob_aggregator.disk import Disk, write_all
from fedjob_protocol.errors import FedJobError
from fedjob_protocol.messages import RoundRecord

MAX_PAGE_BYTES: Final = 4 << 20
"""A page ends before the line that would make it longer; it always has one line, if there is one."""
_LINE = re.compile(rb'\{"round":(\d+),.*\}')


class DamagedLogError(FedJobError):
    """The log has a line that was not written by us, or lacks a round."""


class RoundLog:
    """Lines of the log by round; the first is that of round 0.

    A last line without its end is the trace of a crash while it was written: it is cut off, as nobody was told that it
    was there.

    Args:
        path: The file; made if it is not there.
        disk: Operations on files.

    Raises:
        DamagedLogError: A line is damaged or a round is missing.
        OSError: The file cannot be read or written.
    """

    def __init__(self, path: Path, disk: Disk) -> None:
        self._disk = disk
        self._path = path
        self._ends = self._load()
        self._writer = path.open("r+b", buffering=0)
        self._writer.seek(self._end)
        self._reader = path.open("rb")

    @property
    def last_round(self) -> int:
        """The last round in the log; -1 if there is none."""
        return len(self._ends) - 1

    def append(self, record: RoundRecord) -> None:
        """Add the next round durably; nothing happens if it is there already.

        Raises:
            OSError: It could not be written; the log is as it was.
        """
        if record.round <= self.last_round:
            return
        assert record.round == self.last_round + 1
        line = record.model_dump_json(by_alias=True).encode() + b"\n"
        try:
            write_all(self._writer.write, line)
            self._disk.sync(self._writer.fileno())
        except OSError:
            self._writer.truncate(self._end)
            self._writer.seek(self._end)
            raise
        self._ends.append(self._end + len(line))

    def truncate(self, last_round: int) -> None:
        """Drop every line after that of a round; durable.

        Args:
            last_round: The last round that stays; -1 keeps none.

        Raises:
            OSError: It could not be done.
        """
        if last_round >= self.last_round:
            return
        ends = self._ends[: last_round + 1]
        self._writer.truncate(ends[-1] if ends else 0)
        self._ends = ends
        self._writer.seek(self._end)
        self._disk.sync(self._writer.fileno())

    def record(self, round_number: int) -> RoundRecord | None:
        """The record of a round, if it is in the log."""
        if not 0 <= round_number <= self.last_round:
            return None
        return RoundRecord.model_validate_json(self._line(round_number))

    def page(self, since: int, limit: int) -> tuple[list[bytes], bool]:
        """Lines from round ``since`` on, at most ``limit`` and `MAX_PAGE_BYTES`, and whether there are further ones."""
        lines: list[bytes] = []
        size, last = 0, self.last_round  # another thread may append meanwhile
        for number in range(since, min(since + limit, last + 1)):
            line = self._line(number)
            size += len(line)
            if lines and size > MAX_PAGE_BYTES:
                break
            lines.append(line)
        return lines, since + len(lines) <= last

    def close(self) -> None:
        """Close the file."""
        self._writer.close()
        self._reader.close()

    @property
    def _end(self) -> int:
        return self._ends[-1] if self._ends else 0

    def _line(self, number: int) -> bytes:
        begin = self._ends[number - 1] if number else 0
        self._reader.seek(begin)
        return self._reader.read(self._ends[number] - begin - 1)

    def _load(self) -> list[int]:
        ends: list[int] = []
        position = 0
        with self._path.open("a+b") as file:
            file.seek(0)
            for number, line in enumerate(file):
                if not line.endswith(b"\n"):
                    file.truncate(position)
                    self._disk.sync(file.fileno())
                    break
                match = _LINE.fullmatch(line, 0, len(line) - 1)
                if match is None or int(match[1]) != number:
                    raise DamagedLogError(
                        f"line {number + 1} of {self._path} is not the record of round {number}; restore the file"
                    )
                position += len(line)
                ends.append(position)
        return ends
