"""A full disk at commit: no commit, nothing lost, a clear reason, and it goes on. A port that is in use: a clear error.

The disk is full for one process: a limit on the size of its files, which any user may set for own processes and take
back. Writing beyond it fails with "File too large" where a full disk says "No space left on device".
"""

import resource
import socket
import subprocess
import sys

import numpy as np
import psutil
import pytest

from fedjob_protocol.digests import sha256_of
from fedjob_protocol.layout import checkpoint_name
from fedjob_protocol.weights import encode
from tests.support.by_hand import aggregator
from tests.support.runs import RUN_SECONDS, environment, fedjob, live_run, manifest, wait_until, write_manifest

MODEL = {"w": np.zeros(20_000, np.float32)}
BELOW_A_CHECKPOINT = 40_000
"""Bytes: room for logs and manifests, not for the model."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux can limit the files of a running process")


def limit_files(process: psutil.Process, most: int) -> None:
    """Let a process write files of at most so many bytes."""
    process.rlimit(psutil.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))


def test_a_checkpoint_that_cannot_be_written_is_not_committed_and_is_when_there_is_room(tmp_path):
    body = encode({"w": np.ones(20_000, np.float32)})
    with aggregator(tmp_path / "a") as side:
        first = side.start_with(MODEL)
        file = tmp_path / "a" / "data" / checkpoint_name(0)
        before = file.read_bytes()
        side.open(1, (0,))
        limit_files(side.process, BELOW_A_CHECKPOINT)
        assert side.upload(1, 0, body)[0] == 200
        wait_until(lambda: side.view(1).storage, "the reason in the round's view")
        view = side.view(1)
        assert view.state == "Committing"
        assert "too large" in view.storage.message.lower()
        assert side.state().committed.digest == first.digest
        assert file.read_bytes() == before
        limit_files(side.process, resource.RLIM_INFINITY)
        record = side.committed(1)
        assert (record.parent, [item.client for item in record.contributors]) == (first.digest, [0])
        assert sha256_of((tmp_path / "a" / "data" / checkpoint_name(1)).read_bytes()) == record.digest


def test_a_crash_while_the_disk_is_full_leaves_the_checkpoint_before(tmp_path):
    body = encode({"w": np.ones(20_000, np.float32)})
    with aggregator(tmp_path / "a") as side:
        first = side.start_with(MODEL)
        side.open(1, (0,))
        limit_files(side.process, BELOW_A_CHECKPOINT)
        assert side.upload(1, 0, body)[0] == 200
        wait_until(lambda: side.view(1).storage, "the reason in the round's view")
        side.process.kill()
    with aggregator(tmp_path / "a") as side:
        assert side.state().committed.digest == first.digest
        side.base = None
        assert side.state().committed.round == 0


def test_a_job_shows_why_it_waits_for_its_disk_and_goes_on(tmp_path):
    file = write_manifest(
        tmp_path,
        manifest(
            "full",
            rounds=200,
            model={"name": "mlp", "parameters": {"hiddenSizes": [128]}},
            data={"name": "digits", "maxTrainSamples": 64},
            clientGroups=[{"name": "clients", "replicas": 1}],
            evaluation={"modes": []},
        ),
    )
    with live_run(file, tmp_path / "run") as run:
        run.wait_until(lambda: run.folder.committed() >= 1, "a committed round")
        process = run.programs()["aggregator"]
        limit_files(process, 20_000)
        run.wait_until(lambda: run.folder.status().reason == "CheckpointFailed", "the reason in the status")
        status = run.folder.status()
        assert "too large" in status.message.lower()
        run.wait_until(lambda: "CheckpointFailed" in run.output, "the reason in the lines for people")
        limit_files(process, resource.RLIM_INFINITY)
        run.wait_until(lambda: run.folder.committed() > status.rounds.committed, "the next commit")
        assert run.folder.status().reason != "CheckpointFailed"
    rounds = run.folder.rounds()
    assert [record.round for record in rounds] == list(range(len(rounds)))


@pytest.mark.parametrize("module", ["fedjob_aggregator", "fedjob_client"])
def test_a_port_in_use_is_one_clear_line_and_exit_code_two(module, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        arguments = ["--host", "127.0.0.1", "--port", str(port)]
        arguments += ["--dir", str(tmp_path)] if module == "fedjob_aggregator" else []
        done = subprocess.run(
            [sys.executable, "-P", "-m", module, *arguments],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
            cwd=tmp_path,
        )
    assert done.returncode == 2
    assert f"127.0.0.1:{port}" in done.stderr
    assert "in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_lab_whose_port_is_in_use_says_so_and_leaves_nothing_behind(tmp_path):
    with socket.socket() as taken, socket.socket() as free:
        for held in (taken, free):
            held.bind(("127.0.0.1", 0))
        taken.listen()
        port, other = taken.getsockname()[1], free.getsockname()[1]
        free.close()
        done = fedjob(
            "lab", "--clients", "1", "--client-port", str(other), "--aggregator-port", str(port), cwd=tmp_path
        )
    assert done.returncode != 0
    assert str(port) in done.stderr
    assert "in use" in done.stderr
    assert "Traceback" not in done.stderr
