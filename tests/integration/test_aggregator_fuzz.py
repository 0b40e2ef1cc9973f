"""Hostile bytes at the reader of safetensors, the upload endpoint and the port: it lives, in bounded memory."""

import contextlib
import http.client
import json
import socket
from itertools import pairwise

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedjob_aggregator.aggregation.backends import NumpyKernels
from fedjob_aggregator.verification import DeltaCheck, InitialCheck, Verifier
from fedjob_protocol.digests import xxh3_of
from fedjob_protocol.errors import KINDS, Refusal, Word
from fedjob_protocol.weights import Manifest, decode, encode
from tests.integration.test_aggregator_process import aggregator

pytestmark = pytest.mark.integration

MODEL = {"bias": np.zeros(3), "weight": np.zeros((4, 25), np.float32)}
GOOD = encode({"bias": np.full(3, 0.5, np.float32), "weight": np.ones((4, 25), np.float32)})
CLIENTS = 3000
GROWTH_BYTES = 48 << 20
FUZZ = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}

SIZES = st.sampled_from(
    [0, 1, 3, 4, 8, 12, 100, 400, 412, 413, 2**31, 2**32, 2**63, 2**64, 10**30, -1, 1.5, True, None, "4"]
)
ENTRIES = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "F64", "F16", "I64", "BOOL", "Q4", "", None, 7]),
        "shape": st.lists(SIZES, max_size=4) | st.none() | st.just("[4]"),
        "data_offsets": st.lists(SIZES, max_size=3) | st.none(),
        "extra": st.none(),
    },
)
HEADERS = st.dictionaries(st.sampled_from(["bias", "weight", "other", "__metadata__", "", "\x00"]), ENTRIES, max_size=4)


@st.composite
def bodies(draw):
    """Bytes that are nearly an update: damaged, cut, extended, or with a header of another making."""
    kind = draw(st.sampled_from(["flip", "cut", "extend", "header", "noise", "length", "values", "good"]))
    body = bytearray(GOOD)
    if kind == "flip":
        for _ in range(draw(st.integers(1, 8))):
            body[draw(st.integers(0, len(body) - 1))] = draw(st.integers(0, 255))
    elif kind == "cut":
        del body[draw(st.integers(0, len(body) - 1)) :]
    elif kind == "extend":
        body += draw(st.binary(min_size=1, max_size=50))
    elif kind == "header":
        text = json.dumps(draw(HEADERS)).encode()
        text += b" " * draw(st.sampled_from([0, -len(text) % 8, -len(text) % 8, 8 - len(text) % 8 + 1]))
        body = bytearray(len(text).to_bytes(8, "little") + text + bytes(draw(st.sampled_from([0, 4, 412, 413]))))
    elif kind == "noise":
        body = bytearray(draw(st.binary(max_size=300)))
    elif kind == "length":
        body[:8] = draw(st.sampled_from([0, 1, 7, 8, 2**24, 2**31, 2**63, 2**64 - 1])).to_bytes(8, "little")
    elif kind == "values":
        values = np.frombuffer(bytes(body[-412:]), "<f4").copy()
        values[draw(st.integers(0, 102))] = draw(st.sampled_from([np.nan, np.inf, -np.inf]) | st.floats(width=32))
        body[-412:] = values.tobytes()
    return bytes(body)


@settings(max_examples=900, **FUZZ)
@given(bodies(), st.booleans(), st.lists(st.integers(0, 80).map(lambda word: 8 * word), max_size=3).map(sorted))
def test_the_reader_refuses_or_reads_and_does_nothing_else(body, initial, cuts):
    check = (
        InitialCheck() if initial else DeltaCheck(Manifest.of_arrays(MODEL).as_delta(), NumpyKernels(), lambda _: None)
    )
    verifier = Verifier(check, len(body))
    edges = [0, *[cut for cut in cuts if cut < len(body)], len(body)]
    for begin, end in pairwise(edges):
        verifier.feed(memoryview(body)[begin:end])
    try:
        header = verifier.finish(xxh3_of(body))
    except Refusal as refusal:
        assert len(refusal.detail) < 2000  # noqa: PT017 - either end is fine
        with contextlib.suppress(Refusal):
            decode(body)
        return
    arrays, _ = decode(body)
    assert {name: array.shape for name, array in arrays.items()} == {
        tensor.name: tensor.shape for tensor in header.manifest.tensors
    }
    assert all(np.isfinite(array).all() for array in arrays.values())


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    """An aggregator with a round open for thousands of clients, and its memory before."""
    with aggregator(tmp_path_factory.mktemp("fuzz")) as program:
        program.initialise(MODEL)
        program.open(1, clients=CLIENTS, deadlineSeconds=600, clientsPerRound=CLIENTS)
        for _ in range(200):
            program.get("/health")
        memory = psutil.Process(program.process.pid)
        program.before = memory.memory_info().rss
        yield program
        assert program.get("/health")["status"] == "ok"
        assert memory.memory_info().rss - program.before < GROWTH_BYTES


HEADER_VALUES = st.sampled_from(
    ["", "0", "1", "-1", "1e3", "NaN", "9" * 30, "x", "{}", "null", "\x7f", "a" * 5000]
) | st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)
NAMES = [
    "Fedjob-Job-Uid",
    "Fedjob-Term",
    "Fedjob-Attempt",
    "Fedjob-Boot-Id",
    "Fedjob-Examples",
    "Fedjob-Digest",
    "Fedjob-Metrics",
    "Fedjob-Train-Seconds",
    "Fedjob-Protocol",
    "Content-Type",
    "Content-Encoding",
]
CHANGES = st.dictionaries(st.sampled_from(NAMES), HEADER_VALUES, max_size=2) | st.just({})


def test_the_upload_endpoint_answers_every_upload_with_a_word(target):
    connection = http.client.HTTPConnection(target.address, timeout=30)
    clients = iter(range(CLIENTS))
    words = {}

    @settings(max_examples=1100, **FUZZ)
    @given(bodies(), CHANGES)
    def fuzz(body, changes):
        client = next(clients)
        headers = target.headers(body) | changes
        connection.request("PUT", f"/v1/rounds/1/updates/{client}", body, headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
        word = answer.get("word", "accepted")
        words[word] = words.get(word, 0) + 1
        if response.status == 200:
            assert answer["client"] == client
        else:
            assert response.status == KINDS[Word(word)].status == answer["status"]
            assert word != Word.INTERNAL, answer

    fuzz()
    connection.close()
    assert {"accepted", "malformed-weights", "non-finite", "bad-request"} <= set(words), words
    view = target.get("/v1/rounds/1")
    assert len(view["reported"]) == words["accepted"]
    assert len(view["refused"]) == 100


REQUESTS = st.one_of(
    st.binary(max_size=300),
    st.binary(max_size=60).map(lambda tail: b"PUT /v1/rounds/1/updates/2999 HTTP/1.1\r\nHost: x\r\n" + tail),
    st.tuples(
        st.sampled_from([b"GET", b"PUT", b"POST", b"DELETE", b"PATCH", b"", b"\xff"]),
        st.sampled_from(
            [b"/", b"/v1/rounds/1", b"/aggregate", b"/clients", b"/%ff%00", b"*", b"//", b"/v1/models/best"]
        ),
        st.sampled_from(
            [b"Content-Length: 5", b"Content-Length: -1", b"Transfer-Encoding: chunked", b"Upgrade: h2c", b"X"]
        ),
        st.binary(max_size=40),
    ).map(lambda parts: b"%b %b HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n%b" % parts),
)


def test_garbage_at_the_port_harms_nobody(target):
    host, port = target.address.split(":")

    @settings(max_examples=300, **FUZZ)
    @given(REQUESTS)
    def fuzz(data):
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                received = b""
                while piece := connection.recv(65536):
                    received += piece
                assert b"Traceback" not in received
                assert b"500 Internal" not in received

    fuzz()
    assert target.get("/health")["status"] == "ok"


def test_connections_that_only_stand_there_do_not_keep_others_out(target):
    host, port = target.address.split(":")
    with contextlib.ExitStack() as stack:
        for number in range(200):
            connection = stack.enter_context(socket.create_connection((host, int(port)), timeout=30))
            connection.sendall(b"PUT /v1/rounds/1/updates/7 HTTP/1.1\r\n"[: number % 37])
        assert target.get("/health")["status"] == "ok"


def test_a_round_still_commits_after_all_that(target):
    target.open(1, clients=1, attempt=2)
    assert target.upload(1, 0, GOOD, attempt=2)[0] == 200
    record = target.wait(1)["record"]
    assert [contribution["client"] for contribution in record["contributors"]] == [0]
