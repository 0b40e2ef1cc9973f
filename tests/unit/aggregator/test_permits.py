"""A permit lets another job read one model, and nothing else."""

import pytest

from fedjob_protocol.permits import model_permit
from tests.unit.aggregator.harness import running

PERMIT = {"Fedjob-Token": model_permit("secret", 7), "Fedjob-Protocol": "1"}


async def test_a_permit_reads_the_model_of_its_round(tmp_path):
    async with running(tmp_path, token="secret") as api:
        status, body, _ = await api.call("GET", "/v1/models/7", headers=PERMIT)
    assert (status, body["word"]) == (404, "not-found"), "past the gate: there is no such model yet"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models/8"),
        ("GET", "/v1/models/latest"),
        ("GET", "/v1/models/07"),
        ("GET", "/v1/models/7/"),
        ("GET", "/v1/models/\u0667"),
        ("GET", "/v1/state"),
        ("GET", "/v1/rounds"),
        ("DELETE", "/v1/models/7"),
        ("PUT", "/v1/rounds/7"),
    ],
)
async def test_a_permit_opens_nothing_else(tmp_path, method, path):
    async with running(tmp_path, token="secret") as api:
        status, body, _ = await api.call(method, path, headers=PERMIT)
    assert (status, body["word"]) == (401, "bad-token")


def test_a_permit_depends_on_token_and_round():
    permits = {model_permit(token, number) for token in ("a", "b") for number in (1, 2, 12)}
    assert len(permits) == 6
    assert permits.isdisjoint({"a", "b"})
