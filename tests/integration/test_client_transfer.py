"""The client's side of the aggregator's API, against servers that are real, slow or lying."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import numpy as np
import psutil
import pytest
from aiohttp import web

from fedjob_client.transfer import MAX_ANSWER_BYTES, Parcel, Transfer, TransferError, open_session
from fedjob_client.updates import body_of
from fedjob_client.work import Target
from fedjob_protocol import routes
from tests.integration.client_support import an_aggregator
from tests.support.by_hand import JOB, aggregator

pytestmark = pytest.mark.integration

SECONDS = 20.0


def a_target(upload_url: str, failure_url: str = "", *, boot_id: str = "boot-a") -> Target:
    return Target(term=1, attempt=1, boot_id=boot_id, upload_url=upload_url, failure_url=failure_url, deadline=0.0)


def a_parcel(elements: int = 4) -> Parcel:
    return Parcel(body=body_of({"w": np.ones(elements, dtype=np.float32)}), examples=7)


@pytest.fixture
async def transfer() -> AsyncIterator[Transfer]:
    async with open_session(None) as session:
        yield Transfer(session, job_uid=JOB)


def in_pieces(status: int, *pieces: bytes, length: int | None = None) -> Callable[..., Awaitable[web.StreamResponse]]:
    """Answer with a body whose pieces come later than its head; with a length, that is a lie and the end is cut off."""

    async def behave(request: web.Request) -> web.StreamResponse:
        await request.read()
        total = sum(map(len, pieces)) if length is None else length
        response = web.StreamResponse(status=status, headers={"Content-Length": str(total)})
        await response.prepare(request)
        for piece in pieces:
            await asyncio.sleep(0.01)
            await response.write(piece)
        if length is not None:
            assert request.transport is not None
            request.transport.abort()
        return response

    return behave


def noting(peers: list[object], behave: Callable[..., Awaitable[web.StreamResponse]]) -> Callable[..., object]:
    """Note which connection a request came over."""

    async def note(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        peers.append(request.transport.get_extra_info("peername"))
        return await behave(request)

    return note


async def test_a_connection_is_used_again_when_an_answer_comes_after_its_head(transfer):
    peers: list[object] = []
    async with an_aggregator() as server:
        target = a_target(f"{server.url}/up/a")
        for _ in range(3):
            server.on_upload.append(noting(peers, in_pieces(200, b'{"round"', b": 1}")))
            await transfer.upload(target, a_parcel(), seconds=SECONDS)
    assert len(peers) == 3
    assert len(set(peers)) == 1


@pytest.mark.parametrize("elements", [4, 300_000])
async def test_a_real_aggregator_is_talked_to_over_one_connection(tmp_path, transfer, elements):
    with aggregator(tmp_path) as server:
        server.start_with({"w": np.zeros(elements, dtype=np.float32)})
        url = "http://{}:{}".format(*server.address)
        for number in range(1, 4):
            server.open(number, (0,))
            target = a_target(url + routes.update_path(number, 0), boot_id=server.boot_id)
            await transfer.upload(target, a_parcel(elements), seconds=SECONDS)
            server.committed(number)
        mine = [
            connection.laddr
            for connection in psutil.Process().net_connections("tcp")
            if connection.raddr and tuple(connection.raddr) == server.address
        ]
    assert len(mine) == 1


@pytest.mark.parametrize(
    "behave",
    [in_pieces(200, b"half", length=1000), in_pieces(200, bytes(MAX_ANSWER_BYTES), bytes(MAX_ANSWER_BYTES))],
    ids=["cut off", "too long"],
)
async def test_what_follows_the_head_of_a_success_does_not_make_it_a_failure(transfer, behave):
    async with an_aggregator() as server:
        server.on_upload.append(behave)
        await transfer.upload(a_target(f"{server.url}/up/a"), a_parcel(), seconds=SECONDS)
        await transfer.upload(a_target(f"{server.url}/up/a"), a_parcel(), seconds=SECONDS)
    assert len(server.uploads) == 1


async def test_a_refusal_that_comes_in_pieces_keeps_its_word(transfer):
    problem = b'{"title": "no", "status": 409, "detail": "it says why", "word": "round-closed"}'
    async with an_aggregator() as server:
        server.on_upload.append(in_pieces(409, problem[:20], problem[20:]))
        with pytest.raises(TransferError, match="it says why") as raised:
            await transfer.upload(a_target(f"{server.url}/up/a"), a_parcel(), seconds=SECONDS)
    assert (raised.value.word, raised.value.retryable) == ("round-closed", False)


async def test_a_redirect_is_not_followed(transfer):
    async with an_aggregator() as server, an_aggregator() as other:

        async def elsewhere(_request: web.Request) -> web.StreamResponse:
            return web.Response(status=307, headers={"Location": f"{other.url}/up/a"})

        server.on_upload.append(elsewhere)
        with pytest.raises(TransferError, match="status 307"):
            await transfer.upload(a_target(f"{server.url}/up/a"), a_parcel(), seconds=SECONDS)
    assert other.uploads == []
