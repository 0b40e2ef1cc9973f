"""Clients that somebody had replaced: asked once or twice, remembered over a restart, refused when it cannot be."""

import asyncio
import errno

import pytest

from fedjob_aggregator.disk import Disk
from fedjob_aggregator.replacements import REPLACED_FILE, Replacements
from fedjob_protocol.errors import Refusal, Word


class Full(Disk):
    def write_new(self, path, blocks):
        raise OSError(errno.ENOSPC, "No space left on device")


def known(replacements):
    return {entry.client: entry.generation for entry in replacements.listed().clients}


def replaced(replacements, client, generation=0):
    return asyncio.run(replacements.replace(client, generation)).generation


def test_a_client_is_replaced_once_however_often_it_is_asked_for(tmp_path):
    replacements = Replacements(tmp_path)
    assert [replaced(replacements, 3) for _ in range(3)] == [1, 1, 1]
    assert known(replacements) == {3: 1}


def test_the_replacement_is_replaced_when_its_generation_is_named(tmp_path):
    replacements = Replacements(tmp_path)
    assert [replaced(replacements, 3), replaced(replacements, 3, 1), replaced(replacements, 3, 0)] == [1, 2, 2]


def test_requests_at_the_same_time_replace_once(tmp_path):
    replacements = Replacements(tmp_path)

    async def many():
        return await asyncio.gather(*(replacements.replace(3, 0) for _ in range(20)))

    assert {answer.generation for answer in asyncio.run(many())} == {1}


def test_what_was_answered_survives_a_restart(tmp_path):
    replaced(Replacements(tmp_path), 3)
    again = Replacements(tmp_path)
    assert known(again) == {3: 1}
    assert replaced(again, 3) == 1


def test_a_full_disk_refuses_and_changes_nothing(tmp_path):
    replacements = Replacements(tmp_path, Full())
    with pytest.raises(Refusal) as refusal:
        replaced(replacements, 3)
    assert refusal.value.word is Word.STORAGE_FULL
    assert known(replacements) == {}


@pytest.mark.parametrize("content", [b"", b"{", b'{"clients":[{"client":-1,"generation":1}]}', b"\xff" * 100])
def test_a_damaged_file_counts_as_empty(tmp_path, content):
    (tmp_path / REPLACED_FILE).write_bytes(content)
    replacements = Replacements(tmp_path)
    assert known(replacements) == {}
    assert replaced(replacements, 3) == 1
