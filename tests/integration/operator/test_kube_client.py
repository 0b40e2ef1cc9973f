"""Requests to the API server: what goes over the wire, what is tried again, and what is given up."""

import asyncio
import json
import time
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from fedjob_operator.adapters.kube import client as clients
from fedjob_operator.adapters.kube.api import JOBS, LEASES, PODS, ApiRefusedError, ApiUnavailableError
from fedjob_operator.adapters.kube.client import KubeClient
from fedjob_operator.adapters.kube.login import LoginError, log_in
from tests.integration.operator.http_api import HttpApi, kubeconfig, serving

POD = "/api/v1/namespaces/lab/pods/p"
FINE = (200, {"metadata": {"name": "p"}}, {})


def status(code, reason="", message="no", **headers):
    return (code, {"kind": "Status", "message": message, "reason": reason}, headers)


@asynccontextmanager
async def meeting(tmp_path, **options):
    async with serving(HttpApi()) as api:
        counted = []
        login = await log_in(kubeconfig(tmp_path, api.url), None)
        client = KubeClient(login, on_request=lambda verb, code: counted.append((verb, code)), **options)
        try:
            yield api, client, counted
        finally:
            await client.close()


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
    monkeypatch.setattr(clients, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(clients, "MAX_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(clients, "DEADLINE_SECONDS", 2.0)


async def test_an_object_is_read_with_our_token(tmp_path):
    async with meeting(tmp_path) as (api, client, counted):
        api.answer("GET", POD, FINE)
        assert await client.get(PODS, "lab", "p") == FINE[1]
        [(_, path, headers, _)] = api.requests
        assert (path, headers["Authorization"]) == (POD, "Bearer t0ken")
        assert counted == [("get", "200")]


CALLS = [
    (lambda c: c.create(PODS, "lab", {"a": 1}), "POST", "/api/v1/namespaces/lab/pods", {"a": 1}, "application/json"),
    (
        lambda c: c.create(PODS, "lab", {"a": 1}, dry_run=True),
        "POST",
        "/api/v1/namespaces/lab/pods?dryRun=All&fieldValidation=Strict",
        {"a": 1},
        "application/json",
    ),
    (
        lambda c: c.replace(LEASES, "ops", {"metadata": {"name": "l"}}),
        "PUT",
        "/apis/coordination.k8s.io/v1/namespaces/ops/leases/l",
        {"metadata": {"name": "l"}},
        "application/json",
    ),
    (
        lambda c: c.patch_status(JOBS, "lab", "j", {"status": {"x": None}}),
        "PATCH",
        "/apis/fedjob.dev/v1alpha1/namespaces/lab/federatedjobs/j/status",
        {"status": {"x": None}},
        "application/merge-patch+json",
    ),
    (
        lambda c: c.delete(PODS, "lab", "p", uid="u-1", grace_seconds=5),
        "DELETE",
        "/api/v1/namespaces/lab/pods/p",
        {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": "u-1"},
            "propagationPolicy": "Background",
            "gracePeriodSeconds": 5,
        },
        "application/json",
    ),
]


@pytest.mark.parametrize(
    ("call", "method", "path", "body", "content"), CALLS, ids=[call[1] + call[2][-8:] for call in CALLS]
)
async def test_what_is_sent(tmp_path, call, method, path, body, content):
    async with meeting(tmp_path) as (api, client, _):
        api.answer(method, path.partition("?")[0], FINE)
        await call(client)
        [(seen_method, seen_path, headers, sent)] = api.requests
        assert (seen_method, seen_path, json.loads(sent)) == (method, path, body)
        assert headers["Content-Type"] == content


async def test_a_list_is_fetched_in_pieces(tmp_path):
    async with meeting(tmp_path) as (api, client, _):
        pages = [
            (200, {"metadata": {"continue": "next"}, "items": [{"n": 1}, {"n": 2}]}, {}),
            (200, {"metadata": {}, "items": [{"n": 3}]}, {}),
        ]
        api.answer("GET", "/api/v1/namespaces/lab/pods", *pages)
        found = await client.list(PODS, "lab", labels="a=b,c")
        assert [item["n"] for item in found] == [1, 2, 3]
        assert api.requests[0][1] == "/api/v1/namespaces/lab/pods?limit=500&labelSelector=a%3Db,c"
        assert "continue=next" in api.requests[1][1]


async def test_a_list_that_took_too_long_begins_anew(tmp_path):
    async with meeting(tmp_path) as (api, client, _):
        api.answer(
            "GET",
            "/api/v1/pods",
            (200, {"metadata": {"continue": "next"}, "items": [{"n": 1}]}, {}),
            status(410, "Expired"),
            (200, {"metadata": {}, "items": [{"n": 1}, {"n": 2}]}, {}),
        )
        assert [item["n"] for item in await client.list(PODS, None)] == [1, 2]


async def test_no_more_is_fetched_than_was_asked_for(tmp_path):
    async with meeting(tmp_path) as (api, client, _):
        api.answer("GET", "/api/v1/pods", (200, {"metadata": {"continue": "next"}, "items": [{"n": 1}]}, {}))
        assert len(await client.list(PODS, None, most=1)) == 1
        assert len(api.requests) == 1


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
async def test_what_may_succeed_later_is_tried_again(tmp_path, code):
    async with meeting(tmp_path) as (api, client, counted):
        api.answer("GET", POD, status(code), status(code), FINE)
        assert await client.get(PODS, "lab", "p") == FINE[1]
        assert counted == [("get", str(code))] * 2 + [("get", "200")]


async def test_the_server_says_how_long_to_wait(tmp_path):
    async with meeting(tmp_path) as (api, client, _):
        api.answer("GET", POD, (429, {}, {"Retry-After": "1"}), FINE)
        began = time.monotonic()
        await client.get(PODS, "lab", "p")
        assert time.monotonic() - began >= 1


async def test_without_an_answer_it_is_given_up_after_a_while(tmp_path):
    async with meeting(tmp_path) as (api, client, _):
        api.answer("GET", POD, status(503, message="the server is shutting down"))
        with pytest.raises(ApiUnavailableError, match=f"GET {POD}: the server is shutting down"):
            await client.get(PODS, "lab", "p")
        assert len(api.requests) > 3


async def test_a_server_that_hangs_is_given_up_after_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr(clients, "DEADLINE_SECONDS", 0.2)

    async def hang(_):
        await asyncio.sleep(30)

    async with meeting(tmp_path) as (api, client, _):
        api.answer("GET", POD, hang)
        with pytest.raises(ApiUnavailableError):
            await client.get(PODS, "lab", "p")


async def test_nobody_there_is_no_answer(tmp_path, monkeypatch):
    monkeypatch.setattr(clients, "DEADLINE_SECONDS", 0.2)
    login = await log_in(kubeconfig(tmp_path, "http://127.0.0.1:1"), None)
    client = KubeClient(login)
    with pytest.raises(ApiUnavailableError, match="Cannot connect"):
        await client.get(PODS, "lab", "p")
    await client.close()


async def test_an_answer_that_breaks_off_is_asked_for_again(tmp_path):
    async def cut(request):
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"{")
        request.transport.close()
        return response

    async def whole(_):
        return web.json_response(FINE[1])

    async with meeting(tmp_path) as (api, client, _):
        api.answer("GET", POD, cut, whole)
        assert await client.get(PODS, "lab", "p") == FINE[1]


@pytest.mark.parametrize("code", [400, 403, 404, 409, 422])
async def test_a_no_is_not_asked_again(tmp_path, code):
    async with meeting(tmp_path) as (api, client, _):
        api.answer("GET", POD, status(code, "Why", "in the server's words"))
        with pytest.raises(ApiRefusedError, match="in the server's words") as caught:
            await client.get(PODS, "lab", "p")
        assert (caught.value.status, caught.value.reason) == (code, "Why")
        assert (caught.value.is_absent, caught.value.is_conflict) == (code == 404, code == 409)
        assert len(api.requests) == 1


async def test_a_no_without_words_names_the_request(tmp_path):
    async def gateway(_):
        return web.Response(status=403, body=b"<html>Forbidden</html>")

    async with meeting(tmp_path) as (api, client, _):
        api.answer("GET", POD, gateway)
        with pytest.raises(ApiRefusedError, match=f"GET {POD}: status 403"):
            await client.get(PODS, "lab", "p")


async def test_a_token_that_is_no_longer_accepted_is_read_again(tmp_path):
    async with meeting(tmp_path) as (api, client, counted):
        api.answer("GET", POD, status(401), FINE)
        assert await client.get(PODS, "lab", "p") == FINE[1]
        assert [code for _, code in counted] == ["401", "200"]


async def test_one_that_is_never_accepted_is_said_to_be_so(tmp_path):
    async with meeting(tmp_path) as (api, client, _):
        api.answer("GET", POD, status(401, "Unauthorized", "Unauthorized"))
        with pytest.raises(ApiRefusedError) as caught:
            await client.get(PODS, "lab", "p")
        assert caught.value.status == 401
        assert len(api.requests) == 2


async def test_only_so_many_requests_are_under_way(tmp_path):
    under_way, most = 0, 0

    async def slow(_):
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.02)
        under_way -= 1
        return web.json_response({})

    async with meeting(tmp_path, at_once=3) as (api, client, _):
        api.answer("GET", POD, slow)
        await asyncio.gather(*(client.get(PODS, "lab", "p") for _ in range(12)))
        assert most == 3


async def test_names_cannot_lead_elsewhere(tmp_path):
    async with meeting(tmp_path) as (api, client, _):
        with pytest.raises(ApiRefusedError):
            await client.get(PODS, "lab", "p?x=1#y")
        assert "%3F" in api.requests[0][1]


# Logging in


async def test_a_kubeconfig_that_is_not_there_is_said_to_be_so(tmp_path):
    with pytest.raises(LoginError, match="nowhere"):
        await log_in(str(tmp_path / "nowhere"), None)


async def test_a_context_that_is_not_there_is_said_to_be_so(tmp_path):
    with pytest.raises(LoginError, match="other"):
        await log_in(kubeconfig(tmp_path, "http://127.0.0.1:1"), "other")


async def test_in_a_cluster_proxies_for_the_world_outside_are_not_used(tmp_path, monkeypatch):
    async with serving(HttpApi()) as api:
        api.answer("GET", POD, FINE)
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        login = await log_in(kubeconfig(tmp_path, api.url), None)
        login.configuration.client_session_kwargs = {"trust_env": False}  # as in a cluster
        client = KubeClient(login)
        assert await client.get(PODS, "lab", "p") == FINE[1]
        await client.close()


async def test_a_session_is_logged_in(tmp_path):
    async with serving(HttpApi()) as api:
        api.answer("GET", POD, FINE)
        login = await log_in(kubeconfig(tmp_path, api.url), None)
        async with login.open_session() as session, session.get(api.url + POD) as answer:
            assert answer.status == 200
        assert api.requests[0][2]["Authorization"] == "Bearer t0ken"
