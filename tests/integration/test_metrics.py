"""Real programs with a metrics port, scraped as Prometheus does."""

import re
import socket
import time
import urllib.request

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fedjob_protocol.process import EXIT_USAGE
from fedjob_protocol.version import __version__
from fedjob_protocol.weights import encode
from tests.integration.client_support import a_client, a_config, an_aggregator, an_api
from tests.integration.test_aggregator_process import Aggregator, aggregator, delta, whole_round

pytestmark = pytest.mark.integration

URL = re.compile(r"metrics at (\S+)")
SECONDS = 20.0


def announced(lines):
    """The address that the log names; it may be a moment behind the program's own line."""
    end = time.monotonic() + SECONDS
    while not (found := URL.search("".join(lines()))):
        assert time.monotonic() < end, lines()
        time.sleep(0.01)
    return found[1]


def scrape(url):
    with urllib.request.urlopen(url, timeout=SECONDS) as response:
        assert response.headers["Content-Type"].startswith("text/plain")
        families = list(text_string_to_metric_families(response.read().decode()))
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value for family in families for sample in family.samples
    }


def test_an_aggregator_counts_rounds_updates_and_bytes(tmp_path):
    with aggregator(tmp_path, "--metrics-port", "0", environment={"FEDJOB_TOKEN": ""}) as program:
        url = announced(lambda: program.errors)
        before = scrape(url)
        assert before["fedjob_aggregator_build_info", __version__] == 1
        assert before["fedjob_aggregator_committed_round",] == -1
        assert before["fedjob_aggregator_updates_refused_total", "non-finite"] == 0

        program.initialise()
        whole_round(program, 1)
        program.open(2)
        bad = delta(float("nan"))
        assert program.upload(2, 0, bad)[0] == 422
        after = scrape(url)

    assert after["fedjob_aggregator_rounds_committed_total",] == 1
    assert after["fedjob_aggregator_committed_round",] == 1
    assert after["fedjob_aggregator_round_seconds_count",] == 1
    assert after["fedjob_aggregator_round_seconds_sum",] >= after["fedjob_aggregator_commit_seconds_sum",] > 0
    assert after["fedjob_aggregator_updates_accepted_total",] == 4  # the initial model is one
    assert after["fedjob_aggregator_updates_refused_total", "non-finite"] == 1
    assert after["fedjob_aggregator_updates_refused_total", "truncated"] == 0
    received = 3 * len(delta(1)) + len(bad)
    assert after["fedjob_aggregator_received_bytes_total",] > received  # and the initial model
    assert after["fedjob_aggregator_open_uploads",] == 0
    assert after["process_resident_memory_bytes",] > 1 << 20


def test_an_aggregator_says_where_it_went_on_and_which_uploads_are_open(tmp_path):
    with aggregator(tmp_path) as program:
        program.initialise()
    with aggregator(tmp_path, "--metrics-port", "0") as program:
        url = announced(lambda: program.errors)
        assert scrape(url)["fedjob_aggregator_committed_round",] == 0
        program.open(1)
        connection = program.half_upload(1, 0, delta(1))
        try:
            end = time.monotonic() + SECONDS
            while scrape(url)["fedjob_aggregator_open_uploads",] != 1:
                assert time.monotonic() < end
        finally:
            connection.close()
        while scrape(url)["fedjob_aggregator_open_uploads",] != 0:
            assert time.monotonic() < end


def test_a_scraper_that_goes_away_does_not_keep_the_next_one_from_its_figures(tmp_path):
    with aggregator(tmp_path, "--metrics-port", "0") as program:
        url = announced(lambda: program.errors)
        host, port = url.removeprefix("http://").removesuffix("/metrics").split(":")
        for request in (b"", b"GET /metr", b"\x00" * 100 + b"\r\n\r\n", b"GET /metrics HTTP/1.1\r\n\r\n"):
            with socket.create_connection((host, int(port))) as connection:
                connection.sendall(request)
        assert scrape(url)["fedjob_aggregator_committed_round",] == -1
        assert not [line for line in program.errors if "Traceback" in line]


def test_without_a_metrics_port_nothing_listens_and_a_taken_one_is_said_so(tmp_path):
    with aggregator(tmp_path / "none") as program:
        assert not URL.search("".join(program.errors))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        program = Aggregator(tmp_path / "taken", environment={"FEDJOB_METRICS_PORT": str(taken.getsockname()[1])})
        try:
            assert program.process.wait(SECONDS) == EXIT_USAGE
        finally:
            program.close()
    assert "--metrics-port" in program.errors[-1]


async def test_a_client_counts_trainings_outcomes_and_bytes(tmp_path):
    with a_client(tmp_path, a_config(), "--metrics-port", "0") as client:
        url = announced(lambda: [(tmp_path / "log").read_text()])
        async with an_aggregator() as remote, an_api(client.url) as api:
            await api.train(1, remote.task(1))
            await api.until(1, "Reported")
            await api.train(2, remote.task(2, fail=True))
            await api.until(2, "Failed")
            evaluation = {
                "jobUid": "job-1",
                "base": {"round": 0, "digest": remote.digest},
                "modelUrl": f"{remote.url}/model",
            }
            assert (await api.call("POST", "/v1/evaluate?wait=20", evaluation))[0] == 200
            model = remote.model
        seen = scrape(url)
    assert seen["fedjob_client_build_info", __version__] == 1
    assert seen["fedjob_client_trainings_total",] == 2
    assert seen["fedjob_client_training_seconds_count",] == 2
    assert seen["fedjob_client_tasks_total", "Reported"] == 1
    assert seen["fedjob_client_tasks_total", "Failed"] == 1
    assert seen["fedjob_client_tasks_total", "Cancelled"] == 0
    assert seen["fedjob_client_evaluations_total", "Done"] == 1
    assert seen["fedjob_client_evaluation_seconds_count",] == 1
    assert seen["fedjob_client_received_bytes_total",] == len(model)  # the second task began with the same model
    assert seen["fedjob_client_sent_bytes_total",] == len(encode({"w": np.ones(4, np.float32)}))
    assert seen["process_resident_memory_bytes",] > 1 << 20
