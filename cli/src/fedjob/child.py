"""Programs that the command line starts for itself: they announce their address, and die with it."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from fedjob.failure import Failure
from fedjob_protocol.config import LIFELINE_VARIABLE
from fedjob_protocol.messages import Announcement

STOP_SECONDS = 3.0


@contextmanager
def program(
    module: str, arguments: list[str], *, environment: Mapping[str, str], log: Path, folder: Path | None = None
) -> Iterator[tuple[Announcement, subprocess.Popen[bytes]]]:
    """Start one of our programs, yield its announcement once it serves, and end it.

    Args:
        module: ``fedjob_client`` or ``fedjob_aggregator``.
        arguments: Its flags.
        environment: All of its environment.
        log: File that its standard error is appended to.
        folder: Its current folder; absent means this process's.

    Raises:
        Failure: It ended before it served; the last line that it wrote says why.
    """
    with log.open("ab") as errors:
        process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-P", "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**environment, LIFELINE_VARIABLE: "stdin"},
            cwd=folder,
            start_new_session=True,
        )
    try:
        yield _announcement(module, process, log), process
    finally:
        _stop(process)


def _announcement(module: str, process: subprocess.Popen[bytes], log: Path) -> Announcement:
    assert process.stdout is not None
    for line in process.stdout:
        try:
            return Announcement.model_validate_json(line)
        except ValidationError:
            continue  # A trainer of the user's own prints while it is loaded.
    code = process.wait()
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    raise Failure(f"{module} ended with exit code {code}: {lines[-1] if lines else 'it said nothing'}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
