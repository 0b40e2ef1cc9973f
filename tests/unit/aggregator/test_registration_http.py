"""Registration over HTTP: what a client sends and is answered, what its token allows, what is kept over a restart."""

import stat

import pytest

from fedjob_aggregator.command import _registration
from fedjob_aggregator.registrations import REGISTERED_FILE
from fedjob_aggregator.registry import Limits
from fedjob_aggregator.settings import open_registration
from fedjob_protocol.registration import client_token
from tests.unit.aggregator.harness import running

URL = "http://client:8001"


async def register(api, url=URL, boot="boot-1", **headers):
    status, answer, _ = await api.call("POST", "/clients", json={"client_url": url, "boot_id": boot}, headers=headers)
    return status, answer


def as_client(token):
    return {"headers": {"Fedjob-Token": token}}


async def test_a_heartbeat_is_answered_with_the_round_and_how_many_are_connected(tmp_path):
    async with running(tmp_path) as api:
        assert (await register(api))[0] == 201
        await register(api, "http://other:8001", "boot-2")
        beat = {"clientUrl": URL, "bootId": "boot-1"}
        status, answer, _ = await api.call("PUT", "/v1/clients", json=beat)
        assert (status, answer["client"], answer["round"], answer["connected"]) == (200, 0, None, 2)
        await api.initialise()
        await api.open(1, clients=2)
        assert (await api.call("PUT", "/v1/clients", json=beat))[1]["round"] == 1
        status, answer, _ = await api.call("PUT", "/v1/clients", json={"clientUrl": URL, "bootId": "another"})
        assert (status, answer["word"]) == (404, "not-found")


async def test_a_clients_token_allows_its_own_and_nothing_else(tmp_path):
    async with running(tmp_path, token="secret") as api:
        _, answer = await register(api)
        token = answer["token"]
        assert token == client_token("secret", "boot-1")
        beat = {"clientUrl": URL, "bootId": "boot-1"}
        assert (await api.call("PUT", "/v1/clients", json=beat, **as_client(token)))[0] == 200
        for method, path in (("GET", "/v1/models/latest"), ("PUT", "/v1/rounds/1/updates/0")):
            status, answer, _ = await api.call(method, path, data=b"", **as_client(token))
            assert answer["word"] not in {"bad-token", "forbidden"}, (method, path, status)
        for method, path in (
            ("GET", "/v1/state"),
            ("GET", "/v1/clients"),
            ("PUT", "/v1/rounds/1"),
            ("PUT", "/v1/rounds/1/updates/1"),
            ("PUT", "/v1/rounds/1/failures/1"),
            ("DELETE", "/v1/clients/0"),
            ("PUT", "/v1/rounds/1/evaluation"),
            ("POST", "/v1/models/latest"),
        ):
            status, answer, _ = await api.call(method, path, data=b"", **as_client(token))
            assert (status, answer["word"]) == (401, "bad-token"), (method, path)


async def test_who_registers_an_address_by_hand_does_not_get_the_token_of_the_client_there(tmp_path):
    async with running(tmp_path, token="secret") as api:
        assert (await register(api))[1]["token"] == client_token("secret", "boot-1")
        status, answer, _ = await api.call("POST", "/clients", json={"client_url": URL})
        assert (status, answer.get("token")) == (201, None)
        assert (await register(api))[1]["token"] == client_token("secret", "boot-1"), "the client itself, again"


async def test_what_is_listed_for_people_has_no_secret(tmp_path):
    async with running(tmp_path, token="secret") as api:
        _, answer = await register(api, boot="a-secret-of-the-client")
        listed = str(await api.get("/clients"))
        assert "connected" in listed
        assert "a-secret-of-the-client" not in listed
        assert answer["token"] not in listed


async def test_a_restart_forgets_nobody(tmp_path):
    async with running(tmp_path, token="secret") as api:
        await register(api)
        await register(api, "http://other:8001", "boot-2")
    assert stat.S_IMODE((tmp_path / REGISTERED_FILE).stat().st_mode) == 0o600
    async with running(tmp_path, token="secret") as api:
        beat = {"clientUrl": "http://other:8001", "bootId": "boot-2"}
        status, answer, _ = await api.call(
            "PUT", "/v1/clients", json=beat, **as_client(client_token("secret", "boot-2"))
        )
        assert (status, answer["client"], answer["connected"]) == (200, 1, 2)
    (tmp_path / REGISTERED_FILE).write_text("{")
    async with running(tmp_path) as api:
        assert (await api.get("/clients"))["clients"] == []


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("http://10.1.2.3:8001", 201),
        ("http://hospital.example", 201),
        ("http://10.2.0.1:8001", 403),
        ("http://clinic.example", 403),
        ("http://10.1.0.9:443", 422),
    ],
)
async def test_hosts_are_limited_to_a_list(tmp_path, url, status):
    allowed, refused = ("10.1.0.0/16", "hospital.example"), ("10.1.0.9",)
    registration = open_registration(Limits(), allowed=allowed, refused=refused)
    async with running(tmp_path, registration=registration) as api:
        assert (await register(api, url))[0] == status


async def test_a_registration_token_is_asked_for_where_one_is_set(tmp_path):
    registration = open_registration(Limits(), token="let-me-in")
    async with running(tmp_path, registration=registration) as api:
        assert (await register(api))[0] == 401
        assert (await register(api, **{"Fedjob-Token": "wrong"}))[0] == 401
        assert (await register(api, **{"Fedjob-Token": "let-me-in"}))[0] == 201


async def test_the_page_of_another_site_registers_nobody(tmp_path):
    async with running(tmp_path) as api:
        assert (await register(api, Origin="http://evil.example"))[0] == 403


@pytest.mark.parametrize("field", ["boot_id", "group"])
@pytest.mark.parametrize("value", ["", "x" * 254, 7, "ü", "a\nb"])
async def test_what_is_no_name_is_refused_by_its_field(tmp_path, field, value):
    async with running(tmp_path) as api:
        status, answer, _ = await api.call("POST", "/clients", json={"client_url": URL, field: value})
        assert (status, field in answer["detail"]) == (422, True)


def test_in_a_cluster_the_api_server_is_no_client_and_each_group_has_its_own_token(monkeypatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("FEDJOB_EXTERNAL_GROUPS", '{"groups": [{"group": "a", "first": 1, "count": 2}]}')
    monkeypatch.setenv("FEDJOB_REGISTRATION_TOKEN_0", "secret-a")
    settings = _registration(Limits(), "10.0.0.0/8, hospital.example,")
    assert settings.refused_hosts == ("10.96.0.1",)
    assert settings.allowed_hosts == ("10.0.0.0/8", "hospital.example")
    (group,) = settings.groups
    assert (group.external.group, group.external.first, group.token) == ("a", 1, "secret-a")
