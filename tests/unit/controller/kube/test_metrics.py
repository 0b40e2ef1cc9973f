"""What is counted, and that its labels are bounded."""

import http.client
import re
import socket

import pytest
from prometheus_client import generate_latest

from fedjob_operator.adapters.metrics import OperatorMetrics
from fedjob_operator.api.v1alpha1 import Phase
from fedjob_operator.core.observed import PodPhase, PodRole
from tests.support.builders import pod


def figures(metrics):
    lines = generate_latest(metrics.registry).decode().splitlines()
    return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))


@pytest.fixture
def world():
    return {"pods": [], "phases": [], "leads": False}


@pytest.fixture
def metrics(world):
    return OperatorMetrics(
        pods=lambda: world["pods"], phases=lambda: world["phases"], is_leading=lambda: world["leads"]
    )


def test_jobs_and_pods_are_counted_as_they_are(metrics, world):
    world["phases"] = [Phase.RUNNING, Phase.RUNNING, Phase.FAILED]
    world["pods"] = [pod(PodRole.CLIENT, 0), pod(PodRole.CLIENT, 1, phase=PodPhase.EXITED), pod(PodRole.AGGREGATOR)]
    world["leads"] = True
    page = figures(metrics)
    assert page['fedjob_jobs{phase="Running"}'] == "2.0"
    assert page['fedjob_jobs{phase="Complete"}'] == "0.0"
    assert page['fedjob_pods{phase="Ready",role="client"}'] == "1.0"
    assert page["fedjob_leading"] == "1.0"
    world["phases"], world["pods"] = [], []
    page = figures(metrics)
    assert page['fedjob_jobs{phase="Running"}'] == page['fedjob_pods{phase="Ready",role="client"}'] == "0.0"


def test_what_happens_is_counted(metrics):
    metrics.request("get", "200")
    metrics.request("get", "none")
    metrics.write("conflict")
    metrics.event(True)
    metrics.event(False)
    metrics.rounds.inc(3)
    page = figures(metrics)
    assert page['fedjob_api_requests_total{code="200",verb="get"}'] == "1.0"
    assert page['fedjob_status_writes_total{result="conflict"}'] == "1.0"
    assert page['fedjob_events_total{result="dropped"}'] == "1.0"
    assert page["fedjob_rounds_committed_total"] == "3.0"


def test_no_label_names_a_job_or_a_pod(metrics, world):
    world["pods"] = [pod(PodRole.CLIENT, index) for index in range(50)]
    world["phases"] = [Phase.RUNNING] * 50
    before = len(figures(metrics))
    world["pods"] += [pod(PodRole.CLIENT, index) for index in range(1000)]
    assert len(figures(metrics)) == before
    labels = set(re.findall(r"(\w+)=", "".join(figures(metrics))))
    assert labels <= {"phase", "role", "le", "verb", "code", "result"}


def test_two_operators_in_one_process_count_for_themselves(metrics):
    other = OperatorMetrics(pods=list, phases=list, is_leading=lambda: False)
    metrics.passes.inc()
    assert figures(other)["fedjob_passes_total"] == "0.0"


def test_the_page_is_served_until_it_is_ended(metrics):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    stop = metrics.serve("127.0.0.1", port)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/metrics")
    assert b"fedjob_passes_total" in connection.getresponse().read()
    connection.close()
    stop()
    with pytest.raises(ConnectionRefusedError):
        http.client.HTTPConnection("127.0.0.1", port, timeout=10).connect()
