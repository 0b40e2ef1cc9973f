"""A real client process and a small aggregator: what the client does with its tasks."""

import asyncio
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web

from fedjob_protocol.digests import sha256_of, xxh3_of
from fedjob_protocol.routes import MAX_JSON_BODY_BYTES
from fedjob_protocol.weights import encode
from tests.integration.client_support import Client, a_client, a_config, an_aggregator, an_api

pytestmark = pytest.mark.integration

rounds = itertools.count(1)
"""Each test has rounds of its own: the process goes on."""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with a_client(tmp_path_factory.mktemp("client"), a_config()) as started:
        yield started


def problem(status: int, word: str) -> web.Response:
    body = {"title": "no", "status": status, "detail": "it says why", "word": word}
    return web.json_response(body, status=status, content_type="application/problem+json")


async def cut(request: web.Request) -> web.StreamResponse:
    """Half an answer, then nothing."""
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b"half")
    assert request.transport is not None
    request.transport.abort()
    return response


async def hang_up(request: web.Request) -> web.StreamResponse:
    """A connection that breaks in the middle of an upload."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def test_a_task_is_trained_and_its_delta_uploaded(client):
    number = next(rounds)
    async with an_aggregator() as aggregator, an_api(client.url) as api:
        view = await api.train(number, aggregator.task(number))
        assert view["state"] in {"Fetching", "Training", "Uploading"}
        await aggregator.until(lambda: aggregator.uploads)
        view = await api.until(number, "Reported")
    (upload,) = aggregator.uploads
    assert upload.arrays()["w"].tolist() == [1, 1, 1, 1]
    assert upload.arrays()["w"].dtype == np.float32
    headers = upload.headers
    assert headers["Content-Length"] == str(len(upload.body))
    assert "Transfer-Encoding" not in headers
    assert headers["Content-Type"] == "application/vnd.safetensors"
    assert headers["Fedjob-Token"] == "a token"
    assert headers["Fedjob-Protocol"] == "1"
    assert headers["Fedjob-Job-Uid"] == "job-1"
    assert (headers["Fedjob-Term"], headers["Fedjob-Attempt"], headers["Fedjob-Boot-Id"]) == ("1", "1", "boot-a")
    assert headers["Fedjob-Examples"] == "7"
    assert headers["Fedjob-Digest"] == xxh3_of(upload.body)
    assert json.loads(headers["Fedjob-Metrics"]) == {"loss": 1 / number}
    assert float(headers["Fedjob-Train-Seconds"]) >= 0
    assert headers["Fedjob-Machine"].endswith(", threads 1")
    assert view["trainings"] == 1
    assert view["epoch"] == 1
    assert view["epochs"] == 2
    assert view["transfersRepeated"] == 0


async def test_the_same_work_is_trained_once_although_its_destination_changes(client):
    number = next(rounds)
    client.hold()
    async with an_aggregator() as aggregator, an_api(client.url) as api:
        aggregator.serve(w=np.full(4, 8, dtype=np.float32))
        await api.train(number, aggregator.task(number, aggregator.destination("first")))
        await api.until(number, "Training")
        await api.train(number, aggregator.task(number, aggregator.destination("second", attempt=2)))
        view = await api.train(number, aggregator.task(number, aggregator.destination("third", term=2)))
        assert (view["state"], view["term"], view["attempt"]) == ("Training", 2, 1)
        client.release()
        await api.until(number, "Reported")
        await api.train(number, aggregator.task(number, aggregator.destination("fourth", term=2, attempt=2)))
        await aggregator.until(lambda: len(aggregator.uploads) == 2)
        view = await api.until(number, "Reported")
        # Terms that are over do not count any more.
        late = aggregator.task(number, aggregator.destination("fifth", term=1, attempt=9))
        status, answer = await api.call("POST", f"/v1/rounds/{number}/train", late)
    assert [upload.label for upload in aggregator.uploads] == ["third", "fourth"]
    assert aggregator.uploads[0].body == aggregator.uploads[1].body
    assert client.notes().count(f"train {number}") == 1
    assert view["trainings"] == 1
    assert aggregator.fetches == 1
    assert (status, answer["word"]) == (412, "stale-term")


@pytest.fixture
def term() -> int:
    """Later tests belong to a later operator: the client follows the newest."""
    return 3


async def test_the_model_is_fetched_again_until_it_comes_whole(client, term):
    number = next(rounds)

    async def unavailable(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=502)

    async def damaged(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=aggregator.model[:-1] + b"\x7f")

    async with an_aggregator() as aggregator, an_api(client.url) as api:
        aggregator.serve(w=np.full(4, 9, dtype=np.float32))
        aggregator.on_fetch.extend([unavailable, damaged, cut])
        await api.train(number, aggregator.task(number, aggregator.destination(term=term)))
        view = await api.until(number, "Reported", "Failed")
    assert view["state"] == "Reported"
    assert view["transfersRepeated"] == 3
    assert aggregator.fetches == 4


async def test_a_model_that_is_known_is_not_fetched_again(client, term):
    async with an_aggregator() as aggregator, an_api(client.url) as api:
        for number in (next(rounds), next(rounds)):
            await api.train(number, aggregator.task(number, aggregator.destination(term=term)))
            await api.until(number, "Reported")
    assert aggregator.fetches <= 1
    assert len(aggregator.uploads) == 2


async def test_the_update_is_sent_again_until_it_arrives(client, term):
    number = next(rounds)

    async def mismatch(request: web.Request) -> web.StreamResponse:
        await request.read()
        return problem(400, "digest-mismatch")

    async def bad_gateway(request: web.Request) -> web.StreamResponse:
        await request.read()
        return web.Response(status=502, text="<html>")

    async with an_aggregator() as aggregator, an_api(client.url) as api:
        aggregator.on_upload.extend([hang_up, bad_gateway, mismatch])
        await api.train(number, aggregator.task(number, aggregator.destination(term=term)))
        view = await api.until(number, "Reported", "Failed")
    assert view["state"] == "Reported"
    # A connection that breaks while it is reused is tried again by the HTTP library as well.
    assert 2 <= view["transfersRepeated"] <= 3
    assert view["trainings"] == 1
    assert len(aggregator.uploads) == 1
    assert client.notes().count(f"train {number}") == 1


@pytest.mark.parametrize(
    ("status", "word", "state", "reports"),
    [(409, "already-reported", "Reported", 0), (409, "round-closed", "Failed", 0), (422, "wrong-shape", "Failed", 1)],
)
async def test_an_answer_that_is_final_ends_the_task(client, term, status, word, state, reports):
    number = next(rounds)

    async def refuse(request: web.Request) -> web.StreamResponse:
        await request.read()
        return problem(status, word)

    async with an_aggregator() as aggregator, an_api(client.url) as api:
        aggregator.on_upload.append(refuse)
        await api.train(number, aggregator.task(number, aggregator.destination(term=term)))
        view = await api.until(number, "Reported", "Failed")
        await aggregator.until(lambda: len(aggregator.failures) == reports)
    assert view["state"] == state
    assert view["transfersRepeated"] == 0
    if state == "Failed":
        assert view["reason"] == "UpdateRefused"
        assert view["message"] == f"{word}: it says why"


async def test_nobody_to_deliver_to_is_a_failure_at_the_deadline(client, term):
    number = next(rounds)
    async with an_aggregator() as aggregator, an_api(client.url) as api:
        destination = aggregator.destination(term=term, seconds=0.6) | {"uploadUrl": "http://127.0.0.1:1/up"}
        await api.train(number, aggregator.task(number, destination))
        view = await api.until(number, "Failed")
    assert view["reason"] == "TransferFailed"
    assert "could not be delivered before the deadline" in view["message"]
    assert view["transfersRepeated"] >= 2


@pytest.mark.parametrize(
    ("parameters", "reason", "message"),
    [
        ({"fail": True}, "TrainerError", "ValueError: the sensor is broken"),
        ({"nan": True}, "NonFiniteUpdate", "train returned 'w' with 1 of 4 values that are not finite"),
    ],
)
async def test_a_trainer_that_fails_is_reported_in_one_line(client, term, parameters, reason, message):
    number = next(rounds)
    async with an_aggregator() as aggregator, an_api(client.url) as api:
        await api.train(number, aggregator.task(number, aggregator.destination(term=term), **parameters))
        await aggregator.until(lambda: aggregator.failures)
        view = await api.view(number)
        # Another attempt reports again and does not train again.
        again = aggregator.destination("b", term=term, attempt=2)
        await api.train(number, aggregator.task(number, again, **parameters))
        await aggregator.until(lambda: len(aggregator.failures) == 2)
    report = json.loads(aggregator.failures[0].body)
    assert report["reason"] == view["reason"] == reason
    assert report["message"] == view["message"]
    assert view["message"].startswith(message)
    assert (report["jobUid"], report["term"], report["attempt"], report["bootId"]) == ("job-1", term, 1, "boot-a")
    assert aggregator.failures[1].label == "b"
    assert client.notes().count(f"train {number}") == 1
    assert not aggregator.uploads


async def test_cancelling_stops_a_training_and_a_newer_round_an_older_one(client, term):
    first, second, third = next(rounds), next(rounds), next(rounds)
    client.hold()
    async with an_aggregator() as aggregator, an_api(client.url) as api:
        await api.train(first, aggregator.task(first, aggregator.destination(term=term)))
        await api.until(first, "Training")
        stale = {"Fedjob_Term": str(term - 1), "Fedjob_Attempt": "1"}
        status, answer = await api.call("DELETE", f"/v1/rounds/{first}", **stale)
        assert (status, answer["word"]) == (412, "stale-term")
        status, view = await api.call("DELETE", f"/v1/rounds/{first}")
        assert (status, view["state"]) == (200, "Cancelled")
        await api.train(second, aggregator.task(second, aggregator.destination(term=term)))
        await api.until(second, "Training")
        await api.train(third, aggregator.task(third, aggregator.destination("third", term=term)))
        assert (await api.call("GET", f"/v1/rounds/{second}"))[0] == 404
        client.release()
        await api.until(third, "Reported")
    assert [upload.label for upload in aggregator.uploads] == ["third"]


async def test_a_large_update_asks_first_and_goes_in_blocks(client, term):
    number = next(rounds)
    large = np.zeros(700_000, dtype=np.float32)
    asked = []

    async def refuse(request: web.Request) -> web.StreamResponse:
        asked.append(request.headers["Expect"])
        return problem(503, "unavailable")

    async with an_aggregator() as aggregator, an_api(client.url) as api:
        aggregator.serve(w=large)
        aggregator.on_expect.append(refuse)
        await api.train(number, aggregator.task(number, aggregator.destination(term=term)))
        view = await api.until(number, "Reported", "Failed")
    assert asked == ["100-continue"]
    assert view["state"] == "Reported"
    assert view["transfersRepeated"] == 1
    (upload,) = aggregator.uploads
    assert len(upload.body) > 2_800_000
    assert upload.headers["Fedjob-Digest"] == xxh3_of(upload.body)
    assert (upload.arrays()["w"] == 1).all()


async def test_a_server_that_does_not_know_expect_gets_the_update_all_the_same(client, term):
    number = next(rounds)

    async def say_nothing(request: web.Request) -> web.StreamResponse | None:
        return None

    async with an_aggregator() as aggregator, an_api(client.url) as api:
        aggregator.serve(w=np.ones(700_000, dtype=np.float32))
        aggregator.on_expect.append(say_nothing)
        await api.train(number, aggregator.task(number, aggregator.destination(term=term)))
        view = await api.until(number, "Reported", "Failed")
    assert view["state"] == "Reported"
    assert view["transfersRepeated"] == 0
    assert len(aggregator.uploads) == 1


async def test_a_model_that_is_too_large_is_not_read(client, term):
    number = next(rounds)
    async with an_aggregator() as aggregator, an_api(client.url) as api:
        aggregator.serve(w=np.full(50, 3.0))
        task = aggregator.task(number, aggregator.destination(term=term)) | {"maxModelBytes": 100}
        await api.train(number, task)
        await aggregator.until(lambda: aggregator.failures)
        view = await api.view(number)
    assert view["reason"] == "TransferFailed"
    assert "at most 100 are accepted" in view["message"]


async def test_the_initial_model_is_uploaded_whole(client, term):
    async with an_aggregator() as aggregator, an_api(client.url) as api:
        body = {"jobUid": "job-1", "seed": 4, "destination": aggregator.destination(term=term + 1)}
        status, view = await api.call("POST", "/v1/init", body)
        assert status == 200
        assert view["round"] == 0
        await api.until(0, "Reported")
    (upload,) = aggregator.uploads
    assert upload.arrays()["w"].tolist() == [4, 4, 4, 4]
    assert upload.headers["Fedjob-Examples"] == "10"


async def test_what_does_not_belong_here_is_refused_as_a_problem(client):
    async with an_aggregator() as aggregator, an_api(client.url) as api:
        task = aggregator.task(900)
        answers = {
            "bad-token": await api.call("GET", "/v1/info", Fedjob_Token="guess"),
            "unsupported-protocol": await api.call("GET", "/v1/info", Fedjob_Protocol="7"),
            "wrong-job": await api.call("POST", "/v1/rounds/900/train", task | {"jobUid": "job-2"}),
            "wrong-base": await api.call("POST", "/v1/rounds/899/train", task),
            "not-found": await api.call("POST", "/train"),
            "bad-request": await api.call("POST", "/v1/rounds/900/train", task | {"modelUrl": "file:///etc/passwd"}),
            "method-not-allowed": await api.call("PUT", "/v1/info"),
            "too-large": await api.call("POST", "/predict", Content_Length=str(MAX_JSON_BODY_BYTES + 1)),
        }
    assert {answer["word"] for _, answer in answers.values()} == set(answers)
    assert [status for status, _ in answers.values()] == [401, 426, 409, 409, 404, 422, 405, 413]
    assert all(answer.keys() >= {"title", "detail", "status"} for _, answer in answers.values())


async def test_a_client_says_who_it_is(client):
    async with an_api(client.url) as api:
        _, info = await api.call("GET", "/v1/info")
        _, health = await api.call("GET", "/health")
        assert (await api.call("GET", "/ready"))[0] == 200
    assert (info["jobUid"], info["role"], info["index"], info["name"]) == ("job-1", "Trainer", 2, "clients-2")
    assert (info["examples"], info["testExamples"], info["backend"]) == (10, 4, "cpu")
    assert info["fingerprint"]["openblas_num_threads"] == "1"
    assert health["status"] == "ok"
    assert health["cuda_available"] in {True, False}


async def test_a_model_is_evaluated_once_and_predicts(client):
    async with an_aggregator() as aggregator, an_api(client.url) as api:
        aggregator.serve(w=np.full(4, 2, dtype=np.float32))
        aggregator.on_fetch.append(cut)
        task = {
            "jobUid": "job-1",
            "base": {"round": 70, "digest": aggregator.digest},
            "modelUrl": f"{aggregator.url}/model",
        }
        views = await asyncio.gather(*(api.call("POST", "/v1/evaluate?wait=20", task) for _ in range(3)))
        _, again = await api.call("POST", "/v1/evaluate", task)
        status, prediction = await api.call("POST", "/predict", {"inputs": [1.5, 2]})
    assert all(view == again for _, view in views)
    assert again["state"] == "Done"
    assert again["metrics"] == {"mean": 2.0}
    assert again["examples"] == 4
    assert (again["reason"], again["message"]) == ("NonFiniteMetric", "left out because they are not finite: auc")
    assert client.notes().count("evaluate 70") == 1
    assert aggregator.fetches == 2
    assert status == 200
    assert prediction == {"outputs": [3.5, 4.0], "round": 70}


async def test_a_model_that_has_moved_is_fetched_from_where_it_is_now(client):
    # An aggregator that is started again has another address: the old one was tried until the evaluation failed.
    async with an_aggregator() as aggregator, an_api(client.url) as api:
        aggregator.serve(w=np.full(4, 3, dtype=np.float32))
        task = {"jobUid": "job-1", "base": {"round": 80, "digest": aggregator.digest}}
        _, before = await api.call("POST", "/v1/evaluate", task | {"modelUrl": "http://127.0.0.1:1/model"})
        _, view = await api.call("POST", "/v1/evaluate?wait=20", task | {"modelUrl": f"{aggregator.url}/model"})
    assert before["state"] == "Running"
    assert (view["state"], view["metrics"]) == ("Done", {"mean": 3.0})
    assert client.notes().count("evaluate 80") == 1


async def test_a_job_that_starts_from_a_checkpoint_uploads_it(tmp_path: Path):
    start = np.array([1, 2, 3, 4], np.float32)
    data = encode({"w": start}, {"fedjob.round": "12"})
    (tmp_path / "start.safetensors").write_bytes(data)
    config = a_config(model_file=str(tmp_path / "start.safetensors"), model_digest=sha256_of(data))
    with a_client(tmp_path, config) as client:
        async with an_aggregator() as aggregator, an_api(client.url) as api:
            _, prediction = await api.call("POST", "/predict", {"inputs": [1]})
            body = {"jobUid": "job-1", "seed": 4, "destination": aggregator.destination()}
            await api.call("POST", "/v1/init", body)
            await api.until(0, "Reported")
    assert prediction == {"outputs": [2.0], "round": 12}
    assert aggregator.uploads[0].arrays()["w"].tolist() == start.tolist()


async def test_a_checkpoint_with_other_tensors_than_the_trainers_model_is_not_uploaded(tmp_path: Path):
    (tmp_path / "start.safetensors").write_bytes(encode({"w": np.zeros(4)}))
    config = a_config(model_file=str(tmp_path / "start.safetensors"))
    with a_client(tmp_path, config) as client:
        async with an_aggregator() as aggregator, an_api(client.url) as api:
            body = {"jobUid": "job-1", "seed": 4, "destination": aggregator.destination()}
            await api.call("POST", "/v1/init", body)
            view = await api.until(0, "Failed")
    assert view["reason"] == "ArchitectureMismatch"
    assert "tensor 'w' is F64, F32 is expected" in view["message"]
    assert aggregator.uploads == []


async def test_another_jobs_model_is_fetched_with_its_permit_and_never_with_the_own_token(tmp_path: Path):
    with a_client(tmp_path, a_config()) as client:
        async with an_aggregator() as aggregator, an_api(client.url) as api:
            origin = {"round": 3, "digest": aggregator.digest, "modelUrl": f"{aggregator.url}/model", "permit": "it"}
            body = {"jobUid": "job-1", "seed": 4, "destination": aggregator.destination(), "origin": origin}
            await api.call("POST", "/v1/init", body)
            await api.until(0, "Reported")
    assert aggregator.uploads[0].arrays()["w"].tolist() == [0, 1, 2, 3]
    assert aggregator.tokens == ["it"]
