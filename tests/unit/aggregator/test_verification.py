"""What an upload is refused for, and that damage on the way comes before everything else."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjob_aggregator.aggregation.backends import NumpyKernels
from fedjob_aggregator.verification import DeltaCheck, InitialCheck, Verifier, most_header_bytes
from fedjob_protocol.digests import xxh3_of
from fedjob_protocol.errors import Refusal, Word
from fedjob_protocol.weights import Manifest, encode, read_header

MODEL = {"bias": np.zeros(3), "weight": np.zeros((2, 5), np.float32)}
DELTA = Manifest.of_arrays(MODEL).as_delta()


def update(**changes):
    return {"bias": np.full(3, 0.5, np.float32), "weight": np.arange(10, dtype=np.float32).reshape(2, 5)} | changes


def delta_check(fits=lambda largest: None):
    return DeltaCheck(DELTA, NumpyKernels(), fits)


def verify(body, check=None, *, cuts=(), announced=None, total=None):
    verifier = Verifier(check or delta_check(), len(body) if total is None else total)
    edges = [0, *cuts, len(body)]
    for begin, end in pairwise(edges):
        if begin < end:
            verifier.feed(memoryview(body)[begin:end])
    return verifier.finish(announced or xxh3_of(body))


def refusal(body, check=None, **arguments):
    with pytest.raises(Refusal) as caught:
        verify(body, check, **arguments)
    return caught.value


@settings(max_examples=60)
@given(st.lists(st.integers(0, 30).map(lambda word: 8 * word), max_size=4).map(sorted))
def test_a_good_update_passes_however_it_is_cut(cuts):
    body = encode(update())
    largest = []
    header = verify(body, delta_check(largest.append), cuts=[cut for cut in cuts if cut <= len(body)])
    assert header == read_header(body)
    assert largest == [9.0]


@settings(max_examples=60)
@given(st.integers(0, 9), st.sampled_from([np.nan, np.inf, -np.inf]), st.integers(0, 30).map(lambda word: 8 * word))
def test_a_value_that_is_not_finite_is_named_however_the_body_is_cut(element, value, cut):
    weight = np.zeros((2, 5), np.float32)
    weight[divmod(element, 5)] = value
    body = encode(update(weight=weight))
    seen = refusal(body, cuts=[min(cut, len(body))])
    assert seen.word is Word.NON_FINITE
    assert seen.detail == f"tensor 'weight' has the value {value} at {list(divmod(element, 5))}"


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (encode({"weight": update()["weight"]}), Word.WRONG_NAMES),
        (encode(update(more=np.zeros(1, np.float32))), Word.WRONG_NAMES),
        (encode(update(weight=np.zeros((5, 2), np.float32))), Word.WRONG_SHAPE),
        (encode(update(bias=np.zeros(3))), Word.WRONG_DTYPE),
        (b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05hello\x94.", Word.MALFORMED_WEIGHTS),
        (b"", Word.MALFORMED_WEIGHTS),
        (b"1234567", Word.MALFORMED_WEIGHTS),
        (b"12345678", Word.MALFORMED_WEIGHTS),
        (encode(update())[:-4] + b"", Word.MALFORMED_WEIGHTS),
        (encode(update()) + b"\0\0\0\0", Word.MALFORMED_WEIGHTS),
    ],
)
@pytest.mark.parametrize("cuts", [(), (8,), (16,), (8, 16, 24)])
def test_a_body_that_is_something_else_is_refused(body, word, cuts):
    assert refusal(body, cuts=[cut for cut in cuts if cut < len(body)]).word is word


def test_a_header_that_is_longer_than_any_canonical_one_is_refused():
    body = encode(update(), {"comment": "x" * most_header_bytes(DELTA)})
    assert refusal(body).word is Word.TOO_LARGE
    assert verify(encode(update(), {"comment": "x" * 1000}))


def test_a_header_without_padding_is_refused_with_what_to_do():
    text = encode(update())[8:].split(b"}}", 1)[0].rstrip() + b"}}"
    text += b" " * (4 - len(text) % 8)
    body = len(text).to_bytes(8, "little") + text + encode(update())[-52:]
    seen = refusal(body)
    assert (seen.word, "multiple of 8" in seen.detail) == (Word.MALFORMED_WEIGHTS, True)


@settings(max_examples=60)
@given(st.data())
def test_damage_on_the_way_is_said_first_since_it_may_look_like_anything(data):
    body = bytearray(encode(update()))
    announced = xxh3_of(bytes(body))
    body[data.draw(st.integers(0, len(body) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert refusal(bytes(body), announced=announced).word is Word.DIGEST_MISMATCH


def test_a_value_that_does_not_fit_is_refused_after_all_were_seen():
    def too_large(largest):
        raise Refusal(Word.VALUE_OUT_OF_RANGE, f"{largest}")

    assert refusal(encode(update()), delta_check(too_large)).detail == "9.0"


@settings(max_examples=40)
@given(st.lists(st.integers(0, 30).map(lambda word: 8 * word), max_size=3).map(sorted))
def test_an_initial_model_passes_with_both_types(cuts):
    body = encode(MODEL)
    header = verify(body, InitialCheck(), cuts=[cut for cut in cuts if cut <= len(body)])
    assert header.manifest == Manifest.of_arrays(MODEL)


@settings(max_examples=40)
@given(st.integers(0, 2), st.integers(0, 30).map(lambda word: 8 * word))
def test_an_initial_model_with_infinity_is_refused(element, cut):
    bias = np.zeros(3)
    bias[element] = np.inf
    body = encode(MODEL | {"bias": bias})
    seen = refusal(body, InitialCheck(), cuts=[min(cut, len(body))])
    assert (seen.word, f"[{element}]" in seen.detail) == (Word.NON_FINITE, True)


def test_an_initial_model_without_values_is_refused():
    assert refusal(encode({"a": np.zeros((0, 3))}), InitialCheck()).word is Word.MALFORMED_WEIGHTS


def test_an_initial_model_whose_doubles_are_not_aligned_is_refused():
    text = (
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F64","shape":[1],"data_offsets":[4,12]}}'
    )
    text += b" " * (-len(text) % 8)
    body = len(text).to_bytes(8, "little") + text + bytes(12)
    assert "multiple of its element" in refusal(body, InitialCheck()).detail


def test_a_scalar_that_is_not_finite_is_named_without_an_index():
    body = encode({"s": np.array(np.nan)})
    assert refusal(body, InitialCheck()).detail == "tensor 's' has the value nan at []"
