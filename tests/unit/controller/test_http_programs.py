"""Calls over HTTP: what is sent, what is understood, and what a peer cannot do to us."""

import asyncio
import gzip
import json
import socket
from contextlib import asynccontextmanager

import aiohttp
import pytest

from fedjob_operator.adapters import http
from fedjob_operator.adapters.http import HttpPrograms
from fedjob_operator.core.actions import (
    ConfigureClient,
    CreatePod,
    Evaluate,
    FetchInfo,
    OpenRound,
    ReadState,
    RecordEvaluation,
    ReportFailure,
    StartTask,
    TurnAway,
    WatchRound,
)
from fedjob_operator.core.observed import PodRole
from fedjob_operator.ports import CallError
from fedjob_protocol import PROTOCOL_VERSION
from fedjob_protocol.config import ClientConfig, DataConfig, ModelConfig
from fedjob_protocol.errors import Refusal, Word
from fedjob_protocol.messages import Base, Evaluation, FailureReport, Participant, RoundSpec
from fedjob_protocol.reasons import Reason
from fedjob_protocol.registration import TurnedAway, client_token
from fedjob_protocol.tasks import (
    Destination,
    EvaluateTask,
    EvaluationState,
    EvaluationView,
    InitTask,
    TaskState,
    TaskView,
    TrainingConfig,
    TrainTask,
)
from tests.support.builders import UID, chain_digest, info, seen

VIEW = seen().round(3).observed.round
STATE = seen().aggregator().observed.state
BASE = Base(round=2, digest=chain_digest(2))
GOAL = Destination(
    term=1, attempt=2, boot_id="b", upload_url="http://a/u", failure_url="http://a/f", deadline_seconds=5
)
SPEC = RoundSpec(
    job_uid=UID,
    term=1,
    attempt=1,
    base=BASE,
    participants=(Participant(client=0, name="clients-0"),),
    clients_per_round=1,
    min_reports=1,
    deadline_seconds=60,
)
TRAIN = TrainTask(job_uid=UID, base=BASE, config=TrainingConfig(seed=1), model_url="http://a/m", destination=GOAL)
INIT = InitTask(job_uid=UID, seed=1, destination=GOAL)
REPORT = FailureReport(job_uid=UID, term=1, attempt=1, boot_id="b", reason=Reason.CLIENT_LOST, message="gone")
RESULT = Evaluation(job_uid=UID, term=1, digest=chain_digest(3), metrics={"accuracy": 0.5})
QUESTION = EvaluateTask(job_uid=UID, base=BASE, model_url="http://a/m")
ACCEPTED = TaskView(round=3, state=TaskState.FETCHING, term=1, attempt=2)
EVALUATED = EvaluationView(base=BASE, state=EvaluationState.DONE, metrics={"accuracy": 0.5})
INFO = info(0)


class Peer:
    """Answers every request with the same bytes, and remembers the requests."""

    def __init__(self, answer: bytes | None, *, then_close: bool = True):
        self.answer, self.then_close = answer, then_close
        self.requests = []
        self.url = ""
        self._hanging = []

    async def serve(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = head.split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        self.requests.append((lines[0], headers, body))
        if self.answer is None:
            self._hanging.append(writer)
            return
        writer.write(self.answer)
        if self.then_close:
            await writer.drain()
            writer.close()

    def hang_up(self):
        for writer in self._hanging:
            writer.close()


def answering(status: str, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def document(model) -> bytes:
    return answering("200 OK", model.model_dump_json(by_alias=True).encode())


@asynccontextmanager
async def meeting(answer: bytes | None, *, token: str | None = "secret"):
    peer = Peer(answer)
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
    peer.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        async with aiohttp.ClientSession() as session:
            yield peer, HttpPrograms(session, token=token)
    finally:
        peer.hang_up()
        server.close()
        await server.wait_closed()


def read_state(peer):
    return ReadState(url=peer.url, incarnation="i")


CONFIG = ClientConfig(
    job_uid=UID, job_name="j", name="outside-1", model=ModelConfig(name="mlp"), data=DataConfig(name="digits")
)
NOTICE = TurnedAway(job_uid=UID, reason=Reason.LATE_JOINER, message="too late")
CALLS = [
    (
        lambda url: ConfigureClient(url=url, incarnation="i", index=1, config=CONFIG),
        "PUT /v1/job",
        CONFIG,
        INFO,
    ),
    (lambda url: TurnAway(url=url, incarnation="i", notice=NOTICE), "POST /v1/turned-away", NOTICE, INFO),
    (lambda url: ReadState(url=url, incarnation="i"), "GET /v1/state", None, STATE),
    (lambda url: FetchInfo(url=url, incarnation="i", role=PodRole.CLIENT, index=0), "GET /v1/info", None, INFO),
    (lambda url: OpenRound(url=url, incarnation="i", round=3, spec=SPEC), "PUT /v1/rounds/3", SPEC, VIEW),
    (lambda url: WatchRound(url=url, incarnation="i", round=3, attempt=1), "GET /v1/rounds/3?wait=5", None, VIEW),
    (
        lambda url: ReportFailure(url=url, incarnation="i", client=7, round=3, report=REPORT),
        "PUT /v1/rounds/3/failures/7",
        REPORT,
        VIEW,
    ),
    (
        lambda url: RecordEvaluation(url=url, incarnation="i", round=3, evaluation=RESULT),
        "PUT /v1/rounds/3/evaluation",
        RESULT,
        VIEW,
    ),
    (
        lambda url: StartTask(url=url, incarnation="i", client=0, round=3, task=TRAIN),
        "POST /v1/rounds/3/train",
        TRAIN,
        ACCEPTED,
    ),
    (lambda url: StartTask(url=url, incarnation="i", client=0, round=0, task=INIT), "POST /v1/init", INIT, ACCEPTED),
    (lambda url: Evaluate(url=url, incarnation="i", task=QUESTION), "POST /v1/evaluate?wait=25", QUESTION, EVALUATED),
]


@pytest.mark.parametrize(("action", "line", "body", "answer"), CALLS, ids=[call[1] for call in CALLS])
async def test_an_action_becomes_one_request_and_its_answer_a_message(action, line, body, answer):
    async with meeting(document(answer)) as (peer, programs):
        assert await programs.perform(action(peer.url)) == answer
        [(request, headers, sent)] = peer.requests
        assert request == f"{line} HTTP/1.1"
        assert headers["fedjob-protocol"] == str(PROTOCOL_VERSION)
        assert headers["fedjob-token"] == "secret"
        if body is None:
            assert sent == b""
        else:
            assert headers["content-type"] == "application/json"
            assert json.loads(sent) == json.loads(body.model_dump_json(by_alias=True))


async def test_without_a_token_none_is_sent():
    async with meeting(document(STATE), token=None) as (peer, programs):
        await programs.perform(read_state(peer))
        assert "fedjob-token" not in peer.requests[0][1]


async def test_what_is_no_call_is_a_bug():
    async with meeting(None) as (_, programs):
        with pytest.raises(TypeError, match="create/client/0/0 is no HTTP call"):
            await programs.perform(CreatePod(role=PodRole.CLIENT, index=0, ordinal=0))


async def failure_of(answer: bytes | None) -> CallError:
    async with meeting(answer) as (peer, programs):
        with pytest.raises(CallError) as caught:
            await programs.perform(read_state(peer))
        assert f"GET {peer.url}/v1/state" in str(caught.value)
        return caught.value


@pytest.mark.parametrize("word", [Word.STALE_TERM, Word.STORAGE_FULL, Word.BAD_TOKEN])
async def test_a_problem_is_its_word_and_its_detail(word):
    refusal = Refusal(word, "what happened and what to do")
    body = refusal.problem().model_dump_json().encode()
    error = await failure_of(answering(f"{refusal.kind.status} No", body))
    assert error.word == word
    assert "what happened and what to do" in str(error)


async def test_a_word_of_a_newer_release_is_passed_on():
    body = json.dumps({"title": "No", "status": 409, "detail": "new", "word": "too-modern", "extra": 1}).encode()
    assert (await failure_of(answering("409 Conflict", body))).word == "too-modern"


@pytest.mark.parametrize("body", [b"", b"<html>Bad gateway</html>", b"{}", b"[1]", b"\xff"])
async def test_an_error_that_is_no_problem_has_no_word(body):
    error = await failure_of(answering("502 Bad Gateway", body))
    assert error.word is None
    assert "status 502" in str(error)


@pytest.mark.parametrize(
    "body",
    [b"", b"nonsense", b"{", b"null", b"[]", b'{"protocol": 1}', b"\xff\xfe", b"[" * 100_000, b'{"bootId": NaN}'],
    ids=["empty", "nonsense", "cut off", "null", "a list", "incomplete", "no text", "deep", "no number"],
)
async def test_an_answer_that_is_none_is_an_error_that_says_so(body):
    error = await failure_of(answering("200 OK", body))
    assert error.word is None
    assert "the answer is no AggregatorState" in str(error)


async def test_fields_of_a_newer_release_are_ignored():
    newer = json.loads(STATE.model_dump_json(by_alias=True)) | {"weather": "fine"}
    async with meeting(answering("200 OK", json.dumps(newer).encode())) as (peer, programs):
        assert await programs.perform(read_state(peer)) == STATE


async def test_nobody_there_is_an_error():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        async with aiohttp.ClientSession() as session:
            with pytest.raises(CallError, match=f"GET {url}/v1/state: ClientConnectorError"):
                await HttpPrograms(session, token=None).perform(ReadState(url=url, incarnation="i"))


async def test_no_answer_in_time_is_an_error(monkeypatch):
    monkeypatch.setattr(http, "ANSWER_SECONDS", 0.05)
    assert "TimeoutError" in str(await failure_of(None))


async def test_an_answer_that_breaks_off_is_an_error():
    cut = answering("200 OK", STATE.model_dump_json(by_alias=True).encode())[:-10]
    assert (await failure_of(cut)).word is None


@pytest.mark.parametrize("answer", [b"", b"\x00\x01\x02", b"HTTP/1.1 banana\r\n\r\n", b"HTTP/9.9 200 OK\r\n\r\n"])
async def test_an_answer_that_is_no_http_is_an_error(answer):
    assert (await failure_of(answer)).word is None


async def test_an_answer_that_announces_too_much_is_not_read():
    huge = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"
    error = await failure_of(huge)
    assert f"the answer has 99999999999 bytes, more than {http.MAX_ANSWER_BYTES}" in str(error)


async def test_an_answer_that_does_not_end_is_not_read_to_its_end(monkeypatch):
    monkeypatch.setattr(http, "MAX_ANSWER_BYTES", 1000)
    chunk = b"200\r\n" + b" " * 0x200 + b"\r\n"
    endless = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 10
    assert "the answer has more than 1000 bytes" in str(await failure_of(endless))


async def test_an_error_that_is_too_large_is_not_read_either():
    huge = b"HTTP/1.1 500 No\r\nContent-Length: 99999999999\r\n\r\n"
    assert "99999999999" in str(await failure_of(huge))


async def test_a_small_answer_cannot_become_a_large_one(monkeypatch):
    monkeypatch.setattr(http, "MAX_ANSWER_BYTES", 100_000)
    bomb = gzip.compress(b" " * 10_000_000)
    assert len(bomb) < http.MAX_ANSWER_BYTES
    error = await failure_of(answering("200 OK", bomb, "Content-Encoding: gzip"))
    assert "the answer is no AggregatorState" not in str(error)


async def test_nobody_sends_us_somewhere_else():
    async with meeting(document(STATE)) as (elsewhere, _):
        away = answering("307 Temporary Redirect", b"", f"Location: {elsewhere.url}/v1/state")
        async with meeting(away) as (peer, programs):
            with pytest.raises(CallError):
                await programs.perform(read_state(peer))
        assert elsewhere.requests == []


@pytest.mark.parametrize(
    ("action", "answer"),
    [
        (lambda url: FetchInfo(url=url, incarnation="i", boot_id="theirs", role=PodRole.CLIENT, index=1), INFO),
        (lambda url: ConfigureClient(url=url, incarnation="i", boot_id="theirs", index=1, config=CONFIG), INFO),
        (lambda url: StartTask(url=url, incarnation="i", boot_id="theirs", client=1, round=3, task=TRAIN), ACCEPTED),
        (lambda url: TurnAway(url=url, incarnation="i", boot_id="theirs", notice=NOTICE), INFO),
    ],
)
async def test_an_address_that_somebody_gave_never_gets_the_jobs_token(action, answer):
    async with meeting(document(answer)) as (peer, programs):
        assert await programs.perform(action(peer.url)) == answer
        ((_, headers, _),) = peer.requests
        assert headers["fedjob-token"] == client_token("secret", "theirs")
        assert "secret" not in str(peer.requests)


async def test_a_link_local_address_is_not_called_and_long_answers_of_strangers_are_not_read():
    async with meeting(answering("200 OK", b" " * (1 << 20) + b"x")) as (peer, programs):
        ask = FetchInfo(url=peer.url, incarnation="i", boot_id="theirs", role=PodRole.CLIENT, index=1)
        with pytest.raises(CallError, match="more than 1048576"):
            await programs.perform(ask)
        far = FetchInfo(url="http://169.254.169.254", incarnation="i", boot_id="b", role=PodRole.CLIENT, index=1)
        with pytest.raises(CallError, match="is not called"):
            await programs.perform(far)
