"""Programs that the command line starts for itself: they announce their address, and die with it."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import ValidationError

from fedjob.failure import Failure
from fedjob_protocol.lifeline import LIFELINE_ON_STDIN, LIFELINE_VARIABLE
from fedjob_protocol.messages import Announcement

STOP_SECONDS = 3.0


class Program:
    """One of our programs, running as long as the block that it is entered in.

    Args:
        module: ``fedjob_client`` or ``fedjob_aggregator``.
        arguments: Its flags.
        environment: All of its environment.
        log: File that its standard error is appended to.
        folder: Its current folder; absent means this process's.
    """

    def __init__(
        self,
        module: str,
        arguments: list[str],
        *,
        environment: Mapping[str, str],
        log: Path,
        folder: Path | None = None,
    ) -> None:
        self._module = module
        self._log = log
        with log.open("ab") as errors:
            self.process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-P", "-m", module, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**environment, LIFELINE_VARIABLE: LIFELINE_ON_STDIN},
                cwd=folder,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        """It was started when it was made, so that several start side by side."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it: ask first, kill what does not listen."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()

    def url(self) -> str:
        """Wait until it serves, and return where.

        Raises:
            Failure: It ended before; the last line that it wrote says why.
        """
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                return Announcement.model_validate_json(line).url
            except ValidationError:
                continue  # A trainer of the user's own prints while it is loaded.
        code = self.process.wait()
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise Failure(f"{self._module} ended with exit code {code}: {lines[-1] if lines else 'it said nothing'}")
