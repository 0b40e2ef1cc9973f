"""Bad uploads to a real aggregator: refused with their machine word, named in the record, and in no model."""

import itertools
import pickle
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest

from fedjob_protocol import PROTOCOL_VERSION, routes
from fedjob_protocol.messages import RoundRecord
from fedjob_protocol.weights import encode
from tests.support.by_hand import CALL_SECONDS, AggregatorByHand, aggregator
from tests.support.runs import wait_until

SMALL, LARGE = 40, 700_000
"""Elements of the model's second tensor: an upload that is read in one piece, and one that is staged."""
GOOD, BAD = (0, 1), 2


def delta(elements: int, client: int, **changed: np.ndarray) -> bytes:
    """An update of a client."""
    numbers = np.random.default_rng(client).standard_normal(elements, dtype=np.float32)
    return encode({"a": np.ones((2, 3), np.float32), "b": numbers, **changed})


@dataclass(frozen=True)
class Pair:
    """An aggregator with a bad client, and one that never heard of it."""

    tried: AggregatorByHand
    reference: AggregatorByHand
    elements: int
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def open(self, **settings: float) -> int:
        """Open the next round: the good clients are enough for it."""
        number = next(self.numbers)
        self.tried.open(number, (*GOOD, BAD), min_reports=len(GOOD), **settings)
        self.reference.open(number, GOOD)
        return number

    def close(self, number: int, *, failed: bool) -> RoundRecord:
        """Let the good clients report, and the bad one fail if it has not yet; both models are the same then."""
        if not failed:
            self.tried.report_failure(number, BAD)
        for side in (self.tried, self.reference):
            for client in GOOD:
                status, answer = side.upload(number, client, delta(self.elements, client))
                assert status == 200 or answer["word"] == "already-reported", answer
        record = self.tried.committed(number)
        assert record.digest == self.reference.committed(number).digest
        assert sorted(item.client for item in record.contributors) == list(GOOD)
        return record


@pytest.fixture(scope="module", params=[SMALL, LARGE], ids=["small", "large"])
def pair(request, tmp_path_factory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    model = {"a": np.zeros((2, 3), np.float32), "b": np.zeros(request.param, np.float32)}
    with aggregator(folder / "tried") as tried, aggregator(folder / "reference") as reference:
        assert tried.start_with(model).digest == reference.start_with(model).digest
        yield Pair(tried, reference, request.param)


def with_nan(elements: int) -> bytes:
    numbers = np.zeros(elements, np.float32)
    numbers[elements // 2] = np.nan
    return delta(elements, BAD, b=numbers)


def with_infinity(elements: int) -> bytes:
    return delta(elements, BAD, a=np.full((2, 3), -np.inf, np.float32))


def flipped(elements: int) -> bytes:
    return delta(elements, BAD, a=np.ones((3, 2), np.float32))


def shorter(elements: int) -> bytes:
    return delta(elements - 1, BAD)


def renamed(elements: int) -> bytes:
    return delta(elements, BAD, c=np.ones(1, np.float32))


def in_float64(elements: int) -> bytes:
    return delta(elements, BAD, a=np.ones((2, 3), np.float64))


def too_far(elements: int) -> bytes:
    return delta(elements, BAD, a=np.full((2, 3), 3e30, np.float32))


def ten_times(elements: int) -> bytes:
    return delta(10 * elements + 100_000, BAD)


def pickled(elements: int) -> bytes:
    return pickle.dumps({"a": np.ones((2, 3), np.float32), "b": np.zeros(elements, np.float32)})


def cut_and_announced_so(elements: int) -> bytes:
    return delta(elements, BAD)[:-8]


def empty(elements: int) -> bytes:
    return b""


WRONG: list[tuple[Callable[[int], bytes], int, str]] = [
    (with_nan, 422, "non-finite"),
    (with_infinity, 422, "non-finite"),
    (flipped, 422, "wrong-shape"),
    (shorter, 422, "wrong-shape"),
    (renamed, 422, "wrong-names"),
    (in_float64, 422, "wrong-dtype"),
    (too_far, 422, "value-out-of-range"),
    (ten_times, 413, "too-large"),
    (pickled, 422, "malformed-weights"),
    (cut_and_announced_so, 422, "malformed-weights"),
    (empty, 422, "malformed-weights"),
]


@pytest.mark.parametrize(("make", "status", "word"), WRONG, ids=[make.__name__ for make, *_ in WRONG])
def test_a_wrong_update_is_refused_whole_and_the_model_is_that_of_a_run_without_its_client(pair, make, status, word):
    number = pair.open()
    answer = pair.tried.upload(number, BAD, make(pair.elements))
    assert (answer[0], answer[1].get("word")) == (status, word), answer
    record = pair.close(number, failed=True)
    assert [(refused.client, refused.word) for refused in record.refused] == [(BAD, word)]
    assert [failure.client for failure in record.failed] == [BAD]
    assert record.close_reason == "AllReported"


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"examples": "-1"}, "bad-examples"),
        ({"examples": "many"}, "bad-examples"),
        ({"digest": "xxh3-128:" + "0" * 32}, "digest-mismatch"),
        ({"digest": "md5:1"}, "bad-request"),
        ({"boot": "another"}, "wrong-boot"),
        ({"attempt": "7"}, "round-conflict"),
        ({"job": "another"}, "wrong-job"),
        ({"media": "application/x-pickle"}, "unsupported-media"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_an_update_with_wrong_headers_is_refused_and_in_no_model(pair, changes, word):
    number = pair.open()
    body = delta(pair.elements, BAD)
    headers = {**pair.tried.headers(body), **{key: changes[name] for name, key in HEADERS.items() if name in changes}}
    status, answer = pair.tried.call("PUT", routes.update_path(number, BAD), body, headers)
    assert status >= 400
    assert answer["word"] == word, answer
    pair.close(number, failed=False)


HEADERS = {
    "examples": routes.EXAMPLES_HEADER,
    "digest": routes.DIGEST_HEADER,
    "boot": routes.BOOT_HEADER,
    "attempt": routes.ATTEMPT_HEADER,
    "job": routes.JOB_HEADER,
    "media": "Content-Type",
}


def test_more_examples_than_the_client_announced_are_refused(pair):
    number = pair.open(announced=10)
    body = delta(pair.elements, BAD)
    status, answer = pair.tried.upload(number, BAD, body, examples="11")
    assert (status, answer["word"]) == (422, "bad-examples")
    assert [refused.word for refused in pair.close(number, failed=True).refused] == ["bad-examples"]


def test_an_upload_that_breaks_off_is_named_and_the_same_client_may_send_it_again(pair):
    number = pair.open()
    body = delta(pair.elements, BAD)
    pair.tried.upload_partly(number, BAD, body, sent=len(body) // 2)
    wait_until(lambda: pair.tried.view(number).refused, "the broken upload in the round's view")
    assert [(item.client, item.word) for item in pair.tried.view(number).refused] == [(BAD, "truncated")]
    assert not pair.tried.view(number).failed
    assert [item.word for item in pair.close(number, failed=False).refused] == ["truncated"]


def test_the_same_upload_twice_counts_once_and_another_one_is_refused(pair):
    number = pair.open()
    body = delta(pair.elements, GOOD[0])
    first, again = (pair.tried.upload(number, GOOD[0], body) for _ in range(2))
    other = pair.tried.upload(number, GOOD[0], delta(pair.elements, 7))
    assert (first[0], again[0]) == (200, 200)
    assert (other[0], other[1]["word"]) == (409, "already-reported")
    pair.close(number, failed=False)


def test_an_upload_to_a_round_that_is_over_and_to_one_that_is_not_open_is_refused(pair):
    number = pair.open()
    pair.close(number, failed=False)
    body = delta(pair.elements, BAD)
    for old in (number, number - 1):
        status, answer = pair.tried.upload(old, BAD, body)
        assert (status, answer["word"]) == (409, "round-closed")
    status, answer = pair.tried.upload(number + 1, BAD, body)
    assert (status, answer["word"]) == (409, "wrong-round")
    assert pair.tried.state().committed.round == number


def test_an_upload_by_a_client_that_takes_no_part_is_refused(pair):
    number = pair.open()
    status, answer = pair.tried.upload(number, 9, delta(pair.elements, 9))
    assert (status, answer["word"]) == (403, "not-a-participant")
    pair.close(number, failed=False)


def test_a_client_that_hangs_past_the_deadline_is_left_out(pair):
    number = pair.open(deadline_seconds=2)
    for side in (pair.tried, pair.reference):
        for client in GOOD:
            assert side.upload(number, client, delta(pair.elements, client))[0] == 200
    record = pair.tried.committed(number)
    assert record.digest == pair.reference.committed(number).digest
    assert (record.close_reason, [failure.client for failure in record.failed]) == ("Deadline", [BAD])
    status, answer = pair.tried.upload(number, BAD, delta(pair.elements, BAD))
    assert (status, answer["word"]) == (409, "round-closed")


def test_a_body_that_is_announced_far_too_large_is_refused_before_it_is_sent(pair):
    number = pair.open()
    headers = {**pair.tried.headers(b""), routes.PROTOCOL_HEADER: str(PROTOCOL_VERSION), "Content-Length": str(10**12)}
    lines = [f"PUT {routes.update_path(number, BAD)} HTTP/1.1", "Host: aggregator"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    with socket.create_connection(pair.tried.address, timeout=CALL_SECONDS) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        assert connection.recv(1024).startswith(b"HTTP/1.1 413 ")
    assert [item.word for item in pair.close(number, failed=True).refused] == ["too-large"]
