"""Calls to programs of the release before, of another release, and through the API server's proxy."""

from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from fedjob_operator.adapters import http
from fedjob_operator.adapters.http import HttpPrograms
from fedjob_operator.adapters.kube.cache import PodCache
from fedjob_operator.adapters.kube.reach import through_api_server
from fedjob_operator.core.actions import ReadState
from fedjob_operator.ports import CallError
from fedjob_protocol import version
from fedjob_protocol.errors import PROBLEM_MEDIA_TYPE, Refusal, Word
from fedjob_protocol.routes import PROTOCOL_HEADER, TOKEN_HEADER
from tests.support.builders import seen
from tests.unit.controller.kube.pod_documents import JOB_UID, ready

STATE = seen().aggregator().observed.state.model_dump_json(by_alias=True)


class Program:
    """Speaks its versions of the protocol, and says the newest of them with every answer."""

    def __init__(self, oldest, newest):
        self.oldest, self.newest = oldest, newest
        self.asked = []
        self.paths = []
        self.headers = []

    async def answer(self, request):
        asked = int(request.headers[PROTOCOL_HEADER])
        self.asked.append(asked)
        self.paths.append(request.path_qs)
        self.headers.append(request.headers)
        headers = {PROTOCOL_HEADER: str(self.newest)}
        if not self.oldest <= asked <= self.newest:
            problem = Refusal(Word.UNSUPPORTED_PROTOCOL, f"the peer speaks {asked}").problem()
            return web.Response(
                status=426, body=problem.model_dump_json(), content_type=PROBLEM_MEDIA_TYPE, headers=headers
            )
        return web.Response(body=STATE, content_type="application/json", headers=headers)


@asynccontextmanager
async def serving(program):
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", program.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with aiohttp.ClientSession() as session:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}", session
    finally:
        await runner.cleanup()


@pytest.fixture
def speaking_5(monkeypatch):
    """As if this were a later release, that speaks 5 and 4."""
    monkeypatch.setattr(http, "PROTOCOL_VERSION", 5)
    monkeypatch.setattr(http, "OLDEST_SUPPORTED", 4)
    monkeypatch.setattr(version, "PROTOCOL_VERSION", 5)
    monkeypatch.setattr(version, "OLDEST_SUPPORTED", 4)


async def call(session, url):
    return await HttpPrograms(session, token="t").perform(ReadState(url=url, incarnation="i"))


@pytest.mark.usefixtures("speaking_5")
async def test_a_program_of_the_release_before_is_spoken_to_in_its_version():
    program = Program(3, 4)
    async with serving(program) as (url, session):
        programs = HttpPrograms(session, token="t")
        for _ in range(3):
            await programs.perform(ReadState(url=url, incarnation="i"))
    assert program.asked == [5, 4, 4, 4]


@pytest.mark.usefixtures("speaking_5")
@pytest.mark.parametrize(("oldest", "newest"), [(2, 3), (6, 7)], ids=["too old", "too new"])
async def test_a_program_of_another_release_is_refused_with_the_word_for_it(oldest, newest):
    program = Program(oldest, newest)
    async with serving(program) as (url, session):
        with pytest.raises(CallError) as caught:
            await call(session, url)
    assert caught.value.word == Word.UNSUPPORTED_PROTOCOL
    assert program.asked == [5]


@pytest.mark.usefixtures("speaking_5")
async def test_a_program_that_answers_in_another_version_is_refused_too():
    program = Program(5, 6)  # it understands us; what it answers may mean something else
    async with serving(program) as (url, session):
        with pytest.raises(CallError, match="the peer speaks protocol '6'") as caught:
            await call(session, url)
    assert caught.value.word == Word.UNSUPPORTED_PROTOCOL


@pytest.mark.usefixtures("speaking_5")
async def test_a_program_replaced_by_a_newer_one_is_spoken_to_anew():
    program = Program(3, 4)
    async with serving(program) as (url, session):
        programs = HttpPrograms(session, token="t")
        await programs.perform(ReadState(url=url, incarnation="i"))
        program.oldest, program.newest = 4, 5
        await programs.perform(ReadState(url=url, incarnation="j"))


@pytest.mark.usefixtures("speaking_5")
async def test_programs_of_the_release_before_do_not_pile_up(monkeypatch):
    monkeypatch.setattr(http, "MAX_OLDER", 1)
    program = Program(3, 4)
    async with serving(program) as (url, session):
        programs = HttpPrograms(session, token="t")
        await programs.perform(ReadState(url=url, incarnation="i"))
        await programs.perform(ReadState(url=url.replace("127.0.0.1", "localhost"), incarnation="i"))
        assert len(programs._older) == 1


# Through the API server


def test_a_pods_url_becomes_that_of_the_proxy_to_it():
    cache = PodCache(lambda _: None)
    cache.replace(JOB_UID, [ready(index=3)], mark=0)
    url = cache.pods(JOB_UID)[0].url
    via = through_api_server("https://api:6443", cache)
    base = "https://api:6443/api/v1/namespaces/lab/pods/mnist-client-3-0:"
    port = url.rpartition(":")[2]
    assert via(f"{url}/v1/rounds/3?wait=5") == f"{base}{port}/proxy/v1/rounds/3?wait=5"
    assert via(f"{url}/v1/info") == f"{base}{port}/proxy/v1/info"


def test_where_nobody_answers_there_is_no_way():
    with pytest.raises(CallError, match="no pod that is ready answers there"):
        through_api_server("https://api", PodCache(lambda _: None))("http://10.0.0.9:1/v1/state")


async def test_calls_take_the_detour_with_the_jobs_token():
    program = Program(1, 1)
    async with serving(program) as (server, session):
        cache = PodCache(lambda _: None)
        cache.replace(JOB_UID, [ready(index=3)], mark=0)
        programs = HttpPrograms(session, token="secret", via=through_api_server(server, cache))
        url = cache.pods(JOB_UID)[0].url
        await programs.perform(ReadState(url=url, incarnation="i"))
    assert program.paths[0].startswith("/api/v1/namespaces/lab/pods/mnist-client-3-0:")
    assert program.paths[0].endswith("/proxy/v1/state")
    assert program.headers[0][TOKEN_HEADER] == "secret"
