"""The plain forms: the mean of two numbers, registered clients, the page, health."""

import json
import math
import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fedjob_aggregator.simple import MAX_ENTRIES, plain_mean
from fedjob_protocol.errors import Refusal, Word
from fedjob_protocol.hosts import checked_url
from fedjob_protocol.routes import MAX_JSON_BODY_BYTES
from tests.unit.aggregator.harness import running

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


def mean_of(*entries):
    return plain_mean(json.dumps({"clients": list(entries)}).encode())


def test_the_mean_is_plain():
    assert mean_of({"w": 3.5, "b": 1.27}, {"w": 2.5, "b": 0.73}) == {"global_w": 3.0, "global_b": 1.0}


def test_num_examples_weight_it():
    assert mean_of({"w": 1, "b": 0, "num_examples": 3}, {"w": 5, "b": 4, "num_examples": 1}) == {
        "global_w": 2.0,
        "global_b": 1.0,
    }


def test_other_fields_of_a_clients_answer_are_not_looked_at():
    assert mean_of({"w": 1.0, "b": 2.0, "backend": "cpu", "nested": {"a": [1]}})["global_b"] == 2.0


@given(st.lists(st.tuples(NUMBERS, NUMBERS, st.integers(1, 2**53)), min_size=1, max_size=20), st.randoms())
@example([(1.7e308, -1.7e308, 2**53)] * 3, random.Random(1))
def test_the_mean_does_not_depend_on_the_order_and_never_overflows(entries, shuffle):
    documents = [{"w": w, "b": b, "num_examples": n} for w, b, n in entries]
    expected = mean_of(*documents)
    shuffle.shuffle(documents)
    assert mean_of(*documents) == expected
    assert min(w for w, _, _ in entries) <= expected["global_w"] <= max(w for w, _, _ in entries)
    assert math.isfinite(expected["global_b"])


BAD_BODIES = {
    b"": "not JSON",
    b"[1]": "JSON object",
    b"{}": "clients",
    b'{"clients": []}': "1 to 10000",
    b'{"clients": {}}': "clients must be a list",
    b'{"clients": [1]}': "clients[0]",
    b'{"clients": [{"w": 1}]}': "clients[0].b must be a number",
    b'{"clients": [{"w": "1", "b": 2}]}': "clients[0].w must be a number",
    b'{"clients": [{"w": [1], "b": 2}]}': "clients[0].w must be a number",
    b'{"clients": [{"w": true, "b": 2}]}': "clients[0].w must be a number",
    b'{"clients": [{"w": NaN, "b": 2}]}': "NaN",
    b'{"clients": [{"w": Infinity, "b": 2}]}': "Infinity",
    b'{"clients": [{"w": 1e999, "b": 2}]}': "clients[0].w must be a finite number",
    b'{"clients": [{"w": 1, "b": ' + b"9" * 400 + b"}]}": "clients[0].b must be a finite number",
    b'{"clients": [{"w": 1, "b": 1, "num_examples": 1.5}]}': "clients[0].num_examples",
    b'{"clients": [{"w": 1, "b": 1, "num_examples": -1}]}': "clients[0].num_examples",
    b'{"clients": [{"w": 1, "b": 1, "num_examples": 0}]}': "0 in all",
    b'{"clients": [{"w": 1, "b": 1, "num_examples": 1}, {"w": 1, "b": 1}]}': "in all entries or in none",
    b"[" * 100_000: "not JSON",
    json.dumps({"clients": [{"w": 1, "b": 1}] * (MAX_ENTRIES + 1)}).encode(): "1 to 10000",
}


@pytest.mark.parametrize(("body", "seen"), BAD_BODIES.items(), ids=range(len(BAD_BODIES)))
def test_bad_input_is_refused_by_its_field(body, seen):
    with pytest.raises(Refusal) as caught:
        plain_mean(body)
    assert caught.value.word is Word.BAD_REQUEST
    assert seen in caught.value.detail


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8001",
        "https://client.example/base/",
        "http://10.0.0.7:8000",
        "http://[::1]:8001",
        "http://192.168.1.5",
    ],
)
def test_addresses_of_clients_are_taken(url):
    assert checked_url(url) == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    [
        None,
        7,
        "",
        "client:8001",
        "ftp://client",
        "file:///etc/passwd",
        "http://",
        "http://user:secret@client",
        "http://client:99999",
        "http://[::1",
        "http://cl ient",
        "http://client\n",
        "http://169.254.169.254/latest/meta-data",
        "http://169.254.169.254.:80",
        "http://2852039166",
        "http://0xa9fea9fe",
        "http://0251.0376.0251.0376",
        "http://[fe80::1]",
        "http://[fe80::1%25eth0]",
        "http://[::ffff:169.254.169.254]",
        "http://[fd00:ec2::254]",
        "http://metadata.google.internal",
        "http://METADATA.google.internal./",
        "http://100.100.100.200",
        "http://0.0.0.0:8001",
        "http://224.0.0.1",
        "http://" + "a" * 3000,
        "http://kubernetes.default.svc",
        "http://client/?next=http://169.254.169.254",
    ],
)
def test_addresses_where_no_client_lives_are_refused(url):
    with pytest.raises(Refusal) as caught:
        checked_url(url)
    assert caught.value.word is Word.BAD_REQUEST


async def test_the_forms_work_without_a_content_type_and_without_a_token(tmp_path):
    async with running(tmp_path, token="secret") as api:
        body = json.dumps({"clients": [{"w": 3.5, "b": 1.27}, {"w": 3.4, "b": 1.29}]}).encode()
        status, answer, _ = await api.call("POST", "/aggregate", data=body, headers={"Content-Type": "text/plain"})
        assert (status, answer) == (200, {"global_w": 3.45, "global_b": 1.28})
        status, problem, headers = await api.call("POST", "/aggregate", data=b"{")
        assert (status, problem["word"], headers["Content-Type"]) == (422, "bad-request", "application/problem+json")
        status, problem, _ = await api.call("POST", "/aggregate", data=b" " * (MAX_JSON_BODY_BYTES + 1))
        assert (status, problem["word"]) == (413, "too-large")


async def test_clients_register_once_and_are_listed(tmp_path):
    async with running(tmp_path) as api:
        for path, url in (("/clients", "http://a:1"), ("/client", "http://b:2"), ("/clients", "http://a:1/")):
            status, answer, _ = await api.call("POST", path, json={"client_url": url})
            assert (status, answer["client_url"]) == (201, url.rstrip("/"))
        listed = (await api.get("/clients"))["clients"]
        assert [client["client_url"] for client in listed] == ["http://a:1", "http://b:2"]


async def test_health_and_readiness(tmp_path):
    async with running(tmp_path) as api:
        health = await api.get("/health")
        assert health["status"] == "ok"
        assert (await api.get("/ready"))["status"] == "ready"


async def test_the_page_shows_rounds_and_escapes_what_peers_say(tmp_path):
    async with running(tmp_path) as api:
        status, page, headers = await api.call("GET", "/")
        assert (status, b"No round is committed yet" in page) == (200, True)
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert b"<script" not in page
        await api.initialise()
        await api.open(1, clients=1, expectsEvaluation=True)
        await api.upload(1, 0)
        record = (await api.wait(1))["record"]
        evaluation = {"jobUid": "job-uid", "term": 1, "digest": record["digest"], "metrics": {"<b>accuracy": 0.5}}
        await api.call("PUT", "/v1/rounds/1/evaluation", json=evaluation)
        page = await api.get("/")
        assert b"&lt;b&gt;accuracy 0.5" in page
        assert b"<td>1/1</td>" in page
        line = await api.get("/", headers={"Accept": "text/plain"})
        assert line.startswith(b"fedjob-aggregator ")
        assert line.endswith(b"round 1 committed\n")
        await api.open(2, clients=1)
        assert b"round 2 Open with 0 reports (attempt 1)" in await api.get("/", headers={"Accept": "text/plain"})
        assert b"round 2 Open, 0 reports" in await api.get("/")
