"""What the operator counts, for Prometheus; served on a port of its own.

No label has a job's name, or anything else that grows without bound.
"""

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from typing_extensions import override

from fedjob_operator.api.v1alpha1 import Phase
from fedjob_operator.core.observed import PodPhase, PodRole, PodView

PASS_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds in seconds."""


class OperatorMetrics:
    """The operator's own figures.

    Args:
        pods: Returns all pods; called from the thread that serves the page.
        phases: Returns the phase of each job; called from there, too.
        is_leading: Whether this operator drives the jobs.
    """

    def __init__(
        self,
        *,
        pods: Callable[[], Iterable[PodView]],
        phases: Callable[[], Iterable[Phase]],
        is_leading: Callable[[], bool],
    ) -> None:
        self.registry = CollectorRegistry()
        self.passes = Counter("fedjob_passes", "Looks of the reconcile loop at a job.", registry=self.registry)
        self.pass_seconds = Histogram(
            "fedjob_pass_seconds",
            "Seconds that one look at a job took, its status write included.",
            registry=self.registry,
            buckets=PASS_BUCKETS,
        )
        self._writes = Counter("fedjob_status_writes", "Status writes by result.", ["result"], registry=self.registry)
        self._requests = Counter(
            "fedjob_api_requests",
            "Requests to the API server by verb and status.",
            ["verb", "code"],
            registry=self.registry,
        )
        self.rounds = Counter("fedjob_rounds_committed", "Rounds seen to be committed.", registry=self.registry)
        self._events = Counter("fedjob_events", "Events by result.", ["result"], registry=self.registry)
        self.restarts = Counter(
            "fedjob_job_tasks_restarted",
            "Times that driving a job ended by an unexpected error.",
            registry=self.registry,
        )
        self.registry.register(_Census(pods, phases, is_leading))

    def request(self, verb: str, code: str) -> None:
        """Count a request to the API server."""
        self._requests.labels(verb=verb, code=code).inc()

    def write(self, result: str) -> None:
        """Count a status write: ``written``, ``conflict`` or ``failed``."""
        self._writes.labels(result=result).inc()

    def event(self, is_written: bool) -> None:  # noqa: FBT001 - the two sides of one count
        """Count an Event."""
        self._events.labels(result="written" if is_written else "dropped").inc()

    def serve(self, host: str, port: int) -> Callable[[], None]:
        """Serve the page from a thread of its own; return what ends that.

        Raises:
            OSError: The port cannot be listened on.
        """
        server, thread = start_http_server(port, addr=host, registry=self.registry)

        def stop() -> None:
            server.shutdown()
            server.server_close()
            thread.join(timeout=1)

        return stop


class _Census(Collector):
    """Counts jobs and pods when it is asked, so that what is gone is gone from the page, too."""

    def __init__(
        self,
        pods: Callable[[], Iterable[PodView]],
        phases: Callable[[], Iterable[Phase]],
        is_leading: Callable[[], bool],
    ) -> None:
        self._pods = pods
        self._phases = phases
        self._is_leading = is_leading

    @override
    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Return the figures of this moment."""
        jobs = GaugeMetricFamily("fedjob_jobs", "Jobs by phase.", labels=["phase"])
        phases = Tally(self._phases())
        for phase in Phase:
            jobs.add_metric([phase.value], phases[phase])
        yield jobs
        pods = GaugeMetricFamily("fedjob_pods", "Pods of jobs by role and phase.", labels=["role", "phase"])
        places = Tally((pod.role, pod.phase) for pod in self._pods())
        for role in PodRole:
            for state in PodPhase:
                pods.add_metric([role.value, state.value], places[role, state])
        yield pods
        yield GaugeMetricFamily(
            "fedjob_leading", "Whether this operator drives the jobs.", value=int(self._is_leading())
        )
