"""The life and death of a real client process."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import aiohttp
import psutil
import pytest
from aiohttp import web

from fedjob_client.cuda.driver import cuda_available
from fedjob_protocol.process import EXIT_FATAL, EXIT_USAGE
from tests.integration.client_support import COMMAND, a_client, a_config, an_aggregator, an_api, environment
from tests.integration.client_trainers import FOLDER

pytestmark = pytest.mark.integration


def test_sigterm_ends_an_idle_client_cleanly(tmp_path: Path):
    with a_client(tmp_path, None) as client:
        client.process.send_signal(signal.SIGTERM)
        assert client.process.wait(2) == 0


def test_sigterm_ends_a_client_with_the_code_that_it_was_told(tmp_path: Path):
    with a_client(tmp_path, None, "--stopped-exit-code", "143") as client:
        client.process.send_signal(signal.SIGTERM)
        assert client.process.wait(2) == 143


async def test_sigterm_ends_a_client_in_the_middle_of_a_deaf_training(tmp_path: Path):
    with a_client(tmp_path, a_config()) as client:
        client.hold()
        async with an_aggregator() as aggregator, an_api(client.url) as api:
            await api.train(1, aggregator.task(1, deaf=True))
            await api.until(1, "Training")
            began = time.monotonic()
            client.process.send_signal(signal.SIGTERM)
            code = await asyncio.to_thread(client.process.wait, 5)
        assert code == 0
        assert time.monotonic() - began < 2


async def test_whoever_waits_for_an_answer_gets_one_when_the_client_stops(tmp_path: Path):
    async def never(_request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    with a_client(tmp_path, a_config(role="Evaluator")) as client:
        async with an_aggregator() as aggregator, an_api(client.url) as api:
            aggregator.on_fetch.append(never)
            base = {"round": 1, "digest": aggregator.digest}
            task = {"jobUid": "job-1", "base": base, "modelUrl": f"{aggregator.url}/model"}
            waiting = asyncio.create_task(api.call("POST", "/v1/evaluate?wait=30", task))
            await aggregator.until(lambda: not aggregator.on_fetch)
            client.process.send_signal(signal.SIGTERM)
            status, view = await asyncio.wait_for(waiting, 5)
            code = await asyncio.to_thread(client.process.wait, 5)
    assert (status, view["state"], code) == (200, "Running", 0)
    assert "Traceback" not in (tmp_path / "log").read_text()


PARENT = """
import subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
print(child.stdout.readline().decode(), end="", flush=True)
child.wait()
"""


def test_a_client_dies_with_its_parent(tmp_path: Path):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, *COMMAND], stdout=subprocess.PIPE, env=environment(tmp_path, None)
    )
    assert parent.stdout is not None
    with parent.stdout:
        child = psutil.Process(json.loads(parent.stdout.readline())["pid"])
        parent.kill()
        parent.wait()
        child.wait(5)  # raises if it still runs


def ended(tmp_path: Path, *arguments: str, **variables: str) -> tuple[int, str, dict[str, str] | None]:
    """Exit code, standard error and termination log of a client that cannot start."""
    log = tmp_path / "termination"
    environ = {**os.environ, FOLDER: str(tmp_path), "FEDJOB_TERMINATION_LOG": str(log), **variables}
    done = subprocess.run([*COMMAND, *arguments], env=environ, capture_output=True, text=True, timeout=20, check=False)
    assert done.stdout == ""
    return done.returncode, done.stderr, json.loads(log.read_text()) if log.exists() else None


@pytest.mark.parametrize(
    ("changes", "reason", "message"),
    [
        (
            {"trainer": None, "model": {"name": "mlp"}, "data": {"name": "mnist", "path": "/no/such/folder"}},
            "DataError",
            "/no/such/folder: there is none of train-images-idx3-ubyte",
        ),
        ({"trainer": "no_such_module:Mine"}, "TrainerError", "there is no module no_such_module"),
        ({"trainer": None, "model": {"name": "rnn"}, "data": {"name": "digits"}}, "InvalidSpec", "'rnn' is not known"),
        ({"model_file": "/no/such/file"}, "DataError", "modelFile /no/such/file: No such file"),
    ],
)
def test_a_client_that_cannot_load_its_job_says_why_in_one_line(tmp_path, changes, reason, message):
    config = a_config(**changes)
    code, errors, termination = ended(tmp_path, FEDJOB_CONFIG=config.model_dump_json(by_alias=True, exclude_none=True))
    assert code == EXIT_FATAL
    assert termination is not None
    assert termination["reason"] == reason
    assert message in termination["message"]
    assert message in errors.splitlines()[-1]


def test_wrong_settings_and_a_port_in_use_are_errors_of_usage(tmp_path: Path):
    code, errors, termination = ended(tmp_path, FEDJOB_CONFIG="{}")
    assert code == EXIT_USAGE
    assert termination == {"reason": "InvalidSpec", "message": "FEDJOB_CONFIG: jobUid: Field required (seen: {})"}
    code, errors, _ = ended(tmp_path, "--server-url", "http://127.0.0.1:9000")
    assert code == EXIT_USAGE
    assert "--client-url (CLIENT_URL) is missing" in errors
    with a_client(tmp_path, None) as client:
        code, errors, _ = ended(tmp_path, "--port", client.url.rsplit(":", 1)[1])
    assert code == EXIT_USAGE
    assert "choose another port with --port" in errors


@pytest.mark.skipif(cuda_available(), reason="this machine has a GPU")
def test_a_client_that_is_to_use_a_gpu_ends_where_there_is_none(tmp_path: Path):
    code, errors, termination = ended(tmp_path, "--device", "gpu")
    assert code == EXIT_FATAL
    assert termination is not None
    assert termination["reason"] == "GpuUnavailable"
    assert "there is no NVIDIA driver" in errors.splitlines()[-1]


def test_help_names_every_flag_with_its_variable(tmp_path: Path):
    shown = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, timeout=20, check=True).stdout
    for name in (
        "FEDJOB_PORT",
        "FEDJOB_HOST",
        "FEDJOB_INDEX",
        "FEDJOB_DEVICE",
        "FEDJOB_THREADS",
        "SERVER_URL",
        "CLIENT_URL",
    ):
        assert name in shown


async def test_the_simple_forms_as_people_use_them(tmp_path: Path):
    with a_client(tmp_path, None, "--index", "3", token=None) as client:
        async with aiohttp.ClientSession(client.url) as session:

            async def post(path: str, data: str | None = None) -> tuple[int, dict]:
                async with session.post(path, data=data) as response:  # no JSON content type, as curl sends it
                    return response.status, await response.json(content_type=None)

            async with session.get("/health") as response:
                health = await response.json()
            status, trained = await post("/train")
            _, short = await post("/train", '{"epochs": 50, "learning_rate": 0.01}')
            _, prediction = await post("/predict", '{"inputs": [0, 2]}')
            refused = [await post("/train", body) for body in ("{", '{"epochs": -1}', '{"learning_rate": NaN}')]
            refused.append(await post("/predict", '{"inputs": "x"}'))
    assert health["status"] == "ok"
    assert "cuda_available" in health
    assert health["index"] == 3
    assert status == 200
    assert trained["w"] == pytest.approx(3.5, abs=0.05)
    assert trained["b"] == pytest.approx(2.0, abs=0.05)
    assert trained["backend"] == "cpu"
    assert short["b"] == pytest.approx(1.27, abs=0.07)
    assert prediction["outputs"] == pytest.approx([short["b"], short["b"] + 2 * short["w"]])
    assert all(status == 422 and problem["word"] == "bad-request" for status, problem in refused)
    assert not any("Traceback" in json.dumps(problem) for _, problem in refused)


async def test_a_client_started_by_hand_registers_itself_and_says_again_and_again_that_it_is_there(tmp_path: Path):
    """The server does not answer at first, then forgets the client once."""
    registered: asyncio.Queue[dict] = asyncio.Queue()
    beats: asyncio.Queue[dict] = asyncio.Queue()
    tries: list[int] = []

    async def clients(request: web.Request) -> web.Response:
        tries.append(1)
        if len(tries) == 1:
            return web.Response(status=503)
        await registered.put(await request.json())
        answer = {"client_url": "http://me:8001", "registered": 2, "client": 1, "token": "its-own"}
        return web.json_response({**answer, "heartbeat_seconds": 0.1}, status=201)

    async def beat(request: web.Request) -> web.Response:
        await beats.put({**await request.json(), "token": request.headers["Fedjob-Token"]})
        if beats.qsize() == 1:
            problem = {"title": "", "status": 404, "detail": "register again", "word": "not-found"}
            return web.json_response(problem, status=404, content_type="application/problem+json")
        return web.json_response({"client": 1, "round": 4, "connected": 2})

    app = web.Application()
    app.router.add_post("/clients", clients)
    app.router.add_put("/v1/clients", beat)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    log = tmp_path / "log"
    try:
        with a_client(tmp_path, None, "--server-url", server, "--client-url", "http://me:8001"):
            first, second = [await asyncio.wait_for(registered.get(), 10) for _ in range(2)]
            assert first["client_url"] == "http://me:8001"
            assert first == second, "the same client, which the server forgot"
            for _ in range(3):
                said = await asyncio.wait_for(beats.get(), 10)
                assert said == {"clientUrl": "http://me:8001", "bootId": first["boot_id"], "token": "its-own"}
            async with asyncio.timeout(10):
                while "round 4, 2 clients are connected" not in log.read_text():  # noqa: ASYNC110 - across processes
                    await asyncio.sleep(0.01)
        assert "cannot register" in log.read_text()
        assert "201: registered with the aggregator at" in log.read_text()
        assert "client 1; 2 clients are registered there" in log.read_text()
    finally:
        await runner.cleanup()
