"""What probes are told, and that they are told it by a thread of its own."""

import asyncio
import http.client
import json
import time

import pytest

from fedjob_operator.health import LOOP_SECONDS, PASS_SECONDS, HealthServer, Heart, Verdict


class Clock:
    seconds = 100.0

    def __call__(self):
        return self.seconds


def ask(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


@pytest.fixture
def served():
    verdicts = {"alive": Verdict(ok=True, message="yes"), "ready": Verdict(ok=False, message="not yet")}
    server = HealthServer("127.0.0.1", 0, alive=lambda: verdicts["alive"], ready=lambda: verdicts["ready"])
    yield server.port, verdicts
    server.close()


def test_probes_are_answered(served):
    port, verdicts = served
    assert ask(port, "/healthz") == (200, {"ok": True, "message": "yes"})
    assert ask(port, "/readyz?verbose") == (500, {"ok": False, "message": "not yet"})
    verdicts["ready"] = Verdict(ok=True, message="holding")
    assert ask(port, "/readyz")[0] == 200
    assert ask(port, "/metrics") == (404, {"paths": ["/healthz", "/readyz"]})


def test_the_port_is_free_again_after_it(served):
    port, _ = served
    with pytest.raises(OSError, match="in use"):
        HealthServer("127.0.0.1", port, alive=lambda: None, ready=lambda: None)


def heart(clock, hung=()):
    return Heart(hung=lambda seconds: [name for name, busy in hung if busy > seconds], monotonic=clock)


def test_a_loop_that_turns_is_alive_and_one_that_does_not_is_dead():
    clock = Clock()
    beating = heart(clock)
    clock.seconds += LOOP_SECONDS
    assert beating.verdict().ok
    clock.seconds += 1
    assert beating.verdict() == Verdict(ok=False, message="the event loop has not turned for 31 s")


async def test_the_heart_beats_while_the_loop_turns():
    clock = Clock()
    beating = heart(clock)
    clock.seconds += 1000
    task = asyncio.get_running_loop().create_task(beating.run())
    await asyncio.sleep(0)
    assert beating.verdict().ok
    task.cancel()
    await asyncio.wait({task})


def test_a_pass_that_hangs_is_death_and_names_its_job():
    verdict = heart(Clock(), [("lab/a", PASS_SECONDS - 1), ("lab/b", PASS_SECONDS + 1)]).verdict()
    assert (verdict.ok, "lab/b" in verdict.message, "lab/a" in verdict.message) == (False, True, False)


async def test_a_blocked_loop_is_noticed_by_who_asks():
    clock = Clock()
    beating = heart(clock)
    server = HealthServer("127.0.0.1", 0, alive=beating.verdict, ready=beating.verdict)
    try:
        clock.seconds += LOOP_SECONDS + 1
        answer = asyncio.to_thread(ask, server.port, "/healthz")
        asking = asyncio.ensure_future(answer)
        await asyncio.sleep(0)
        time.sleep(0.2)  # noqa: ASYNC251 - the loop is blocked here, and the answer comes all the same
        status, body = await asking
        assert (status, body["ok"]) == (500, False)
    finally:
        server.close()
