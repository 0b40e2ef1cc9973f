"""A round on top of the last one that starts from the best model: what it is made of, and what it chains to."""

import numpy as np

from fedjob_protocol.layout import BASE_KEY, PARENT_KEY
from fedjob_protocol.weights import decode, encode
from tests.unit.aggregator.harness import JOB, MODEL, delta, running


def start_of(record):
    return {"round": record["round"], "digest": record["digest"]}


async def a_round(api, number, *, value=1.0, best=False, **changes):
    """Commit and evaluate a round; return its record."""
    status, view, _ = await api.open(number, clients=1, expectsEvaluation=True, **changes)
    assert status == 200, view
    status, answer, _ = await api.upload(number, body=encode(delta(value)))
    assert status == 200, answer
    record = (await api.wait(number))["record"]
    said = {"jobUid": JOB, "term": 1, "digest": record["digest"], "metrics": {"loss": 1.0}, "best": best}
    assert (await api.call("PUT", f"/v1/rounds/{number}/evaluation", json=said))[0] == 200
    return record


async def test_a_round_may_start_from_the_best_model_and_chains_to_the_last_one(tmp_path):
    async with running(tmp_path) as api:
        await api.initialise()
        best = await a_round(api, 1, best=True)
        await a_round(api, 2, value=100.0)
        last = await a_round(api, 3, value=100.0)
        again = await a_round(api, 4, value=0.5, base=start_of(best))
        assert again["parent"] == last["digest"]
        assert again["base"] == start_of(best)
        arrays, metadata = decode(await api.get("/v1/models/4"))
        assert metadata[PARENT_KEY] == last["digest"]
        assert metadata[BASE_KEY] == best["digest"]
        assert np.array_equal(arrays["bias"], np.full(3, 1.5)), "round 1, and half a step"
        assert np.array_equal(arrays["weight"], MODEL["weight"] + 0.75)
        after = await a_round(api, 5)
        assert (after["parent"], after["base"]) == (again["digest"], None)


async def test_the_best_model_can_be_started_from_after_a_restart(tmp_path):
    async with running(tmp_path) as api:
        await api.initialise()
        best = await a_round(api, 1, best=True)
        await a_round(api, 2)
    async with running(tmp_path, boot_id="another") as api:
        again = await a_round(api, 3, base=start_of(best))
        assert again["base"] == start_of(best)


async def test_no_round_starts_from_a_model_that_is_neither_the_last_nor_the_best(tmp_path):
    async with running(tmp_path) as api:
        first = await api.initialise()
        second = await a_round(api, 1)
        await a_round(api, 2)
        for record in (first, second, {"round": 2, "digest": first["digest"]}):
            status, problem, _ = await api.open(3, clients=1, base=start_of(record))
            assert (status, problem["word"]) == (409, "wrong-base")
