"""What the client tells whoever counts. Called on the event loop; must take microseconds and never raise."""

from fedjob_protocol.tasks import EvaluationState, TaskState


class Recorder:
    """Counts nothing; see `fedjob_client.metrics` for the one that does."""

    def trained(self, seconds: float) -> None:
        """A training ended, with an update or without one."""

    def task_ended(self, state: TaskState) -> None:
        """A task was Reported, Failed or Cancelled."""

    def evaluated(self, state: EvaluationState, seconds: float | None) -> None:
        """An evaluation was Done, which took so long, or it Failed."""

    def received(self, count: int) -> None:
        """So many bytes of a model arrived."""

    def sent(self, count: int) -> None:
        """An update of so many bytes was accepted."""


SILENT = Recorder()
"""Where nobody asked for metrics."""
