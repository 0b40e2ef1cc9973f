"""Machine words, their HTTP status, and who may try again."""

import json

import pytest

from fedjob_protocol.errors import KINDS, FedJobError, Problem, Refusal, Word


def test_every_word_has_a_kind():
    assert set(KINDS) == set(Word)


@pytest.mark.parametrize("word", list(Word))
def test_words_are_lower_case_and_their_status_is_an_error(word):
    assert word.value == word.value.lower()
    assert "_" not in word.value
    assert 400 <= KINDS[word].status < 600


def test_what_may_be_sent_again_is_what_was_damaged_on_the_way_or_met_a_bad_moment():
    retryable = {word for word, kind in KINDS.items() if kind.retryable}
    assert retryable == {
        Word.INTERNAL,
        Word.UNAVAILABLE,
        Word.TRUNCATED,
        Word.DIGEST_MISMATCH,
        Word.STORAGE_FULL,
    }


def test_what_a_peer_does_wrong_is_its_own_fault_and_what_we_cannot_do_is_ours():
    ours = {Word.INTERNAL, Word.UNAVAILABLE, Word.STORAGE_FULL}
    assert {word for word, kind in KINDS.items() if kind.status >= 500} == ours


def test_a_refusal_is_answered_as_problem_json():
    refusal = Refusal(Word.STALE_TERM, "term 1 is over: term 2 was seen")
    assert json.loads(refusal.problem().model_dump_json()) == {
        "type": "about:blank",
        "title": "Precondition Failed",
        "status": 412,
        "detail": "term 1 is over: term 2 was seen",
        "word": "stale-term",
    }


def test_a_refusal_says_its_word_and_why():
    refusal = Refusal(Word.TOO_LARGE, "9 bytes, at most 8")
    assert isinstance(refusal, FedJobError)
    assert str(refusal) == "too-large: 9 bytes, at most 8"
    assert (refusal.word, refusal.detail, refusal.kind.status) == (Word.TOO_LARGE, "9 bytes, at most 8", 413)


def test_problems_of_a_newer_release_can_be_read():
    problem = Problem.model_validate(
        {"title": "No", "status": 418, "detail": "tea", "word": "too-modern", "instance": "/x"}
    )
    assert problem.word == "too-modern"
