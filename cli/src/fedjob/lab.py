"""``fedjob lab``: clients and an aggregator on fixed ports, to be talked to with curl."""

import os
import signal
import subprocess
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path

from fedjob.child import Program
from fedjob.failure import EXIT_USAGE, Failure
from fedjob.progress import say
from fedjob_protocol.process import CannotListenError, listen

HOST = "127.0.0.1"


def run_lab(*, clients: int, client_port: int, aggregator_port: int, folder: Path | None) -> None:
    """Start the lab and wait until it is interrupted or one of its programs ends.

    Args:
        clients: Number of clients.
        client_port: Port of the first; the others follow.
        aggregator_port: Port of the aggregator.
        folder: The aggregator's folder; absent means a temporary one.

    Raises:
        Failure: A port is in use, or a program ended.
    """
    ports = range(client_port, client_port + clients)
    if aggregator_port in ports or ports[-1] > 65535:
        raise Failure("the ports of the clients and of the aggregator must be different", exit_code=EXIT_USAGE)
    for port, option in ((aggregator_port, "--aggregator-port"), *((port, "--client-port") for port in ports)):
        _check_free(port, option)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with tempfile.TemporaryDirectory(prefix="fedjob-lab-") as scratch, ExitStack() as stack:
        logs = Path(scratch)
        place = folder or logs / "aggregator"
        arguments = ["--host", HOST, "--port", str(aggregator_port), "--dir", str(place)]
        log = logs / "aggregator.log"
        programs = [stack.enter_context(Program("fedjob_aggregator", arguments, environment=os.environ, log=log))]
        for index, port in enumerate(ports):
            arguments = ["--host", HOST, "--port", str(port), "--index", str(index)]
            log = logs / f"client-{index}.log"
            programs.append(stack.enter_context(Program("fedjob_client", arguments, environment=os.environ, log=log)))
        _explain([program.url() for program in programs])
        _wait(stop, [program.process for program in programs])


def _check_free(port: int, option: str) -> None:
    """Say which option of ours leads to another port; the programs only know that of their own.

    Raises:
        Failure: The port is in use.
    """
    try:
        listen(HOST, port).close()
    except CannotListenError as error:
        why = error.__cause__.strerror if isinstance(error.__cause__, OSError) else error
        raise Failure(f"cannot listen on {HOST}:{port}: {why}; choose other ports with {option}") from error


def _explain(urls: list[str]) -> None:
    aggregator, *clients = urls
    say(f"aggregator  {aggregator}")
    for url in clients:
        say(f"client      {url}")
    say("try:")
    say(f"  curl -X POST {clients[0]}/train")
    entries = ", ".join('{"w": 3.5, "b": 1.27}' for _ in clients)
    say(f"  curl -X POST {aggregator}/aggregate -H 'Content-Type: application/json' -d '{{\"clients\": [{entries}]}}'")
    say("Ctrl-C ends the lab")


def _wait(stop: threading.Event, processes: list[subprocess.Popen[bytes]]) -> None:
    """Wait for a signal, or for a program that ends by itself."""
    ended: list[subprocess.Popen[bytes]] = []

    def watch(process: subprocess.Popen[bytes]) -> None:
        process.wait()
        ended.append(process)
        stop.set()

    for process in processes:
        threading.Thread(target=watch, args=(process,), daemon=True).start()
    # In slices, so that a signal's handler runs on every operating system.
    while not stop.wait(1.0):
        continue
    early = [process for process in ended if process.returncode not in (0, None)]
    if early:
        raise Failure(f"a program of the lab ended with exit code {early[0].returncode}")
