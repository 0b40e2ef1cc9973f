"""Where uploads wait: memory within the budget, a nameless file beyond; nothing lost, nothing left behind."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjob_aggregator.reception import Reception
from fedjob_aggregator.staging import (
    DISK_BLOCK_BYTES,
    MEMORY_BLOCK_BYTES,
    DiskSink,
    HeldBytes,
    MemorySink,
    StagingArea,
    read_blocks,
)
from fedjob_protocol.errors import Refusal, Word

MIB = 1 << 20


def body_of(length):
    return np.random.default_rng(length).integers(0, 256, length, dtype=np.uint8).tobytes()


def pump(sink, body, step):
    """Fill a sink and empty it in turn; return what was taken."""
    taken, position = [], 0
    while position < len(body):
        space = sink.space()
        count = min(step, len(space), len(body) - position)
        space[:count] = body[position : position + count]
        sink.advance(count)
        position += count
        while (block := sink.take()) is not None:
            taken.append(bytes(block))
            sink.store(block)
            sink.release()
    return taken


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 3 * DISK_BLOCK_BYTES),
    st.integers(1000, 2 * DISK_BLOCK_BYTES),
    st.booleans(),
    st.integers(0, 100),
)
def test_what_goes_in_comes_out(tmp_path_factory, length, step, on_disk, begin):
    folder = tmp_path_factory.mktemp("staging")
    body = body_of(length)
    sink = StagingArea(folder, 0 if on_disk else length).open(length)
    assert isinstance(sink, DiskSink if on_disk else MemorySink)
    taken = pump(sink, body, step)
    assert b"".join(taken) == body
    assert all(len(block) % 8 == 0 for block in taken[:-1])
    begin = min(begin, length)
    assert b"".join(bytes(block) for block in sink.blocks(begin, length)) == body[begin:]
    assert list(folder.iterdir()) == []
    sink.close()
    sink.close()


def test_memory_is_worked_on_in_large_blocks_only():
    area = StagingArea(None, 10 * MIB)
    sink = area.open(10 * MIB)
    sink.advance(MEMORY_BLOCK_BYTES - 1)
    assert sink.take() is None
    sink.advance(2)
    assert len(sink.take()) == MEMORY_BLOCK_BYTES
    sink.advance(sink.space().nbytes)
    assert len(sink.take()) == 10 * MIB - MEMORY_BLOCK_BYTES
    assert sink.take() is None


def test_a_sink_on_disk_takes_two_blocks_and_then_waits(tmp_path):
    sink = DiskSink(tmp_path, 5 * DISK_BLOCK_BYTES)
    for _ in range(2):
        assert len(sink.space()) == DISK_BLOCK_BYTES
        sink.advance(DISK_BLOCK_BYTES)
    assert len(sink.space()) == 0
    sink.store(sink.take())
    assert len(sink.space()) == 0
    sink.release()
    assert len(sink.space()) == DISK_BLOCK_BYTES
    sink.close()


def test_what_exceeds_the_budget_goes_to_disk_and_freed_memory_is_used_again(tmp_path):
    area = StagingArea(tmp_path, 10 * MIB)
    first, second = area.open(6 * MIB), area.open(5 * MIB)
    assert isinstance(first, MemorySink)
    assert isinstance(second, DiskSink)
    third = area.open(4 * MIB)
    assert isinstance(third, MemorySink)
    memory = first.space().obj
    first.close()
    first.close()
    again = area.open(6 * MIB)
    assert again.space().obj is memory
    fourth = area.open(1 * MIB)
    assert isinstance(fourth, DiskSink)
    fourth.close()
    second.close()


def test_the_default_budget_is_one_update_and_at_least_64_mib(tmp_path):
    area = StagingArea(tmp_path, None)
    area.expect(80 * MIB)()
    first = area.open(80 * MIB)
    assert isinstance(first, MemorySink)
    sink = area.open(MIB)
    assert isinstance(sink, DiskSink)
    sink.close()
    first.close()
    small = StagingArea(tmp_path, None)
    assert all(isinstance(small.open(16 * MIB), MemorySink) for _ in range(4))


def test_memory_that_is_still_being_mapped_counts_as_used(tmp_path):
    area = StagingArea(tmp_path, None)
    map_it = area.expect(20 * MIB)
    sink = area.open(20 * MIB)
    assert isinstance(sink, DiskSink)
    sink.close()
    map_it()
    assert isinstance(area.open(20 * MIB), MemorySink)


@pytest.mark.parametrize(("budget", "update"), [(None, 16 * MIB - 1), (MIB, 20 * MIB)])
def test_nothing_is_mapped_ahead_that_is_small_or_beyond_the_budget(tmp_path, budget, update):
    area = StagingArea(tmp_path, budget)
    area.expect(update)()
    assert area._spare is None


def test_a_folder_that_is_gone_is_an_error_of_the_storage(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        StagingArea(tmp_path / "gone", 0).open(MIB)


def test_reading_past_the_end_of_a_file_is_an_error(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10)
    with path.open("rb") as file, pytest.raises(OSError, match="ends at byte 10, 11"):
        list(read_blocks(file, 4, 11, 3))


def test_held_bytes_are_one_block():
    assert [bytes(block) for block in HeldBytes(b"0123456789").blocks(2, 5)] == [b"234"]


class Recorder:
    """A verifier that keeps what it sees, and fails when it is told to."""

    def __init__(self, error=None):
        self.seen = b""
        self.error = error

    def feed(self, block):
        if self.error is not None:
            raise self.error
        self.seen += bytes(block)


async def receive(sink, verifier, body):
    with ThreadPoolExecutor() as workers:
        reception = Reception(sink, verifier, workers)
        position = 0
        while position < len(body):
            await reception.room()
            space = reception.space()
            count = min(len(space), len(body) - position, 300_000)
            space[:count] = body[position : position + count]
            reception.advance(count)
            position += count
        try:
            await asyncio.wait_for(reception.finish(), 10)
        finally:
            await reception.settle()
    return reception


@pytest.mark.parametrize("budget", [0, 16 * MIB])
async def test_a_reception_shows_every_byte_to_the_verifier_in_order(tmp_path, budget):
    body = body_of(9 * MIB + 5)
    sink, verifier = StagingArea(tmp_path, budget).open(len(body)), Recorder()
    reception = await receive(sink, verifier, body)
    assert reception.received_bytes == len(body)
    assert verifier.seen == body
    sink.close()


async def test_a_full_disk_is_said_to_the_sender(tmp_path):
    class Full(DiskSink):
        def store(self, block):
            raise OSError(28, "No space left on device")

    sink = Full(tmp_path, 5 * MIB)
    with pytest.raises(Refusal) as caught:
        await receive(sink, Recorder(), body_of(5 * MIB))
    assert caught.value.word is Word.STORAGE_FULL
    sink.close()


async def test_a_bug_in_the_verifier_is_not_taken_for_a_good_upload(tmp_path):
    sink = StagingArea(tmp_path, 8 * MIB).open(2 * MIB)
    with pytest.raises(ZeroDivisionError):
        await receive(sink, Recorder(ZeroDivisionError()), body_of(2 * MIB))
