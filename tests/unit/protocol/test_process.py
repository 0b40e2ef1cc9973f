"""Processes: listening, announcing, the lifeline, the termination log, signals."""

import io
import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from fedjob_protocol.config import Termination
from fedjob_protocol.lifeline import EXIT_LIFELINE, hold_lifeline
from fedjob_protocol.process import (
    CannotListenError,
    announce,
    base_url,
    leave_termination,
    listen,
    stop_on_signals,
)
from fedjob_protocol.reasons import Reason


def test_a_free_port_is_found_and_its_url_can_be_connected_to():
    with listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        assert base_url(listening) == f"http://127.0.0.1:{port}"
        socket.create_connection(("127.0.0.1", port), timeout=5).close()


def test_the_url_of_all_addresses_is_one_that_can_be_connected_to():
    with listen("0.0.0.0", 0) as listening:
        assert base_url(listening).startswith("http://127.0.0.1:")


def test_a_port_in_use_is_one_clear_line():
    with listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(CannotListenError, match=f"cannot listen on 127.0.0.1:{port}: .*--port"):
            listen("127.0.0.1", port)


def test_an_unknown_host_is_one_clear_line():
    with pytest.raises(CannotListenError, match="cannot listen on no such host:80"):
        listen("no such host", 80)


def test_the_announcement_is_one_line_of_json():
    out = io.StringIO()
    announce("fedjob-aggregator", "http://127.0.0.1:1", "boot", out=out)
    assert json.loads(out.getvalue()) == {
        "event": "listening",
        "program": "fedjob-aggregator",
        "url": "http://127.0.0.1:1",
        "bootId": "boot",
        "pid": os.getpid(),
    }
    assert out.getvalue().count("\n") == 1


def test_no_lifeline_is_held_unless_asked_for():
    assert hold_lifeline({}) is None
    assert hold_lifeline({"FEDJOB_LIFELINE": "no"}) is None


CHILD = """
import os, time
from fedjob_protocol.lifeline import hold_lifeline
hold_lifeline(os.environ)
print("up", flush=True)
time.sleep(60)
"""


def test_a_process_dies_with_its_lifeline():
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "FEDJOB_LIFELINE": "stdin"},
    )
    with child:
        assert child.stdout.readline() == b"up\n"
        child.stdin.write(b"still here")
        child.stdin.flush()
        assert child.poll() is None
        child.stdin.close()
        assert child.wait(timeout=10) == EXIT_LIFELINE


@pytest.mark.parametrize("program", ["fedjob_client", "fedjob_aggregator"])
def test_the_lifeline_is_held_before_anything_is_imported_that_takes_time(program):
    code = f"import sys, {program}.__main__; print(*sys.modules)"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"pydantic", "click", "asyncio", "numpy", "importlib.metadata"} & set(child.stdout.split())


def test_the_reason_of_a_death_is_left_where_the_environment_says(tmp_path):
    path = tmp_path / "termination"
    leave_termination({"FEDJOB_TERMINATION_LOG": str(path)}, Reason.FOREIGN_VOLUME, "of job x" * 1000)
    termination = Termination.model_validate_json(path.read_text())
    assert (termination.reason, len(termination.message)) == (Reason.FOREIGN_VOLUME, 2048)


def test_a_termination_log_that_cannot_be_written_does_no_harm(tmp_path):
    leave_termination({"FEDJOB_TERMINATION_LOG": str(tmp_path / "no" / "folder")}, Reason.CRASHED, "why")
    leave_termination({}, Reason.CRASHED, "why")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_ask_to_stop_and_are_put_back(number):
    before = signal.getsignal(number)
    asked = []
    with stop_on_signals(lambda: asked.append(number)):
        signal.raise_signal(number)
    assert asked == [number]
    assert signal.getsignal(number) is before
