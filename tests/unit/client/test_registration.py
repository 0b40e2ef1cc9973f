"""A client that registers itself: who may call it, and the job that it is told."""

from fedjob_client.settings import Settings
from fedjob_protocol.config import ClientConfig, DataConfig, ModelConfig
from tests.unit.client.asgi import serving

CONFIG = ClientConfig(
    job_uid="uid",
    job_name="job",
    index=3,
    name="outside-3",
    group="outside",
    model=ModelConfig(name="linear"),
    data=DataConfig(name="synthetic-linear", parameters={"numSamples": 40, "numTestSamples": 10}),
)
OUTSIDE = Settings(server_url="http://127.0.0.1:1", client_url="http://127.0.0.1:2")


def body(**changes):
    return CONFIG.model_copy(update=changes).model_dump_json(by_alias=True, exclude_none=True).encode()


async def test_nobody_may_call_a_client_that_has_not_registered_yet():
    async with serving(OUTSIDE) as call:
        for method, path in (("GET", "/v1/info"), ("PUT", "/v1/job")):
            answer = await call(method, path, body())
            assert (answer.status, answer.json["word"]) == (503, "unavailable")
        assert (await call("GET", "/health")).status == 200


async def test_it_works_for_the_job_that_it_is_told_and_takes_another_one_in_its_place():
    async with serving(OUTSIDE) as call:
        access = call.app.state.service.access
        access.token, access.is_closed = "its-own", False
        token = {"Content_Type": "application/json", "Fedjob_Token": "its-own"}
        assert (
            await call("PUT", "/v1/job", body(), Content_Type="application/json", Fedjob_Token="the-jobs")
        ).status == 401
        for _ in range(2):
            info = (await call("PUT", "/v1/job", body(), **token)).json
            assert (info["index"], info["examples"], info["jobUid"]) == (3, 40, "uid")
        info = (await call("PUT", "/v1/job", body(index=1, job_uid="next"), **token)).json
        assert (info["index"], info["jobUid"]) == (1, "next")


async def test_what_it_cannot_do_is_said_in_one_line():
    async with serving(OUTSIDE) as call:
        access = call.app.state.service.access
        access.token, access.is_closed = "its-own", False
        wrong = {
            "trainer": {"trainer": "nowhere:Trainer"},
            "model": {"model": ModelConfig(name="unheard-of")},
            "paths": {"trainer_path": "/tmp"},
        }
        for changes in wrong.values():
            answer = await call(
                "PUT", "/v1/job", body(**changes), Content_Type="application/json", Fedjob_Token="its-own"
            )
            assert answer.status in {403, 422}
            assert any(word in answer.json["detail"] for word in ("nowhere", "unheard-of", "no paths"))


async def test_a_client_that_was_not_asked_to_register_is_told_no_job():
    async with serving(Settings(token="the-jobs")) as call:
        answer = await call("PUT", "/v1/job", body(), Content_Type="application/json", Fedjob_Token="the-jobs")
        assert (answer.status, answer.json["word"]) == (403, "forbidden")
