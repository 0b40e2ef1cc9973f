"""The operator's key, and the tokens that follow from it."""

import base64
import hashlib
import hmac

import pytest

from fedjob_operator.adapters.kube.api import SECRETS, ApiUnavailableError
from fedjob_operator.adapters.kube.tokens import KEY_BYTES, KeyUnusableError, job_token, operator_key
from tests.unit.controller.kube.fake_api import FakeApi, unavailable

KEY = b"k" * KEY_BYTES


def secret(data):
    return {"metadata": {"name": "key", "namespace": "ops"}, "data": data}


def held(key=KEY):
    return secret({"key": base64.b64encode(key).decode()})


def random(count):
    return b"r" * count


def test_a_token_is_an_hmac_of_the_jobs_uid():
    assert job_token(KEY, "uid") == hmac.new(KEY, b"uid", hashlib.sha256).hexdigest()
    assert job_token(KEY, "uid") != job_token(KEY, "uid2") != job_token(b"x" * 32, "uid2")


async def test_the_key_is_made_at_the_first_start_and_read_afterwards():
    api = FakeApi()
    made = await operator_key(api, "ops", "key", random=random)
    assert made == b"r" * KEY_BYTES
    assert api.find(SECRETS, "key")["immutable"]
    assert await operator_key(api, "ops", "key", random=lambda count: b"z" * count) == made


async def test_of_two_that_start_at_once_the_faster_ones_key_counts():
    api = FakeApi()

    def slowly(count):
        api.put(SECRETS, held())
        return b"r" * count

    assert await operator_key(api, "ops", "key", random=slowly) == KEY


@pytest.mark.parametrize("data", [None, {}, {"key": "!!"}, {"key": base64.b64encode(b"short").decode()}, {"key": 7}])
async def test_a_secret_without_a_key_is_said_to_be_one(data):
    api = FakeApi()
    api.put(SECRETS, secret(data))
    with pytest.raises(KeyUnusableError, match=r"Secret ops/key has no 'key' of at least 32 bytes; delete it"):
        await operator_key(api, "ops", "key", random=random)


async def test_without_an_answer_no_key_is_made():
    api = FakeApi()
    api.fail("get", unavailable())
    with pytest.raises(ApiUnavailableError):
        await operator_key(api, "ops", "key", random=random)
    assert api.objects == {}
