"""Uploads of 100 MB to the real aggregator beside a plain socket receive, and the memory that they take."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from aggregator import MODEL_BYTES, Connection, Rounds, aggregator, model_and_update
from children import HERE, server
from machine import shared_memory_bytes, status_bytes
from report import Check, Row, Section

from fedjob_protocol.digests import xxh3_of

UPLOADS_PER_ROUND: Final = 5
AT_ONCE: Final = 5
SAMPLE_SECONDS: Final = 0.002
MIB: Final = 1 << 20
GIGABYTE: Final = 1e9

Send: TypeAlias = Callable[[memoryview], float]
"""Sends a body and returns the seconds until it was received."""


def upload_rate(folder: Path, *, quick: bool) -> Section:
    """Rates in GB/s: plain socket, and received, verified and folded with staging in memory and on disk.

    The three take turns, so that what else the machine does meets them alike. The digest is computed beforehand.
    """
    rounds = 2 if quick else 4
    model, update = model_and_update()
    digest = xxh3_of(update)
    plain: list[float] = []
    in_memory: list[float] = []
    on_disk: list[float] = []
    with (
        _plain_sender(folder) as send,
        aggregator(folder / "memory") as first,
        aggregator(folder / "disk", staging_bytes=0) as second,
        closing(Rounds(first)) as memory_rounds,
        closing(Rounds(second)) as disk_rounds,
        closing(Connection(first.url)) as memory_connection,
        closing(Connection(second.url)) as disk_connection,
    ):
        memory_rounds.start_with(model)
        disk_rounds.start_with(model)
        for number in range(1, rounds + 1):
            memory_rounds.open(number, UPLOADS_PER_ROUND)
            disk_rounds.open(number, UPLOADS_PER_ROUND)
            for client in range(UPLOADS_PER_ROUND):
                plain.append(send(update))
                in_memory.append(memory_rounds.upload(memory_connection, number, client, update, digest))
                on_disk.append(disk_rounds.upload(disk_connection, number, client, update, digest))
            memory_rounds.wait_committed(number)
            disk_rounds.wait_committed(number)
    rows = tuple(
        Row(name=name, unit="GB/s", values=tuple(len(update) / seconds / GIGABYTE for seconds in values))
        for name, values in (
            ("plain socket, received and dropped", plain),
            ("aggregator, staged in memory, folded", in_memory),
            ("aggregator, staged on disk, folded", on_disk),
        )
    )
    share = 100 * rows[1].median / rows[0].median
    disk_share = 100 * rows[2].median / rows[0].median
    return Section(
        name="upload",
        title="Upload of 100 MB: received, verified, folded",
        rows=(*rows, Row(name="on disk, of the plain socket", unit="%", values=(disk_share,))),
        checks=(Check(name="in memory, of the plain socket", value=share, unit="%", goal=40, at_most=False),),
    )


def memory(folder: Path, *, quick: bool) -> Section:
    """Peak memory of the aggregator over idle, by the number of updates of 100 MB; five arrive at once."""
    counts = (5, 10) if quick else (5, 20, 50)
    model, update = model_and_update()
    digest = xxh3_of(update)
    grown = {}
    idle = {}
    for count in counts:
        idle[count], grown[count] = _growth(folder / f"updates-{count}", model, update, digest, count)
    rows = tuple(
        Row(
            name=f"{count} updates, {AT_ONCE} at once: over idle",
            unit="MB",
            values=(grown[count] / 1e6,),
            note=f"idle {idle[count] / 1e6:.0f} MB",
        )
        for count in counts
    )
    allowed = (4 * MODEL_BYTES + AT_ONCE * 2 * MIB) / 1e6
    few, many = grown[counts[0]], grown[counts[-1]]
    return Section(
        name="memory",
        title="Aggregator memory (VmHWM and shared memory) for a model of 100 MB",
        rows=rows,
        checks=(
            Check(name="largest growth", value=max(grown.values()) / 1e6, unit="MB", goal=allowed),
            Check(name=f"{counts[-1]} against {counts[0]} updates", value=100 * abs(many / few - 1), unit="%", goal=5),
        ),
    )


def _growth(folder: Path, model: memoryview, update: memoryview, digest: str, count: int) -> tuple[int, int]:
    """Idle memory of a fresh aggregator, and what one round of ``count`` updates adds at its peak, in bytes."""
    with aggregator(folder) as child, closing(Rounds(child)) as rounds:
        idle = status_bytes(child.pid, "VmHWM")
        with _shared_memory_peak() as shared:
            rounds.start_with(model)
            rounds.open(1, count)
            mine = threading.local()
            opened: list[Connection] = []

            def upload(client: int) -> None:
                if not hasattr(mine, "connection"):
                    mine.connection = Connection(child.url)
                    opened.append(mine.connection)
                rounds.upload(mine.connection, 1, client, update, digest)

            with ThreadPoolExecutor(AT_ONCE) as pool:
                list(pool.map(upload, range(count)))
            rounds.wait_committed(1)
            for connection in opened:
                connection.close()
        return idle, status_bytes(child.pid, "VmHWM") - idle + shared[0]


@contextmanager
def _plain_sender(folder: Path) -> Iterator[Send]:
    with server([str(HERE / "plain_receiver.py")], folder / "plain.log") as child:
        parts = urlsplit(child.url)
        with socket.create_connection((str(parts.hostname), int(parts.port or 0))) as connection:

            def send(body: memoryview) -> float:
                began = time.perf_counter()
                connection.sendall(len(body).to_bytes(8, "little"))
                connection.sendall(body)
                connection.recv(1)
                return time.perf_counter() - began

            yield send


@contextmanager
def _shared_memory_peak() -> Iterator[list[int]]:
    """Sample the machine's shared memory; the list holds the largest growth in bytes when the block has ended."""
    before = shared_memory_bytes()
    peak = [0]
    over = threading.Event()

    def sample() -> None:
        while not over.wait(SAMPLE_SECONDS):
            peak[0] = max(peak[0], shared_memory_bytes() - before)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()
