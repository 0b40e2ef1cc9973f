"""The resource of a local run in its file: replaced as a whole or not at all."""

import asyncio
import errno
import json
import os
from pathlib import Path

import pytest

from fedjob_operator.adapters.local import JobFile
from fedjob_operator.api.v1alpha1 import Metric
from fedjob_operator.ports import StatusConflictError, StoreUnavailableError
from tests.support.builders import a_job, seen, settled

JOB = a_job().saying(term=0).build()
RICH = settled(a_job().evaluated().objective().in_round(1, 0, 1, 2), seen().aggregator(committed=0).ready(0, 1, 2))[0]


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "job.json"


def write(store, job, **fields):
    return asyncio.run(store.write_status(job, job.status.model_copy(update=fields)))


def test_what_is_written_is_read_again(path):
    written = JobFile(path).create(RICH)
    assert JobFile(path).load() == written
    assert written.spec == RICH.spec
    assert written.status == RICH.status


def test_the_file_is_the_resource_as_an_api_server_would_hold_it(path):
    JobFile(path).create(RICH)
    document = json.loads(path.read_text(encoding="utf-8"))
    assert (document["apiVersion"], document["kind"]) == ("fedjob.dev/v1alpha1", "FederatedJob")
    assert document["status"]["currentRound"]["bootId"] == "boot-a"
    assert document["status"]["startTime"].startswith("2026-01-01T00:00:00")
    assert "best" not in document["status"]


def test_every_write_is_a_new_version(path):
    store = JobFile(path)
    first = store.create(JOB)
    second = write(store, first, term=1)
    third = write(store, second, term=2)
    versions = [int(job.metadata.resource_version) for job in (first, second, third)]
    assert versions == [versions[0], versions[0] + 1, versions[0] + 2]
    assert JobFile(path).load().status.term == 2


def test_a_write_on_an_old_version_is_refused_and_changes_nothing(path):
    store = JobFile(path)
    old = store.create(JOB)
    write(store, old, term=1)
    before = path.read_bytes()
    with pytest.raises(StatusConflictError, match="is version"):
        write(store, old, term=7)
    assert path.read_bytes() == before


def test_a_job_that_is_gone_is_none(path):
    assert asyncio.run(JobFile(path).read()) is None


def test_reading_takes_the_version_along(path):
    JobFile(path).create(JOB)
    store = JobFile(path)
    job = asyncio.run(store.read())
    assert write(store, job, term=3).status.term == 3


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file(path, monkeypatch, broken):
    store = JobFile(path)
    job = store.create(JOB)
    before = path.read_bytes()

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((os, "fsync") if broken == "fsync" else (Path, "replace")), refuse)
    with pytest.raises(Exception, match="No space left on device"):
        write(store, job, term=1)
    assert path.read_bytes() == before
    monkeypatch.undo()
    assert write(store, job, term=1).status.term == 1


def test_what_a_crash_left_half_written_is_not_read_and_not_in_the_way(path):
    store = JobFile(path)
    job = store.create(JOB)
    path.with_name("job.json.new").write_bytes(b'{"apiVersion": "fedjob.')
    assert JobFile(path).load() == job
    assert write(store, job, term=1).status.term == 1
    assert JobFile(path).load().status.term == 1


def test_the_new_file_is_durable_before_it_takes_the_place_of_the_old(path, monkeypatch):
    steps = []
    real_sync, real_replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda file: (steps.append("sync"), real_sync(file)))
    monkeypatch.setattr(Path, "replace", lambda source, target: (steps.append("replace"), real_replace(source, target)))
    JobFile(path).create(JOB)
    assert steps[:2] == ["sync", "replace"]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b'{"apiVersion": "fedjob.', id="cut off"),
        pytest.param(b"\xff\xfe\x00", id="no text"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"null", id="null"),
        pytest.param(b'{"apiVersion": "v1", "kind": "Pod"}', id="another kind"),
        pytest.param(b'{"apiVersion": "fedjob.dev/v1alpha1", "kind": "FederatedJob", "metadata": {}}', id="no spec"),
    ],
)
def test_a_damaged_file_is_a_value_error(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r".+"):
        JobFile(path).load()


def test_an_edited_field_is_a_value_error_that_names_it(path):
    JobFile(path).create(JOB)
    document = json.loads(path.read_bytes())
    document["spec"]["rounds"] = "many"
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(ValueError, match=r"spec\.rounds"):
        JobFile(path).load()


def test_fields_of_a_newer_release_in_the_status_are_ignored(path):
    JobFile(path).create(JOB)
    document = json.loads(path.read_bytes())
    document["status"]["weather"] = "fine"
    path.write_text(json.dumps(document), encoding="utf-8")
    assert JobFile(path).load().status == JOB.status


def test_numbers_come_back_to_the_last_bit(path):
    metrics = (Metric(name="accuracy", value=0.1 + 0.2), Metric(name="loss", value=1e-300))
    written = JobFile(path).create(
        RICH.model_copy(update={"status": RICH.status.model_copy(update={"metrics": metrics})})
    )
    assert JobFile(path).load().status.metrics == written.status.metrics == metrics


async def test_a_disk_that_refuses_is_waited_for_not_fatal(tmp_path, monkeypatch):
    store = JobFile(tmp_path / "job.json")
    job = store.create(a_job().build())
    before = (tmp_path / "job.json").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreUnavailableError, match="No space left"):
        await store.write_status(job, job.status.model_copy(update={"term": 5}))

    assert (tmp_path / "job.json").read_bytes() == before


async def test_a_file_that_cannot_be_read_now_is_waited_for(tmp_path):
    path = tmp_path / "job.json"
    path.mkdir()

    with pytest.raises(StoreUnavailableError, match="cannot be read"):
        await JobFile(path).read()


def test_a_version_that_is_no_number_is_damage(tmp_path):
    path = tmp_path / "job.json"
    JobFile(path).create(a_job().build())
    document = json.loads(path.read_text())
    document["metadata"]["resourceVersion"] = "soon"
    path.write_text(json.dumps(document))

    with pytest.raises(ValueError, match="resourceVersion is 'soon'"):
        JobFile(path).load()
