"""What the aggregator tells whoever counts. Called on the event loop; must take microseconds and never raise."""

from fedjob_protocol.errors import Word
from fedjob_protocol.messages import RoundRecord


class Recorder:
    """Counts nothing; see `fedjob_aggregator.metrics` for the one that does."""

    def restored(self, committed: int) -> None:
        """The folder is open; ``committed`` is its last round, -1 before round 0."""

    def upload_began(self) -> None:
        """A client asks to upload."""

    def upload_ended(self, received_bytes: int) -> None:
        """An upload is over, whatever became of it."""

    def update_accepted(self) -> None:
        """An update is in the sums."""

    def update_refused(self, word: Word) -> None:
        """An upload was refused."""

    def committed(self, record: RoundRecord) -> None:
        """A round is durable."""

    def commit_failed(self) -> None:
        """The storage refused a checkpoint; it is tried again."""


SILENT = Recorder()
"""Where nobody asked for metrics."""
