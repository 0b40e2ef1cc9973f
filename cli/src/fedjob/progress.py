"""Shows a running job: a live bar on a terminal, plain lines elsewhere."""

import sys
from types import TracebackType
from typing import Protocol, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from fedjob_operator.api.v1alpha1 import FederatedJob, FederatedJobStatus, Phase, RecentRound
from fedjob_operator.core.obstacles import ORDINARY
from fedjob_operator.core.phases import TERMINAL
from fedjob_protocol.reasons import Reason

EXPECTED = (None, Reason.STARTING, Reason.ACCEPTED, Reason.ROUND_IN_PROGRESS, Reason.EVALUATING, Reason.PROVISIONING)
"""Reasons that need no explanation while a job goes on."""


class Display(Protocol):
    """Where progress goes."""

    def __enter__(self) -> Self:
        """Begin."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""
        ...

    def update(self, job: FederatedJob, before: FederatedJobStatus) -> None:
        """Show a status that was written; ``before`` is the one it replaced."""
        ...


def display_for(stream: TextIO) -> Display:
    """Return a live bar for a terminal, else plain lines."""
    return Bar(stream) if stream.isatty() else Lines(stream)


def round_line(job: FederatedJob, row: RecentRound) -> str:
    """One committed round in one line."""
    total = job.spec.rounds
    width = len(str(total))
    parts = [f"round {row.number:>{width}}/{total}"]
    parts += [f"{metric.name} {metric.value:.4f}" for metric in row.metrics]
    parts.append(f"{row.reported} updates")
    if row.refused or row.failed:
        parts.append(f"{row.refused} refused, {row.failed} failed")
    if row.duration_seconds is not None:
        parts.append(f"{row.duration_seconds:.2f} s")
    return "  ".join(parts)


def notices(job: FederatedJob, before: FederatedJobStatus) -> list[str]:
    """What people should know of a change besides committed rounds: phases, and why the job waits."""
    status = job.status
    lines = []
    changed = (status.phase, status.reason) != (before.phase, before.reason)
    changed |= not troubles(status).issubset(troubles(before))
    if changed and status.phase not in TERMINAL and status.reason not in EXPECTED:
        lines.append(f"{status.phase}: {status.reason}: {status.message}")
    gone = sorted(set(status.clients.lost_indices) - set(before.clients.lost_indices))
    lines += [f"client {index} is lost" for index in gone]
    rows = committed_rows(job, before)
    lines += [
        f"round {row.number} has no complete evaluation: {row.evaluation_problem}"
        for row in rows
        if row.evaluation_problem
    ]
    lines += _new_leader(status, before)
    now, then = status.current_round, before.current_round
    if now and then and now.number == then.number and now.attempt > then.attempt:
        lines.append(f"round {now.number} is tried again: attempt {now.attempt}")
    return lines


def troubles(status: FederatedJobStatus) -> set[str]:
    """What the message of a status says of clients that do not merely start, such as ``client 3: at http://…: …``."""
    said = (status.message or "").split("; ")
    return {part for part in said if part.startswith("client ") and part.partition(": ")[2] not in ORDINARY}


def _new_leader(status: FederatedJobStatus, before: FederatedJobStatus) -> list[str]:
    """Who leads now, where a job has standbys and it was not the first one that leads."""
    known, then = status.aggregator, before.aggregator
    is_new = known is not None and known.boot_id is not None and (then is None or then.boot_id != known.boot_id)
    return [f"{known.leader} leads now"] if known and is_new and status.start_time is not None else []


def committed_rows(job: FederatedJob, before: FederatedJobStatus) -> list[RecentRound]:
    """Rounds that the new status has and the old one had not."""
    return [row for row in job.status.recent_rounds if row.number > before.rounds.committed]


class Lines:
    """Plain lines, one per committed round and notice.

    Args:
        stream: Where they go.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __enter__(self) -> Self:
        """Nothing to begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to end."""

    def update(self, job: FederatedJob, before: FederatedJobStatus) -> None:
        """Print what is new."""
        for line in notices(job, before):
            print(line, file=self._stream, flush=True)
        for row in committed_rows(job, before):
            if row.number > 0:
                print(round_line(job, row), file=self._stream, flush=True)


class Bar:
    """A live bar with round, metrics and clients.

    Args:
        stream: A terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[metrics]}"),
            TextColumn("[dim]{task.fields[clients]}"),
            TimeElapsedColumn(),
            console=self._console,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._progress.add_task("starting", total=None, metrics="", clients="")

    def __enter__(self) -> Self:
        """Draw the bar."""
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the bar as it is."""
        self._progress.stop()

    def update(self, job: FederatedJob, before: FederatedJobStatus) -> None:
        """Redraw the bar, and print notices above it."""
        for line in notices(job, before):
            self._console.print(line, style="yellow", markup=False, highlight=False)
        status = job.status
        metrics = "  ".join(f"{metric.name} {metric.value:.4f}" for metric in status.metrics)
        self._progress.update(
            self._task,
            description=str(status.phase) if status.phase is not Phase.RUNNING else "round",
            completed=max(status.rounds.committed, 0),
            total=job.spec.rounds,
            metrics=metrics,
            clients=f"{status.clients.ready}/{status.clients.desired} clients",
        )


def say(text: str, *, stream: TextIO | None = None) -> None:
    """Print a line for people."""
    print(text, file=stream or sys.stdout, flush=True)
