"""What holds for all of the API: token, protocol, problems, models in parts, OpenAPI, the command's help."""

import hashlib
import json

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from fedjob_aggregator.command import main
from fedjob_aggregator.models import Span, requested_span
from tests.unit.aggregator.harness import running

LARGE = {"a": np.arange(700_000, dtype=np.float32)}


@pytest.mark.parametrize(
    ("headers", "status", "word"),
    [
        ({}, 401, "bad-token"),
        ({"Fedjob-Token": "wrong"}, 401, "bad-token"),
        ({"Fedjob-Token": "secret", "Fedjob-Protocol": "99"}, 426, "unsupported-protocol"),
        ({"Fedjob-Token": "secret", "Fedjob-Protocol": "1"}, 200, None),
        ({"Fedjob-Token": "secret"}, 200, None),
    ],
)
async def test_v1_wants_the_token_and_a_protocol_it_speaks(tmp_path, headers, status, word):
    async with running(tmp_path, token="secret") as api:
        for method, path in (("GET", "/v1/state"), ("GET", "/v1/nothing")):
            seen, answer, fields = await api.call(method, path, headers=headers)
            if word is not None:
                assert (seen, answer["word"]) == (status, word)
            assert fields["Fedjob-Protocol"] == "1"
        assert (await api.call("GET", "/v1/state", headers=headers))[0] == status
        assert (await api.call("GET", "/health"))[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "word"),
    [
        ("GET", "/nothing", 404, "not-found"),
        ("GET", "/v1/rounds/7", 404, "not-found"),
        ("GET", "/v1/rounds/x", 422, "bad-request"),
        ("GET", "/v1/rounds/-1", 422, "bad-request"),
        ("GET", "/v1/rounds/0?wait=x", 422, "bad-request"),
        ("GET", "/v1/rounds/0?wait=inf", 422, "bad-request"),
        ("GET", "/v1/rounds/0?settled=-1", 422, "bad-request"),
        ("GET", "/v1/rounds?since=x", 422, "bad-request"),
        ("GET", "/v1/rounds?limit=100000", 422, "bad-request"),
        ("GET", "/v1/models/latest", 404, "not-found"),
        ("GET", "/v1/models/../../etc/passwd", 404, "not-found"),
        ("GET", "/v1/models/..%2F..%2Fmanifest.json", 404, "not-found"),
        ("POST", "/v1/state", 405, "method-not-allowed"),
        ("DELETE", "/v1/rounds/0?term=1&attempt=1", 409, "wrong-round"),
        ("PUT", "/v1/rounds/0", 422, "bad-request"),
        ("PUT", "/v1/rounds/0/updates/0", 422, "bad-request"),
    ],
)
async def test_every_error_is_a_problem_with_its_word(tmp_path, method, path, status, word):
    async with running(tmp_path) as api:
        seen, problem, headers = await api.call(method, path)
        assert (seen, problem["status"], problem["word"]) == (status, status, word)
        assert headers["Content-Type"] == "application/problem+json"
        assert headers["Fedjob-Protocol"] == "1"


async def test_a_bug_is_a_problem_without_its_traceback(tmp_path, monkeypatch, caplog):
    async with running(tmp_path) as api:
        monkeypatch.setattr(api.service, "overview", lambda: 1 / 0)
        status, problem, _ = await api.call("GET", "/v1/state")
        assert (status, problem["word"]) == (500, "internal")
        assert "ZeroDivisionError" not in json.dumps(problem)
        assert "ZeroDivisionError" in caplog.text


async def test_a_model_is_served_whole_in_parts_and_not_at_all(tmp_path):
    async with running(tmp_path) as api:
        record = await api.initialise(LARGE)
        path = "/v1/models/0"
        status, whole, headers = await api.call("GET", path)
        assert (status, headers["Content-Length"]) == (200, str(len(whole)))
        assert headers["Fedjob-Digest"] == record["digest"] == "sha256:" + hashlib.sha256(whole).hexdigest()
        etag = headers["ETag"]

        async def part(text, **more):
            return await api.call("GET", path, headers={"Range": text} | more)

        for text, expected in (
            ("bytes=0-9", whole[:10]),
            ("bytes=100000-2000000", whole[100_000:2_000_001]),
            (f"bytes={len(whole) - 5}-", whole[-5:]),
            ("bytes=-7", whole[-7:]),
            (f"bytes=1-{10**15}", whole[1:]),
        ):
            status, body, headers = await part(text)
            assert (status, body) == (206, expected)
            assert headers["Content-Range"].endswith(f"/{len(whole)}")
        status, body, headers = await part(f"bytes={len(whole)}-")
        assert (status, body, headers["Content-Range"]) == (416, b"", f"bytes */{len(whole)}")
        assert (await part("bytes=0-9", **{"If-Range": etag}))[0] == 206
        assert (await part("bytes=0-9", **{"If-Range": '"other"'}))[0] == 200
        status, body, headers = await api.call("GET", path, headers={"If-None-Match": etag})
        assert (status, body, headers["ETag"]) == (304, b"", etag)


@given(st.text(max_size=20) | st.from_regex(r"bytes=\d{0,3}-\d{0,3}", fullmatch=True), st.integers(1, 200))
def test_any_range_is_a_part_of_the_file_or_none(text, total):
    span = requested_span(text, total)
    assert span is None or 0 <= span.begin < span.end <= total


@pytest.mark.parametrize("text", [None, "", "bytes", "bytes=-", "bytes=a-b", "bytes=0-1,3-4", "bytes=5-2", "items=0-1"])
def test_what_is_no_single_range_is_the_whole_file(text):
    assert requested_span(text, 10) == Span(begin=0, end=10)


async def test_the_openapi_document_describes_every_route(tmp_path):
    async with running(tmp_path) as api:
        document = await api.get("/openapi.json")
    references = set()

    def collect(value):
        if isinstance(value, dict):
            references.update([value["$ref"]] if isinstance(value.get("$ref"), str) else [])
            for item in value.values():
                collect(item)
        elif isinstance(value, list):
            for item in value:
                collect(item)

    collect(document)
    assert references <= {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert set(document["paths"]["/v1/rounds/{round_number}"]) == {"put", "get", "delete"}
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert all(operation["description"] for operation in operations)
    assert all("422" not in operation["responses"] for operation in operations)


def test_the_help_names_units_defaults_and_variables():
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    text = " ".join(result.output.split())
    for piece in ("FEDJOB_PORT", "9000", "FEDJOB_DIR", "FEDJOB_STAGING_BYTES", "in bytes", "Seconds", "FEDJOB_TOKEN"):
        assert piece in text


@pytest.mark.parametrize(
    "arguments", [["--port", "70000"], ["--idle-seconds", "0"], ["--most-uploads", "0"], ["--what"]]
)
def test_wrong_flags_are_refused(arguments):
    assert CliRunner().invoke(main, arguments).exit_code == 2
