"""Rounds over HTTP: the real application, from the first upload to the round log."""

import asyncio
import hashlib
import json

import numpy as np
import pytest

from fedjob_aggregator.disk import Disk
from fedjob_operator.api.base import MAX_CLIENTS
from fedjob_protocol.errors import KINDS, Word
from fedjob_protocol.messages import MAX_PARTICIPANTS, AggregatorState, RoundLog, RoundView
from fedjob_protocol.weights import decode, encode
from tests.unit.aggregator.harness import JOB, MODEL, delta, running, spec


def evaluation(record, **changes):
    return {"jobUid": JOB, "term": 1, "digest": record["digest"], "metrics": {"accuracy": 0.5}, "examples": 9} | changes


async def refused(call):
    status, problem, headers = await call
    assert headers["Content-Type"] == "application/problem+json"
    assert status == problem["status"] == KINDS[Word(problem["word"])].status
    return problem["word"]


async def test_a_job_of_three_rounds(tmp_path):
    async with running(tmp_path) as api:
        assert (await api.get("/v1/state"))["committed"] is None
        record = await api.initialise()
        assert record["parent"] is None
        for number in (1, 2):
            status, view, _ = await api.open(number)
            assert (status, view["state"]) == (200, "Open")
            for client in range(3):
                status, answer, _ = await api.upload(number, client, examples=client + 1)
                assert (status, answer["client"]) == (200, client)
            view = RoundView.model_validate(await api.wait(number))
            assert (view.reported, view.record.examples, view.record.close_reason) == ([0, 1, 2], 6, "ClientsPerRound")
            assert view.record.parent == record["digest"]
            record = view.record.model_dump(mode="json", by_alias=True)
        log = RoundLog.model_validate(await api.get("/v1/rounds"))
        assert [entry.round for entry in log.rounds] == [0, 1, 2]
        assert [item.examples for item in log.rounds[2].contributors] == [1, 2, 3]
        model = await api.get("/v1/models/latest")
        arrays, _ = decode(model)
        assert record["digest"] == "sha256:" + hashlib.sha256(model).hexdigest()
        assert np.array_equal(arrays["bias"], np.full(3, 2.0))
        assert np.array_equal(arrays["weight"], MODEL["weight"] + 1)
        assert arrays["bias"].dtype == np.float64
        state = AggregatorState.model_validate(await api.get("/v1/state"))
        assert [(tensor.name, tensor.dtype) for tensor in state.tensors] == [("bias", "F64"), ("weight", "F32")]
        assert (state.committed.round, state.previous.round, state.current.round) == (2, 1, 2)


async def test_the_order_of_arrival_does_not_change_the_model(tmp_path):
    rng = np.random.default_rng(7)
    updates = [
        encode(
            {name: rng.normal(0, 10.0 ** rng.integers(-6, 3), a.shape).astype(np.float32) for name, a in MODEL.items()}
        )
        for _ in range(5)
    ]
    digests = set()
    for run in range(20):
        async with running(tmp_path / str(run)) as api:
            await api.initialise()
            await api.open(1, clients=5)
            order = rng.permutation(5)
            await asyncio.gather(*[api.upload(1, int(c), updates[c], examples=100 + 7 * int(c)) for c in order])
            digests.add((await api.wait(1))["record"]["digest"])
    assert len(digests) == 1


async def test_a_refused_update_leaves_the_model_of_a_run_without_it(tmp_path):
    digests = []
    for run, bad in enumerate([True, False]):
        async with running(tmp_path / str(run)) as api:
            await api.initialise()
            await api.open(1, clients=3)
            await api.upload(1, 0, encode(delta(3.0)))
            if bad:
                body = encode(delta(np.nan))
                assert await refused(api.upload(1, 1, body)) == "non-finite"
            else:
                await fail(api, 1, 1)
            await api.upload(1, 2, encode(delta(-1.0)))
            record = (await api.wait(1))["record"]
            assert [item["client"] for item in record["contributors"]] == [0, 2]
            assert [(item["client"], item["reason"]) for item in record["failed"]] == [
                (1, "NonFiniteUpdate" if bad else "TrainerError")
            ]
            assert [(item["client"], item["word"]) for item in record["refused"]] == [(1, "non-finite")] * bad
            digests.append(record["digest"])
    assert digests[0] == digests[1]


async def fail(api, round_number, client, **changes):
    report = {
        "jobUid": JOB,
        "term": 1,
        "attempt": 1,
        "bootId": api.service.state.boot_id,
        "reason": "TrainerError",
        "message": "oops",
    }
    return await api.call("PUT", f"/v1/rounds/{round_number}/failures/{client}", json=report | changes)


async def test_a_reported_failure_closes_the_round_with_the_others(tmp_path):
    async with running(tmp_path) as api:
        await api.initialise()
        await api.open(1, clients=2)
        await api.upload(1, 0)
        status, view, _ = await fail(api, 1, 1)
        assert (status, view["failed"][0]["message"]) == (200, "oops")
        assert (await api.wait(1))["record"]["closeReason"] == "AllReported"
        assert await refused(fail(api, 1, 1, reason="NoSuchReason")) == "bad-request"


async def test_the_same_upload_again_is_fine_and_another_one_is_not(tmp_path):
    async with running(tmp_path) as api:
        await api.initialise()
        await api.open(1)
        first, again = await api.upload(1, 0), await api.upload(1, 0)
        assert first[:2] == again[:2]
        assert await refused(api.upload(1, 0, encode(delta(2.0)))) == "already-reported"
        await api.upload(1, 1)
        await api.upload(1, 2)
        assert (await api.wait(1))["record"]["examples"] == 30
        assert (await api.upload(1, 0))[0] == 200
        assert await refused(api.upload(1, 0, encode(delta(2.0)))) == "round-closed"


async def test_a_long_poll_answers_when_the_round_is_committed(tmp_path):
    async with running(tmp_path) as api:
        await api.initialise()
        await api.open(1, clients=1)
        waiting = asyncio.create_task(api.wait(1))
        assert (await api.get("/v1/rounds/1?wait=0.01"))["state"] == "Open"
        assert not waiting.done()
        await api.upload(1, 0)
        assert (await waiting)["state"] in {"Committed", "Evaluated"}


async def test_a_long_poll_answers_at_each_report_where_it_asks_for_that(tmp_path):
    async with running(tmp_path) as api:
        await api.initialise()
        await api.open(1)
        waiting = asyncio.create_task(api.get("/v1/rounds/1?wait=20&settled=0"))
        assert (await api.get("/v1/rounds/1?wait=20&settled=1"))["reported"] == []
        await api.upload(1, 0)
        assert (await waiting)["reported"] == [0]
        again = asyncio.create_task(api.get("/v1/rounds/1?wait=20&settled=1"))
        await fail(api, 1, 1)
        assert [item["client"] for item in (await again)["failed"]] == [1]


async def test_the_deadline_closes_a_round(tmp_path):
    async with running(tmp_path) as api:
        await api.initialise()
        await api.open(1, deadlineSeconds=0.2)
        await api.upload(1, 0)
        record = (await api.wait(1))["record"]
        assert record["closeReason"] == "Deadline"
        assert {item["client"]: item["reason"] for item in record["failed"]} == dict.fromkeys(
            [1, 2], "DeadlineExceeded"
        )
        assert await refused(api.upload(1, 1)) == "round-closed"


async def test_a_deadline_without_reports_abandons_the_attempt_and_the_next_one_commits(tmp_path):
    async with running(tmp_path) as api:
        await api.initialise()
        await api.open(1, clients=1, deadlineSeconds=0.05)
        assert (await api.wait(1))["state"] == "Abandoned"
        await api.open(1, clients=1, attempt=2)
        assert await refused(api.upload(1, 0, attempt=1)) == "stale-attempt"
        await api.upload(1, 0, attempt=2)
        assert (await api.wait(1))["record"]["attempt"] == 2


async def test_a_new_attempt_forgets_what_was_folded(tmp_path):
    async with running(tmp_path) as api:
        await api.initialise()
        await api.open(1, clients=2)
        await api.upload(1, 0, encode(delta(100.0)))
        await api.open(1, clients=2, attempt=2)
        await api.upload(1, 0, encode(delta(1.0)), attempt=2)
        await api.upload(1, 1, encode(delta(3.0)), attempt=2)
        await api.wait(1)
        arrays, _ = decode(await api.get("/v1/models/latest"))
        assert np.array_equal(arrays["bias"], np.full(3, 2.0))


async def test_an_evaluation_closes_the_record_and_keeps_the_best_model(tmp_path):
    async with running(tmp_path) as api:
        await api.initialise()
        records = []
        for number in range(1, 5):
            await api.open(number, clients=1, expectsEvaluation=True)
            await api.upload(number, 0)
            view = await api.wait(number)
            records.append(view["record"])
            assert view["state"] == "Committed"
            path = f"/v1/rounds/{number}/evaluation"
            body = evaluation(view["record"], best=number == 2)
            for _ in range(2):
                status, view, _ = await api.call("PUT", path, json=body)
                assert (status, view["state"], view["record"]["metrics"]) == (200, "Evaluated", {"accuracy": 0.5})
            assert await refused(api.call("PUT", path, json=body | {"metrics": {}})) == "round-conflict"
        assert (await api.call("GET", "/v1/models/best"))[2]["Fedjob-Round"] == "2"
        assert [(await api.call("GET", f"/v1/models/{number}"))[0] for number in range(5)] == [404, 404, 200, 200, 200]


async def test_the_next_round_gives_up_an_evaluation_that_never_came(tmp_path):
    async with running(tmp_path) as api:
        await api.initialise()
        await api.open(1, clients=1, expectsEvaluation=True)
        await api.upload(1, 0)
        await api.wait(1)
        assert (await api.get("/v1/rounds"))["rounds"][-1]["round"] == 0
        await api.open(2, clients=1)
        (record,) = (await api.get("/v1/rounds?since=1"))["rounds"]
        assert "no evaluation came" in record["evaluationProblem"]


async def test_an_evaluation_of_something_else_is_refused(tmp_path):
    async with running(tmp_path) as api:
        record = await api.initialise()
        path = "/v1/rounds/0/evaluation"
        assert await refused(api.call("PUT", path, json=evaluation(record))) == "round-conflict"
        other = evaluation(record, digest="sha256:" + "0" * 64)
        assert await refused(api.call("PUT", path, json=other)) == "wrong-base"
        assert await refused(api.call("PUT", "/v1/rounds/1/evaluation", json=other)) == "wrong-round"
        nan = json.dumps(evaluation(record)).replace("0.5", "NaN")
        assert await refused(api.call("PUT", path, data=nan)) == "bad-request"


async def test_cancelling(tmp_path):
    async with running(tmp_path) as api:
        await api.initialise()
        await api.open(1)
        status, view, _ = await api.call("DELETE", "/v1/rounds/1?term=1&attempt=1")
        assert (status, view["state"]) == (200, "Cancelled")
        assert await refused(api.upload(1, 0)) == "round-closed"
        assert await refused(api.call("DELETE", "/v1/rounds/1?attempt=1")) == "bad-request"
        status, view, _ = await api.call("DELETE", "/v1/rounds/0?term=2&attempt=1")
        assert (status, view["round"]) == (200, 0)
        assert await refused(api.call("DELETE", "/v1/rounds/1?term=1&attempt=1")) == "stale-term"


async def test_a_restart_goes_on_from_what_was_committed(tmp_path):
    async with running(tmp_path) as api:
        await api.initialise()
        await api.open(1, clients=2, term=3)
        await api.upload(1, 0, term=3)
    async with running(tmp_path, boot_id="second", job_uid=JOB) as api:
        state = await api.get("/v1/state")
        assert (state["term"], state["bootId"], state["committed"]["round"]) == (3, "second", 0)
        assert await refused(api.open(1, clients=2)) == "stale-term"
        old = {"Fedjob-Boot-Id": "boot"}
        assert await refused(api.upload(1, 0, term=3, **old)) == "wrong-boot"
        await api.open(1, clients=2, term=3, attempt=2)
        for client in range(2):
            await api.upload(1, client, term=3, attempt=2)
        assert (await api.wait(1))["record"]["examples"] == 20


class Unreliable(Disk):
    """A disk that can be full."""

    full = False

    def write_new(self, path, blocks):
        if self.full:
            raise OSError(28, "No space left on device")
        super().write_new(path, blocks)

    def sync(self, descriptor):
        if self.full:
            raise OSError(28, "No space left on device")
        super().sync(descriptor)


async def test_a_full_disk_delays_a_commit_says_why_and_loses_nothing(tmp_path):
    disk = Unreliable()
    async with running(tmp_path, disk=disk) as api:
        first = await api.initialise()
        await api.open(1, clients=1)
        disk.full = True
        await api.upload(1, 0)
        view = await api.get("/v1/rounds/1")
        while view["storage"] is None:
            view = await api.get("/v1/rounds/1")
        assert view["state"] == "Committing"
        assert "No space left" in view["storage"]["message"]
        assert (await api.call("GET", "/v1/models/latest"))[2]["Fedjob-Digest"] == first["digest"]
        disk.full = False
        assert (await api.wait(1))["record"]["parent"] == first["digest"]


async def test_a_full_disk_refuses_a_claim_and_an_evaluation_until_there_is_room(tmp_path):
    disk = Unreliable()
    async with running(tmp_path, disk=disk) as api:
        disk.full = True
        assert await refused(api.open(0, clients=1)) == "storage-full"
        assert api.service.state.term == 0
        disk.full = False
        await api.initialise()
        await api.open(1, clients=1, expectsEvaluation=True)
        await api.upload(1, 0)
        record = (await api.wait(1))["record"]
        disk.full = True
        call = {"path": "/v1/rounds/1/evaluation", "json": evaluation(record)}
        assert await refused(api.call("PUT", **call)) == "storage-full"
        assert await refused(api.open(2, clients=1)) == "storage-full"
        disk.full = False
        assert (await api.call("PUT", **call))[0] == 200


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"minReports": 9}, "minReports"),
        ({"unknown": 1}, "unknown"),
        ({"participants": []}, "participants"),
        ({"deadlineSeconds": 0}, "deadlineSeconds"),
        ({"encoding": "f16"}, "encoding"),
    ],
)
async def test_a_request_that_contradicts_itself_is_refused_with_its_field(tmp_path, changes, field):
    async with running(tmp_path) as api:
        status, problem, _ = await api.open(0, clients=1, **changes)
        assert (status, problem["word"], field in problem["detail"]) == (422, "bad-request", True)


async def test_a_round_of_as_many_participants_as_a_job_can_have_is_opened(tmp_path):
    longest = [
        {"client": 1_000_000 - place, "name": f"{place:x>253}", "maxExamples": 2**53}
        for place in range(MAX_PARTICIPANTS)
    ]
    counts = {"clientsPerRound": MAX_PARTICIPANTS, "minReports": MAX_PARTICIPANTS}
    assert MAX_PARTICIPANTS == MAX_CLIENTS
    async with running(tmp_path) as api:
        await api.initialise()
        base = await api.base()
        first = spec(base, participants=longest, **counts)
        status, view, _ = await api.call("PUT", "/v1/rounds/1", data=json.dumps(first).encode())
        assert (status, view.get("state")) == (200, "Open")
        one_more = [*longest, {"client": 0, "name": "one more"}]
        second = spec(base, attempt=2, participants=one_more, **counts)
        assert await refused(api.call("PUT", "/v1/rounds/1", data=json.dumps(second).encode())) == "bad-request"
