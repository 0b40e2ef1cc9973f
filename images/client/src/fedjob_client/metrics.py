"""The client's figures for Prometheus. No label has a value that is not in a closed list."""

from typing import Final

from prometheus_client import Counter, Histogram
from typing_extensions import override

from fedjob_client.recorder import Recorder
from fedjob_protocol.metrics import program_registry
from fedjob_protocol.tasks import EvaluationState, TaskState

PREFIX: Final = "fedjob_client"
BUCKETS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 150, 300, 600, 1800, 3600, 7200)
"""Upper bounds in seconds: from toy models to trainings of hours."""
OUTCOMES: Final = (TaskState.REPORTED, TaskState.FAILED, TaskState.CANCELLED)
EVALUATION_OUTCOMES: Final = (EvaluationState.DONE, EvaluationState.FAILED)


class MetricsRecorder(Recorder):
    """Counts in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = program_registry(PREFIX)
        self._training_seconds = Histogram(
            f"{PREFIX}_training_seconds",
            "Seconds of each training, from the model in memory to the update ready to be sent, or to its failure.",
            registry=registry,
            buckets=BUCKETS,
        )
        self._trainings = Counter(f"{PREFIX}_trainings", "Trainings that ended.", registry=registry)
        tasks = Counter(f"{PREFIX}_tasks", "Tasks by how they ended.", ["outcome"], registry=registry)
        self._tasks = {state: tasks.labels(outcome=state.value) for state in OUTCOMES}
        evaluations = Counter(f"{PREFIX}_evaluations", "Evaluations by how they ended.", ["outcome"], registry=registry)
        self._evaluations = {state: evaluations.labels(outcome=state.value) for state in EVALUATION_OUTCOMES}
        self._evaluation_seconds = Histogram(
            f"{PREFIX}_evaluation_seconds",
            "Seconds of each evaluation that was done.",
            registry=registry,
            buckets=BUCKETS,
        )
        self._received = Counter(f"{PREFIX}_received_bytes", "Bytes of models fetched.", registry=registry)
        self._sent = Counter(f"{PREFIX}_sent_bytes", "Bytes of updates that were accepted.", registry=registry)

    @override
    def trained(self, seconds: float) -> None:
        self._trainings.inc()
        self._training_seconds.observe(seconds)

    @override
    def task_ended(self, state: TaskState) -> None:
        self._tasks[state].inc()

    @override
    def evaluated(self, state: EvaluationState, seconds: float | None) -> None:
        self._evaluations[state].inc()
        if seconds is not None:
            self._evaluation_seconds.observe(seconds)

    @override
    def received(self, count: int) -> None:
        self._received.inc(count)

    @override
    def sent(self, count: int) -> None:
        self._sent.inc(count)
