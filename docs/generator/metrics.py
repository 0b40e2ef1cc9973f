"""The figures that the programs show to Prometheus, as a page."""

from collections.abc import Sequence
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from fedjob_aggregator.metrics import MetricsRecorder as AggregatorRecorder
from fedjob_client.metrics import MetricsRecorder as ClientRecorder
from fedjob_operator.adapters.metrics import OperatorMetrics
from generator.markdown import code, page, table

OWN: Final = "fedjob_"
"""What our own names begin with; the others are the usual ones of a process."""
LABELS_OF_BUCKETS: Final = frozenset({"le"})


def metrics() -> str:
    """The page of all metrics."""
    registries = {
        "fedjob-operator": _operator(),
        "fedjob-aggregator": AggregatorRecorder().registry,
        "fedjob-client": ClientRecorder().registry,
    }
    blocks = [block for program, registry in registries.items() for block in (f"## {program}", _figures(registry))]
    return page(
        "Metrics",
        "In a cluster every pod serves them at `:9090/metrics`, elsewhere a program does so where `--metrics-port` "
        "says. No token is asked for and no figure names a job: the labels of the pod do (`fedjob.dev/job`, "
        "`fedjob.dev/role`, `fedjob.dev/index`), and a PodMonitor of the chart takes them over. On Linux there are "
        "also the usual figures of a process, such as `process_resident_memory_bytes`.",
        *blocks,
    )


def _operator() -> CollectorRegistry:
    """The operator's registry, with every label seen once."""
    figures = OperatorMetrics(pods=tuple, phases=tuple, is_leading=lambda: False)
    figures.request("get", "200")
    figures.write("written")
    figures.event(is_written=True)
    return figures.registry


def _figures(registry: CollectorRegistry) -> str:
    own = sorted((metric for metric in registry.collect() if metric.name.startswith(OWN)), key=lambda each: each.name)
    return table(("name", "type", "labels", "what"), map(_row, own))


def _row(metric: Metric) -> Sequence[str]:
    values: dict[str, list[str]] = {}
    for sample in metric.samples:
        for label, value in sample.labels.items():
            if label not in LABELS_OF_BUCKETS and value not in values.setdefault(label, []):
                values[label].append(value)
    name = f"{metric.name}_total" if metric.type == "counter" else metric.name
    return code(name), metric.type, ", ".join(map(code, values)), metric.documentation
