"""What standbys cost at each commit, and how soon a job goes on when the leader is killed."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Final

import psutil
from aggregator import JOB, Connection, Rounds, aggregator, model_and_update
from children import Child
from report import Check, Row, Section

from fedjob_protocol import routes
from fedjob_protocol.digests import xxh3_of
from fedjob_protocol.replication import Leadership

NAMES: Final = ("aggregator-0", "aggregator-1", "aggregator-2")
MOST_RATIO: Final = 3.0
LOOK_SECONDS: Final = 0.002
RUN_SECONDS: Final = 300.0
MOST_SECONDS: Final = 10.0
MANIFEST: Final = {
    "apiVersion": "fedjob.dev/v1alpha1",
    "kind": "FederatedJob",
    "metadata": {"name": "failover"},
    "spec": {
        "rounds": 1_000_000,
        "model": {"name": "softmax"},
        "data": {"name": "digits", "partition": {"scheme": "IID"}},
        "clientGroups": [{"name": "clients", "replicas": 3}],
        "aggregator": {"replicas": 3},
        "evaluation": {"modes": []},
    },
}


def replication(folder: Path, *, quick: bool) -> Section:
    """Seconds from the last report to the commit of a round of 100 MB, without standbys and with two on the same disk.

    The two take turns, so that what else the machine does meets them alike. The standbys have caught up each time.
    """
    rounds = 3 if quick else 8
    model, update = model_and_update()
    digest = xxh3_of(update)
    alone: list[float] = []
    replicated: list[float] = []
    with ExitStack() as stack:
        first = stack.enter_context(aggregator(folder / "alone"))
        several = [stack.enter_context(aggregator(folder / name, replica=name)) for name in NAMES]
        _appoint(several)
        sides = []
        for child, seconds in ((first, alone), (several[0], replicated)):
            calls = stack.enter_context(closing(Rounds(child)))
            calls.start_with(model)
            sides.append((calls, stack.enter_context(closing(Connection(child.url))), seconds))
        for number in range(1, rounds + 1):
            for calls, connection, seconds in sides:
                _wait_equal(several, number - 1)
                calls.open(number, 1)
                calls.upload(connection, number, 0, update, digest)
                began = time.perf_counter()
                calls.wait_committed(number)
                if number > 1:  # in the first one memory is mapped and the kernels are compiled
                    seconds.append(time.perf_counter() - began)
            _wait_equal(several, number)
    rows = (
        Row(name="commit of 100 MB, one aggregator", unit="s", values=tuple(alone)),
        Row(name="commit of 100 MB, two standbys on the same disk", unit="s", values=tuple(replicated)),
    )
    ratio = rows[1].median / rows[0].median
    check = Check(name="cost of two standbys", value=ratio, unit="x", goal=MOST_RATIO)
    return Section(name="replication", title="Commit with standbys", rows=rows, checks=(check,))


def _appoint(several: list[Child]) -> None:
    leader = several[0]
    leadership = Leadership(
        job_uid=JOB,
        term=1,
        replicas=NAMES,
        leader=NAMES[0],
        leader_boot_id=leader.boot_id,
        leader_url=leader.url,
    )
    for child in several:
        with closing(Connection(child.url)) as connection:
            body = leadership.model_dump_json(by_alias=True).encode()
            connection.call("PUT", routes.LEADERSHIP_PATH, body, Content_Type="application/json")


def _wait_equal(several: list[Child], number: int) -> None:
    """Wait until all aggregators hold a round."""
    deadline = time.monotonic() + RUN_SECONDS
    for child in several:
        with closing(Connection(child.url)) as connection:
            while True:
                state = json.loads(connection.call("GET", routes.STATE_PATH))
                newest = state["replica"]["newest"]
                if (-1 if newest is None else newest["round"]) >= number or number < 0:
                    break
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{child.url} does not hold round {number}")
                time.sleep(LOOK_SECONDS)


def failover(folder: Path, *, quick: bool) -> Section:
    """Seconds from SIGKILL of the leader to the next committed round of a `fedjob run` with three aggregators."""
    kills = 3 if quick else 10
    seconds: list[float] = []
    with _run(folder) as run:
        for _ in range(kills):
            status = _until(run, folder, _is_calm)
            leader = _leader_process(run, status["aggregator"]["leader"])
            began = time.perf_counter()
            leader.kill()
            leader.wait()
            committed = _status(folder)["rounds"]["committed"]
            _until(run, folder, lambda status, least=committed: status["rounds"]["committed"] > least)
            seconds.append(time.perf_counter() - began)
    row = Row(name="leader killed -> next round committed", unit="s", values=tuple(seconds), note="three aggregators")
    check = Check(name="leader killed -> next round committed", value=row.median, unit="s", goal=MOST_SECONDS)
    return Section(name="failover", title="A standby in place of the leader", rows=(row,), checks=(check,))


@contextmanager
def _run(folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    manifest = folder / "job.yaml"
    manifest.write_text(json.dumps(MANIFEST), encoding="utf-8")
    command = [sys.executable, "-m", "fedjob", "run", str(manifest), "--dir", str(folder / "run")]
    with (folder / "run.log").open("wb") as log:
        run = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder)
    try:
        yield run
    finally:
        run.terminate()
        run.wait()


def _status(folder: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads((folder / "run" / "job.json").read_bytes())
    except FileNotFoundError:
        return {}
    status: dict[str, Any] = document.get("status", {})
    return status


def _until(run: "subprocess.Popen[bytes]", folder: Path, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Wait for a status; return it."""
    deadline = time.monotonic() + RUN_SECONDS
    while run.poll() is None and time.monotonic() < deadline:
        status = _status(folder)
        if status and holds(status):
            return status
        time.sleep(LOOK_SECONDS)
    raise RuntimeError(f"the run ended, or hangs: {(folder / 'run.log').read_text(encoding='utf-8')[-2000:]}")


def _is_calm(status: dict[str, Any]) -> bool:
    """Whether a leader and both standbys are there and hold nearly the same."""
    known, committed = status.get("aggregator", {}), status["rounds"]["committed"]
    standbys = [item["committed"] for item in known.get("standbys", [])]
    are_near = len(standbys) == len(NAMES) - 1 and min(standbys) >= committed - 3
    return bool(known.get("bootId")) and known.get("replicas") == len(NAMES) and are_near and committed > 3


def _leader_process(run: "subprocess.Popen[bytes]", leader: str) -> psutil.Process:
    match = re.search(r"-aggregator-(\d+)-\d+$", leader)
    assert match is not None, leader
    name = "aggregator" if match[1] == "0" else f"aggregator-{match[1]}"
    for child in psutil.Process(run.pid).children(recursive=True):
        words = child.cmdline()
        if "fedjob_aggregator" in words and Path(words[words.index("--dir") + 1]).name == name:
            return child
    raise RuntimeError(f"there is no process of {leader}")
