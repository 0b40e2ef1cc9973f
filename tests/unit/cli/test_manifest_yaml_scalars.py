"""Our YAML reader against what kubectl's reader makes of the same text, and its own limits."""

import json
import re
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjob.yaml_reader import YamlError, read_documents
from fedjob.yaml_scalars import ScalarError, json_key, json_value, resolve

GOLDEN = json.loads((Path(__file__).parents[2] / "data/yaml_scalars/kubectl.json").read_text(encoding="utf-8"))
SCALARS = GOLDEN["scalars"]
DOCUMENTS = GOLDEN["documents"]

STRICTER = {
    "a: x\ty\n": "a text with a tab in it needs quotes",
    "a: x \t y\n": "a text with a tab in it needs quotes",
    "a: !!str\t1\n": "expected ' '",
    "a: {b:, c: 1}\n": "a colon needs a space after it",
    "a: [b:, c]\n": "a colon needs a space after it",
    "a: {b:}\n": "a colon needs a space after it",
    "a: |# c\n  y\n": "expected chomping or indentation indicators",
}
"""Documents that kubectl reads and we refuse, with what we say: never read differently."""


def read(text):
    documents = read_documents(text)
    assert len(documents) <= 1
    return documents[0] if documents else None


def same(ours, theirs):
    """Equal as JSON: 1 and 1.0 are one number, true and 1 are two things."""
    if isinstance(ours, bool) or isinstance(theirs, bool) or ours is None or theirs is None:
        return ours is theirs
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(ours, int | float) and isinstance(theirs, int | float):
        return ours == (float(theirs) if isinstance(ours, float) else theirs)
    return type(ours) is type(theirs) and ours == theirs


def disagreements(cases):
    """The texts that we read differently, with what both make of them."""
    found = []
    for text, answer in cases:
        try:
            ours = read(text)
        except YamlError as error:
            if "error" not in answer:
                found.append((text, answer, str(error)))
        else:
            if "error" in answer or not same(ours, json.loads(answer["json"])):
                found.append((text, answer, ours))
    return found


def test_scalars_mean_what_they_mean_to_kubectl():
    assert disagreements((f"k: {case['text']}\n", case["value"]) for case in SCALARS) == []


def test_keys_are_what_they_are_to_kubectl():
    assert disagreements((f"{case['text']}: v\n", case["key"]) for case in SCALARS) == []


def test_documents_are_what_they_are_to_kubectl_or_refused():
    differing = disagreements((case["text"], case["answer"]) for case in DOCUMENTS)
    assert {text for text, _, _ in differing} == set(STRICTER)
    for text, _, ours in differing:
        assert re.match(f"line 1: {re.escape(STRICTER[text])}", ours)


def test_the_golden_data_are_not_few():
    assert len(SCALARS) >= 300
    assert len(DOCUMENTS) >= 200


@pytest.mark.parametrize("text", ["1e1", "10.0", "0o12", "0xA", "1_0", "+10", "012", "0b1010"])
def test_numbers_without_a_fraction_are_integers(text):
    value = json_value(resolve(text))
    assert value == 10
    assert type(value) is int


def test_a_float_beyond_64_bits_stays_a_float():
    assert type(json_value(resolve("1e20"))) is float


def test_thousands_of_digits_are_read_in_no_time():
    assert resolve("9" * 100_000) == "9" * 100_000
    assert resolve("0" * 100_000 + "1") == 1
    assert resolve("0." + "1" * 100_000) == pytest.approx(1 / 9)


@given(st.text("0123456789+-._eExXoObByYnN~: éinfa\u0665", max_size=8))
def test_any_text_means_something(text):
    value = resolve(text)
    assert value is None or isinstance(value, bool | int | float | str)
    try:
        json_value(value)
        json_key(value)
    except ScalarError:
        assert value is None or not isinstance(value, str)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_the_key_of_a_float_keeps_its_32_bits(value):
    assert struct.pack("f", float(json_key(value))) == struct.pack("f", value)


@given(st.integers(min_value=-(2**63), max_value=2**64 - 1))
def test_an_integer_of_64_bits_is_read_exactly(value):
    assert read(f"a: {value}\n") == {"a": value}


words = st.text(st.characters(categories=["L", "N", "P"]), max_size=6)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(words, json_values, max_size=3))
def test_json_is_read_as_json(document):
    assert read(json.dumps(document, ensure_ascii=False)) == document


FRAGMENTS = [
    "a",
    "b: ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    ", ",
    ": ",
    "\n",
    "\n  ",
    "'",
    '"',
    "&x ",
    "*x",
    "<<: ",
    "!!int ",
    "?",
]
FRAGMENTS += ["# ", "\t", "|\n", "---\n", "1e3", "~", "%", "\x00", "\u2028", "é", "...", "!", "\\u"]


@settings(max_examples=300)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join))
def test_whatever_the_text_there_is_an_answer_or_a_line(text):
    try:
        answer = [json.dumps(document, allow_nan=False) for document in read_documents(text)]
    except YamlError as error:
        answer = str(error)
    assert isinstance(answer, list) or re.fullmatch("line [0-9]+: [^\n]+", answer)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb:\n\tc: 1\n", "line 3: a tab cannot indent; use spaces"),
        ("a: 1\nb: 2\na: 3\n", 'line 3: "a" is given twice; the first is in line 1'),
        ("a: {b: 1, b: 2}\n", 'line 1: "b" is given twice; the first is in line 1'),
        ("1: a\n0x1: b\n", 'line 2: "1" is given twice; the first is in line 1'),
        ("a: .inf\n", "line 1: inf is not a number that JSON can hold"),
        ("a: *b\n", "line 1: alias *b has no anchor &b before it"),
        ("a: &b\n  c: *b\n", "line 2: alias *b contains itself"),
        ("a:\n  <<: 5\n", "line 2: << needs a mapping, or a list of mappings"),
        ("? [a]\n: b\n", "line 1: a mapping or a list cannot be a key"),
        ("~: a\n", "line 1: null cannot be a key; put it in quotes"),
        ("a: !!int x\n", "line 1: 'x' is not a !!int"),
        ('a: "\\ud800"\n', "line 1: a \\u escape names half a character; write the whole one as \\U and eight digits"),
        ("a: 1\nb: \x07\n", "line 2: character U+0007 is not allowed"),
        ("%YAML 1.2\n---\na: 1\n", "line 1: only YAML 1.1 can be declared, as with kubectl; leave the %YAML line out"),
        ("[" * 101, "line 1: nested more than 100 levels deep"),
    ],
)
def test_an_error_is_one_line_that_says_where(text, line):
    with pytest.raises(YamlError) as caught:
        read_documents(text)
    assert str(caught.value) == line


def test_aliases_cannot_blow_a_document_up():
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 9)]
    with pytest.raises(YamlError, match="aliases stand for more than 100000 values"):
        read_documents("\n".join(rows))


def test_merged_mappings_count_as_aliases_too():
    rows = ["a0: &a0 {k0: [x, x, x, x, x, x, x, x, x, x]}"]
    rows += [
        f"a{level}: &a{level} {{<<: *a{level - 1}, k{level}: [{', '.join([f'*a{level - 1}'] * 10)}]}}"
        for level in range(1, 9)
    ]
    with pytest.raises(YamlError, match="aliases stand for more than 100000 values"):
        read_documents("\n".join(rows))


def test_empty_documents_do_not_count():
    assert read_documents("---\n# nothing\n---\na: 1\n---\n") == [{"a": 1}]
