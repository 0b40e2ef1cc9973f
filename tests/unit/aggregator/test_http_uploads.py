"""Uploads over HTTP: what is refused, with which word, whether its client is out, and that nothing hangs."""

import asyncio

import numpy as np
import pytest

from fedjob_aggregator.aggregation.reference import mean, weighted_sum
from fedjob_protocol.digests import xxh3_of
from fedjob_protocol.weights import Manifest, decode, encode, header_bytes
from tests.unit.aggregator.harness import MODEL, delta, running

LARGE = {"a": np.zeros(200_000, np.float32), "b": np.zeros((3, 5))}


def large(value=1.0):
    return encode({"a": np.full(200_000, value, np.float32), "b": np.full((3, 5), value, np.float32)})


async def open_round(api, model=MODEL, **changes):
    await api.initialise(model)
    await api.open(1, **changes)


@pytest.mark.parametrize(
    ("body", "changes", "word", "fails"),
    [
        (encode(delta(np.inf)), {}, "non-finite", True),
        (encode({"weight": delta()["weight"]}), {}, "wrong-names", True),
        (encode(delta() | {"bias": np.zeros(4, np.float32)}), {}, "wrong-shape", True),
        (encode(delta() | {"bias": np.zeros(3)}), {}, "wrong-dtype", True),
        (b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05hello\x94.", {}, "malformed-weights", True),
        (b"", {}, "malformed-weights", True),
        (encode(delta())[:-4], {}, "malformed-weights", True),
        (encode({name: np.tile(array, 5_000) for name, array in delta().items()}), {}, "too-large", True),
        (encode(delta(3e38)), {}, "value-out-of-range", True),
        (encode(delta()), {"examples": 101}, "bad-examples", True),
        (encode(delta()), {"examples": "ten"}, "bad-examples", True),
        (encode(delta()), {"examples": None, "Fedjob-Examples": None}, "bad-examples", True),
        (encode(delta()), {"Content-Encoding": "gzip"}, "unsupported-media", True),
        (encode(delta()), {"Content-Type": "application/x-pickle"}, "unsupported-media", True),
        (encode(delta()), {"digest": "xxh3-128:" + "0" * 32}, "digest-mismatch", False),
        (encode(delta()), {"digest": "sha256:" + "0" * 64}, "bad-request", False),
        (encode(delta()), {"Fedjob-Term": "x"}, "bad-request", False),
        (encode(delta()), {"Fedjob-Attempt": None}, "bad-request", False),
        (encode(delta()), {"Fedjob-Metrics": '{"loss": NaN}'}, "bad-request", False),
        (encode(delta()), {"Fedjob-Metrics": "[" * 2000}, "bad-request", False),
        (encode(delta()), {"Fedjob-Train-Seconds": "-1"}, "bad-request", False),
        (encode(delta()), {"Fedjob-Machine": "x" * 257}, "bad-request", False),
        (encode(delta()), {"Fedjob-Machine": "tab\there"}, "bad-request", False),
        (encode(delta()), {"Fedjob-Job-Uid": "other"}, "wrong-job", False),
        (encode(delta()), {"Fedjob-Boot-Id": "other"}, "wrong-boot", False),
        (encode(delta()), {"attempt": 2}, "round-conflict", False),
    ],
)
async def test_a_bad_upload_is_refused_by_its_word(tmp_path, body, changes, word, fails):
    async with running(tmp_path) as api:
        participants = [{"client": 0, "name": "a", "maxExamples": 100}, {"client": 1, "name": "b"}]
        await open_round(api, participants=participants, clientsPerRound=2)
        status, problem, headers = await api.upload(1, 0, body, **changes)
        assert (problem["word"], status) == (word, problem["status"])
        assert headers["Fedjob-Protocol"] == "1"
        view = await api.get("/v1/rounds/1")
        assert [item["client"] for item in view["failed"]] == [0] * fails
        if word not in {"bad-request", "wrong-job"}:
            assert [item["word"] for item in view["refused"]] == [word]
        # Whatever it was, the next client of the round is served.
        assert (await api.upload(1, 1))[0] == 200


async def test_a_client_that_failed_is_not_heard_again_in_this_attempt(tmp_path):
    async with running(tmp_path) as api:
        await open_round(api)
        await api.upload(1, 0, encode(delta(np.nan)))
        status, problem, _ = await api.upload(1, 0)
        assert (status, problem["word"]) == (409, "already-reported")
        await api.open(1, attempt=2)
        assert (await api.upload(1, 0, attempt=2))[0] == 200


async def test_damage_on_the_way_is_sent_again(tmp_path):
    async with running(tmp_path) as api:
        await open_round(api)
        body = encode(delta())
        damaged = bytearray(body)
        damaged[-1] ^= 0x7F
        status, problem, _ = await api.upload(1, 0, bytes(damaged), digest=xxh3_of(body))
        assert (status, problem["word"]) == (400, "digest-mismatch")
        assert (await api.upload(1, 0, body))[0] == 200


async def test_bytes_that_are_not_a_participants_are_refused(tmp_path):
    async with running(tmp_path) as api:
        await open_round(api)
        assert (await api.upload(1, 9))[1]["word"] == "not-a-participant"
        assert (await api.upload(1, 1_000_001))[1]["word"] == "bad-request"
        assert (await api.upload(2, 0))[1]["word"] == "wrong-round"
        assert (await api.upload(0, 0))[1]["word"] == "round-closed"


async def test_large_updates_are_folded_in_memory_and_on_disk_to_the_same_model(tmp_path):
    digests = []
    for staging_bytes in (None, 0):
        async with running(tmp_path / str(staging_bytes), staging_bytes=staging_bytes) as api:
            await open_round(api, LARGE)
            answers = await asyncio.gather(*[api.upload(1, c, large(c + 1.5), examples=c + 1) for c in range(3)])
            assert [status for status, *_ in answers] == [200] * 3
            digests.append((await api.wait(1))["record"]["digest"])
            arrays, _ = decode(await api.get("/v1/models/latest"))
            assert set(arrays["a"].tolist()) == {np.float32((1.5 + 2 * 2.5 + 3 * 3.5) / 6)}
    assert digests[0] == digests[1]


@pytest.mark.parametrize("staging_bytes", [None, 0])
async def test_a_connection_is_used_again_after_a_large_upload_and_after_a_refused_one(tmp_path, staging_bytes):
    async with running(tmp_path, staging_bytes=staging_bytes) as api:
        await open_round(api, LARGE)
        reader, writer = await connect(api)
        for client, body, expected in ((0, large(np.nan), b"422"), (1, large(), b"200"), (2, large(3.0), b"200")):
            writer.write(head(api, client, body) + body)
            assert (await answer(reader)).startswith(b"HTTP/1.1 " + expected)
        writer.close()


async def connect(api):
    host, port = api.url.removeprefix("http://").split(":")
    return await asyncio.open_connection(host, int(port))


def head(api, client, body, *, length=..., extra=()):
    fields = api.headers(body) | dict(extra)
    if length is ...:
        length = len(body)
    if length is not None:
        fields["Content-Length"] = str(length)
    lines = [f"PUT /v1/rounds/1/updates/{client} HTTP/1.1", "Host: x", *[f"{name}: {v}" for name, v in fields.items()]]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def answer(reader):
    """One answer with its body; a limit keeps a hanging connection from hanging the test."""
    async with asyncio.timeout(20):
        start = await reader.readuntil(b"\r\n\r\n")
        fields = dict(line.split(b": ", 1) for line in start.split(b"\r\n")[1:] if line)
        return start + await reader.readexactly(int(fields.get(b"content-length", b"0")))


@pytest.mark.parametrize("model", [MODEL, LARGE])
async def test_an_upload_that_is_cut_off_is_counted_and_sent_again(tmp_path, model):
    async with running(tmp_path) as api:
        await open_round(api, model, clients=1)
        body = encode({name: np.ones(array.shape, np.float32) for name, array in model.items()})
        _, writer = await connect(api)
        writer.write(head(api, 0, body) + body[: len(body) // 2])
        await writer.drain()
        writer.close()
        view = await api.get("/v1/rounds/1")
        while not view["refused"]:
            await asyncio.sleep(0)
            view = await api.get("/v1/rounds/1")
        assert (view["refused"][0]["word"], view["failed"]) == ("truncated", [])
        assert (await api.upload(1, 0, body))[0] == 200
        assert (await api.wait(1))["record"]["refused"][0]["word"] == "truncated"


async def test_a_body_of_unknown_length_is_refused(tmp_path):
    async with running(tmp_path) as api:
        await open_round(api)
        reader, writer = await connect(api)
        body = encode(delta())
        writer.write(head(api, 0, body, length=None, extra={"Transfer-Encoding": "chunked"}.items()))
        writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        assert b'"length-required"' in await answer(reader)
        writer.close()


async def test_a_body_that_is_too_large_is_refused_before_it_is_sent(tmp_path):
    async with running(tmp_path) as api:
        await open_round(api)
        reader, writer = await connect(api)
        body = encode(delta())
        writer.write(head(api, 0, body, length=1 << 40, extra={"Expect": "100-continue"}.items()))
        refused = await answer(reader)
        assert refused.startswith(b"HTTP/1.1 413")
        assert b"connection: close" in refused
        assert await reader.read() == b""
        writer.close()


@pytest.mark.parametrize("model", [MODEL, LARGE])
async def test_a_sender_that_asks_first_is_told_to_go_on(tmp_path, model):
    async with running(tmp_path) as api:
        await open_round(api, model)
        reader, writer = await connect(api)
        body = encode({name: np.ones(array.shape, np.float32) for name, array in model.items()})
        writer.write(head(api, 0, body, extra={"Expect": "100-continue"}.items()))
        assert await answer(reader) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await answer(reader)).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_a_sender_that_is_refused_in_the_middle_reads_why_and_can_go_on(tmp_path):
    async with running(tmp_path) as api:
        await open_round(api, LARGE, clients=2, clientsPerRound=1)
        body = large()
        reader, writer = await connect(api)
        writer.write(head(api, 0, body) + body[:300_000])
        await writer.drain()
        assert (await api.upload(1, 1, body))[0] == 200
        assert b'"round-closed"' in await answer(reader)
        writer.write(body[300_000:])
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await answer(reader)).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_a_newer_upload_of_a_client_takes_the_place_of_one_that_hangs(tmp_path):
    async with running(tmp_path) as api:
        await open_round(api, LARGE, clients=1)
        body = large()
        reader, writer = await connect(api)
        writer.write(head(api, 0, body) + body[:300_000])
        await writer.drain()
        assert (await api.upload(1, 0, body))[0] == 200
        assert b"a newer upload" in await answer(reader)
        writer.close()


async def test_an_upload_that_stands_still_is_given_up(tmp_path):
    async with running(tmp_path, idle_seconds=0.05) as api:
        await open_round(api, LARGE)
        body = large()
        reader, writer = await connect(api)
        writer.write(head(api, 0, body) + body[:300_000])
        assert b"nothing arrived for 0.05 s" in await answer(reader)
        writer.close()


async def test_uploads_beyond_the_limit_wait_for_their_turn(tmp_path):
    async with running(tmp_path, most_uploads=1) as api:
        await open_round(api, LARGE)
        body = large()
        _, writer = await connect(api)
        writer.write(head(api, 0, body) + body[:300_000])
        await writer.drain()
        second = asyncio.create_task(api.upload(1, 1, body))
        third = asyncio.create_task(api.get("/v1/rounds/1?wait=0.05"))
        await third
        assert not second.done()
        writer.write(body[300_000:])
        assert (await second)[0] == 200
        writer.close()


async def test_the_tensors_may_come_in_any_order(tmp_path):
    async with running(tmp_path) as api:
        await open_round(api, clients=1)
        manifest = Manifest.of_arrays(delta())
        canonical = header_bytes(manifest)
        text = canonical[8:].replace(b"[0,12]", b"[40,52]").replace(b"[12,52]", b"[0,40]").rstrip()
        text += b" " * (-len(text) % 8)
        body = len(text).to_bytes(8, "little") + text + np.full(10, 2, "<f4").tobytes() + np.full(3, 4, "<f4").tobytes()
        assert (await api.upload(1, 0, body))[0] == 200
        await api.wait(1)
        arrays, _ = decode(await api.get("/v1/models/latest"))
        assert set(arrays["bias"].tolist()) == {4.0}
        assert np.array_equal(arrays["weight"], MODEL["weight"] + 2)


async def test_a_request_with_an_endless_head_is_cut_off(tmp_path):
    async with running(tmp_path) as api:
        reader, writer = await connect(api)
        writer.write(b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await answer(reader)
        writer.close()


@pytest.mark.parametrize(
    "start", [b"", b"GET / HTTP/1.1\r\nHost:", b"POST /aggregate HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"]
)
async def test_a_request_that_does_not_arrive_in_time_is_cut_off(tmp_path, monkeypatch, start):
    monkeypatch.setattr("fedjob_aggregator.server.REQUEST_SECONDS", 0.05)
    async with running(tmp_path) as api:
        reader, writer = await connect(api)
        writer.write(start)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await answer(reader)
        writer.close()


@pytest.mark.parametrize("length", [100_000, 1_000_000])
async def test_the_rest_of_a_refused_body_is_waited_for_only_so_long(tmp_path, monkeypatch, length):
    monkeypatch.setattr("fedjob_aggregator.server.LINGER_SECONDS", 0.05)
    async with running(tmp_path) as api:
        await open_round(api, LARGE)
        reader, writer = await connect(api)
        writer.write(head(api, 9, b"", length=length) + b"x" * 70_000)
        assert b'"not-a-participant"' in await answer(reader)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await answer(reader)
        writer.close()


async def test_an_update_that_several_threads_fold_gives_the_mean(tmp_path, monkeypatch):
    monkeypatch.setattr("fedjob_aggregator.gathering.PARALLEL_ELEMENTS", 1000)
    monkeypatch.setattr("fedjob_aggregator.gathering.os.cpu_count", lambda: 3)
    rng = np.random.default_rng(3)
    values = rng.normal(size=(2, 200_000)).astype(np.float32)
    async with running(tmp_path) as api:
        await open_round(api, LARGE, clients=2)
        for client in range(2):
            body = encode({"a": values[client], "b": np.zeros((3, 5), np.float32)})
            assert (await api.upload(1, client, body))[0] == 200
        await api.wait(1)
        arrays, _ = decode(await api.get("/v1/models/latest"))
        sums = weighted_sum([(value, 10) for value in values], 30)
        assert np.array_equal(arrays["a"], mean(LARGE["a"], sums, 20, 30))
