"""The aggregator's figures for Prometheus. No label has a value that is not in a closed list."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram
from typing_extensions import override

from fedjob_aggregator.recorder import Recorder
from fedjob_protocol.errors import Word
from fedjob_protocol.messages import RoundRecord, Verdict
from fedjob_protocol.metrics import program_registry

PREFIX: Final = "fedjob_aggregator"
ROUND_BUCKETS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 150, 300, 600, 1800, 3600, 7200)
"""Upper bounds in seconds: from the rounds of toy models to those of hours."""
COMMIT_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Upper bounds in seconds."""


class MetricsRecorder(Recorder):
    """Counts in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = program_registry(PREFIX)
        self._rounds = Counter(
            f"{PREFIX}_rounds_committed", "Rounds committed, the initial model not counted.", registry=registry
        )
        self._last = Gauge(
            f"{PREFIX}_committed_round", "The last committed round; -1 before the initial model.", registry=registry
        )
        self._round_seconds = Histogram(
            f"{PREFIX}_round_seconds",
            "Seconds from the opening of a round's attempt to its durable commit.",
            registry=registry,
            buckets=ROUND_BUCKETS,
        )
        self._commit_seconds = Histogram(
            f"{PREFIX}_commit_seconds",
            "Seconds of which writing the checkpoint took.",
            registry=registry,
            buckets=COMMIT_BUCKETS,
        )
        self._commits_failed = Counter(
            f"{PREFIX}_commits_failed",
            "Commits that the storage refused; each is tried again.",
            registry=registry,
        )
        self._accepted = Counter(f"{PREFIX}_updates_accepted", "Updates folded into the sums.", registry=registry)
        refused = Counter(
            f"{PREFIX}_updates_refused",
            "Uploads refused, by the machine word of the answer.",
            ["word"],
            registry=registry,
        )
        self._refused = {word: refused.labels(word=word.value) for word in Word}
        judged = Counter(
            f"{PREFIX}_updates_judged",
            "Updates that the strategy did not take as they came, by its verdict.",
            ["verdict"],
            registry=registry,
        )
        self._judged = {verdict: judged.labels(verdict=verdict.value) for verdict in Verdict}
        self._bytes = Counter(
            f"{PREFIX}_received_bytes",
            "Bytes of uploads received, refused ones included.",
            registry=registry,
        )
        self._open = Gauge(f"{PREFIX}_open_uploads", "Uploads under way or waiting for their turn.", registry=registry)

    @override
    def restored(self, committed: int) -> None:
        self._last.set(committed)

    @override
    def upload_began(self) -> None:
        self._open.inc()

    @override
    def upload_ended(self, received_bytes: int) -> None:
        self._open.dec()
        self._bytes.inc(received_bytes)

    @override
    def update_accepted(self) -> None:
        self._accepted.inc()

    @override
    def update_refused(self, word: Word) -> None:
        self._refused[word].inc()

    @override
    def committed(self, record: RoundRecord) -> None:
        self._last.set(record.round)
        if record.round > 0:
            self._rounds.inc()
            self._round_seconds.observe(record.duration_seconds)
            self._commit_seconds.observe(record.commit_seconds)
        for judgement in record.judgements:
            self._judged[Verdict(judgement.verdict)].inc()

    @override
    def commit_failed(self) -> None:
        self._commits_failed.inc()
