"""The watches: what is heard, and that they go on whatever the API server does."""

import asyncio
import logging
from contextlib import asynccontextmanager

import pytest

from fedjob_operator import handlers
from fedjob_operator.adapters.kube.login import log_in
from fedjob_operator.handlers import Listener, Watches
from tests.integration.operator.http_api import JOBS, PODS, HttpApi, kubeconfig, serving
from tests.unit.controller.kube.pod_documents import pod


def job(name="mnist", version="5"):
    return {
        "apiVersion": "fedjob.dev/v1alpha1",
        "kind": "FederatedJob",
        "metadata": {"name": name, "namespace": "lab", "uid": f"uid-{name}", "resourceVersion": version},
        "spec": {},
    }


async def eventually(look, seconds=20):
    async with asyncio.timeout(seconds):
        while not look():  # noqa: ASYNC110 - what is looked at is another thread's
            await asyncio.sleep(0.02)


class Heard:
    def __init__(self):
        self.jobs, self.pods, self.lists = [], [], 0

    def job(self, document, is_deleted):
        self.jobs.append((document["metadata"]["name"], document["metadata"]["resourceVersion"], is_deleted))

    def pod(self, document, is_deleted):
        self.pods.append((document["metadata"]["name"], is_deleted))

    def listed(self):
        self.lists += 1


@asynccontextmanager
async def watching(tmp_path, api, **options):
    heard = Heard()
    loop = asyncio.get_running_loop()
    config = kubeconfig(tmp_path, api.url)
    listener = Listener(loop=loop, job=heard.job, pod=heard.pod, pods_listed=heard.listed)
    watches = Watches(lambda: log_in(config, None), listener, namespaces=options.pop("namespaces", ()))
    watches.start()
    try:
        yield heard, watches
    finally:
        began = loop.time()
        await asyncio.to_thread(watches.stop)
        assert not watches._thread.is_alive()
        assert loop.time() - began < handlers.STOP_SECONDS


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(handlers, "RESTART_SECONDS", 0.1)


async def test_what_is_there_and_what_comes_and_goes_is_heard(tmp_path):
    async with serving(HttpApi()) as api:
        api.objects = {JOBS: [job()], PODS: [pod()]}
        async with watching(tmp_path, api) as (heard, watches):
            await eventually(lambda: heard.jobs and heard.pods)
            assert heard.jobs == [("mnist", "5", False)]
            assert heard.lists == 1
            assert watches.is_ready
            await eventually(lambda: api.watching(JOBS) and api.watching(PODS))
            api.send(JOBS, "MODIFIED", job(version="6"))
            api.send(PODS, "DELETED", pod())
            await eventually(lambda: len(heard.jobs) == len(heard.pods) == 2)
            api.send(JOBS, "DELETED", job(version="7"))
            await eventually(lambda: len(heard.jobs) == 3)
    assert heard.jobs[1:] == [("mnist", "6", False), ("mnist", "7", True)]
    assert heard.pods == [("mnist-client-3-0", False), ("mnist-client-3-0", True)]
    selector = api.queries[PODS]["labelSelector"]
    assert selector == "app.kubernetes.io/managed-by=fedjob-operator,fedjob.dev/job-uid"


async def test_nothing_is_ever_written(tmp_path):
    async with serving(HttpApi()) as api:
        api.objects = {JOBS: [job()], PODS: [pod()]}
        async with watching(tmp_path, api) as (heard, _):
            await eventually(lambda: heard.jobs and heard.pods)
            await asyncio.sleep(0.3)
    assert {method for method, *_ in api.requests} == {"GET"}


async def test_deletions_lost_in_a_gap_are_hinted_at(tmp_path):
    async with serving(HttpApi()) as api:
        api.objects[PODS] = [pod()]
        async with watching(tmp_path, api) as (heard, _):
            await eventually(lambda: api.watching(PODS))
            gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
            api.send(PODS, "ERROR", gone)
            await eventually(lambda: heard.lists == 2)


@pytest.mark.parametrize("code", [500, 403, 400])
async def test_an_error_in_a_watch_ends_no_more_than_that_watch(tmp_path, code, caplog):
    async with serving(HttpApi()) as api:
        api.objects[JOBS] = [job()]
        async with watching(tmp_path, api) as (heard, _):
            await eventually(lambda: api.watching(JOBS))
            with caplog.at_level(logging.WARNING, logger="fedjob_operator"):
                api.send(JOBS, "ERROR", {"kind": "Status", "code": code, "message": "etcd"})
                await eventually(lambda: len(heard.jobs) >= 2)
            await eventually(lambda: api.opened[JOBS] == 2)
            api.send(JOBS, "MODIFIED", job(version="9"))
            await eventually(lambda: heard.jobs[-1] == ("mnist", "9", False))
    assert any("the watches ended and begin again" in record.message for record in caplog.records)


async def test_a_connection_that_breaks_is_made_again(tmp_path):
    async with serving(HttpApi()) as api, watching(tmp_path, api) as (heard, _):
        for count, version in enumerate(("6", "7"), start=1):
            await eventually(lambda count=count: api.opened[JOBS] == count)
            api.send(JOBS, "MODIFIED", job(version=version))
            await eventually(lambda version=version: heard.jobs and heard.jobs[-1][1] == version)
            api.break_off(JOBS)


async def test_without_its_crd_it_waits_until_that_is_applied(tmp_path, caplog):
    async with serving(HttpApi()) as api:
        api.is_crd_there = False
        api.objects[JOBS] = [job()]
        with caplog.at_level(logging.WARNING, logger="fedjob_operator"):
            async with watching(tmp_path, api) as (heard, watches):
                await eventually(lambda: "apply its CRD" in caplog.text)
                assert not watches.is_ready
                api.is_crd_there = True
                await eventually(lambda: heard.jobs)


async def test_nobody_there_is_waited_for(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("fedjob_operator.adapters.kube.client.DEADLINE_SECONDS", 0.1)
    api = HttpApi()
    api.url = "http://127.0.0.1:1"
    with caplog.at_level(logging.WARNING, logger="fedjob_operator"):
        async with watching(tmp_path, api) as (_, watches):
            await eventually(lambda: caplog.text.count("begin again") >= 2)
            assert not watches.is_ready


async def test_only_the_named_namespaces_are_watched(tmp_path):
    async with serving(HttpApi()) as api:
        async with watching(tmp_path, api, namespaces=("lab",)):
            wanted = "/apis/fedjob.dev/v1alpha1/namespaces/lab/federatedjobs"
            await eventually(lambda: any(path.startswith(wanted) for _, path, *_ in api.requests))
        assert not any(path.startswith((JOBS, PODS)) for _, path, *_ in api.requests)
