"""The reader and the writer of safetensors against the reference library, and against hostile headers."""

import contextlib
import json

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedjob_protocol.errors import Refusal, Word
from fedjob_protocol.weights import (
    DType,
    Manifest,
    TensorSpec,
    compare_manifest,
    decode,
    encode,
    encode_chunks,
    encoded_bytes,
    header_bytes,
    read_header,
)

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
ARRAYS = hnp.arrays(
    dtype=st.sampled_from([np.dtype("<f4"), np.dtype("<f8")]),
    shape=hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)
TENSORS = st.dictionaries(NAMES.filter(lambda name: name != "__metadata__"), ARRAYS, max_size=5)
METADATA = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), NAMES, max_size=3)


def file_of(header, data=b""):
    """A file with any header, padded or not, however wrong."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def refused(data, **limits):
    with pytest.raises(Refusal) as caught:
        decode(data, **limits)
    assert len(caught.value.detail) < 1000
    return caught.value.word


def same(first, second):
    return first.dtype == second.dtype and first.shape == second.shape and first.tobytes() == second.tobytes()


@given(TENSORS, METADATA)
def test_what_is_written_is_read_back_and_read_by_the_library(tensors, metadata):
    data = encode(tensors, metadata)
    arrays, found = decode(data)
    library = safetensors.numpy.load(data)
    assert found == metadata
    assert list(arrays) == sorted(tensors)
    assert all(same(arrays[name], tensors[name]) and same(library[name], tensors[name]) for name in tensors)
    assert len(data) == encoded_bytes(Manifest.of_arrays(tensors), metadata)


@given(TENSORS, METADATA)
def test_what_the_library_writes_is_read(tensors, metadata):
    tensors = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    arrays, found = decode(safetensors.numpy.save(tensors, metadata or None))
    assert found == metadata
    assert arrays.keys() == tensors.keys()
    assert all(same(arrays[name], tensors[name]) for name in tensors)


@given(TENSORS)
def test_the_canonical_file_is_what_the_library_writes(tensors):
    tensors = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    assert encode(tensors, {"key": "value"}) == safetensors.numpy.save(tensors, {"key": "value"})


@settings(max_examples=300)
@given(st.data())
def test_what_is_accepted_of_a_damaged_file_the_library_reads_the_same(data):
    original = bytearray(encode({"weight": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.zeros(2)}))
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(original) - 1))
        original[position] = data.draw(st.integers(0, 255))
    damaged = bytes(original[: data.draw(st.integers(0, len(original)))] if data.draw(st.booleans()) else original)
    try:
        arrays, _ = decode(damaged)
    except Refusal:
        return
    library = safetensors.numpy.load(damaged)
    assert arrays.keys() == library.keys()
    assert all(same(arrays[name], library[name]) for name in arrays)


@settings(max_examples=300)
@given(st.binary(max_size=120))
@example(b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05hello\x94.")
def test_arbitrary_bytes_are_refused_or_read_but_never_raise_anything_else(data):
    for candidate in (data, file_of(data), file_of(b"{" + data)):
        with contextlib.suppress(Refusal):
            decode(candidate)


@pytest.mark.parametrize(
    ("name", "data"),
    {
        "empty": b"",
        "short": b"\x02\x00\x00\x00\x00\x00\x00",
        "pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05hello\x94.",
        "header beyond the file": (1 << 40).to_bytes(8, "little") + b"{}",
        "greatest header length": b"\xff" * 8 + b"{}",
        "not an object": file_of(b"[]"),
        "leading space": file_of(b" {}"),
        "not UTF-8": file_of(b'{"\xff": 1}'),
        "text after the object": file_of(b"{}x"),
        "deeply nested": file_of(b'{"a":' * 100_000),
        "deep lists": file_of(b'{"a":' + b"[" * 100_000),
        "very long number": file_of(b'{"a":' + b"9" * 5000 + b"}"),
        "key twice": file_of(b'{"__metadata__":{},"__metadata__":{}}'),
        "entry key twice": file_of(b'{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4)),
        "tensor twice": file_of(
            b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},'
            b'"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'
        ),
        "unknown key": file_of({"a": entry() | {"extra": 1}}, bytes(4)),
        "missing key": file_of({"a": {"dtype": "F32", "shape": [1]}}, bytes(4)),
        "entry is a list": file_of({"a": []}),
        "unknown dtype": file_of({"a": entry("F31")}, bytes(4)),
        "dtype is a number": file_of({"a": entry(4)}, bytes(4)),
        "negative size": file_of({"a": entry(shape=[-1])}, bytes(4)),
        "size is true": file_of({"a": entry(shape=[True])}, bytes(4)),
        "size is a fraction": file_of({"a": entry(shape=[1.0])}, bytes(4)),
        "size is NaN": file_of({"a": entry(shape=[float("nan")])}, bytes(4)),
        "shape is an object": file_of({"a": {"dtype": "F32", "shape": {}, "data_offsets": [0, 4]}}, bytes(4)),
        "shape overflows": file_of({"a": entry(shape=[2**62, 4], offsets=[0, 0])}),
        "shape overflows beside a zero": file_of({"a": entry(shape=[0, 2**62, 2**62], offsets=[0, 0])}),
        "too many dimensions": file_of({"a": entry(shape=[1] * 33)}, bytes(4)),
        "offsets not of the shape": file_of({"a": entry(shape=[2])}, bytes(4)),
        "offsets reversed": file_of({"a": entry(offsets=[4, 0])}, bytes(4)),
        "three offsets": file_of({"a": entry(offsets=[0, 4, 8])}, bytes(4)),
        "gap at the front": file_of({"a": entry(offsets=[4, 8])}, bytes(8)),
        "gap between": file_of({"a": entry(), "b": entry(offsets=[8, 12])}, bytes(12)),
        "overlap": file_of({"a": entry(), "b": entry(offsets=[2, 6])}, bytes(6)),
        "same place": file_of({"a": entry(), "b": entry()}, bytes(4)),
        "huge offsets": file_of({"a": entry(offsets=[10**400, 10**400 + 4])}, bytes(4)),
        "data missing": file_of({"a": entry()}, bytes(3)),
        "data left over": file_of({"a": entry()}, bytes(5)),
        "metadata is a list": file_of({"__metadata__": []}),
        "metadata is not text": file_of({"__metadata__": {"a": 1}}),
        "half a surrogate pair as name": file_of(b'{"\\ud800":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'),
        "half a surrogate pair as metadata": file_of(b'{"__metadata__":{"a":"\\ud800"}}'),
        "very long name": file_of({"a" * 1025: entry()}, bytes(4)),
    }.items(),
)
def test_malformed_files_are_refused(name, data):
    assert refused(data) is Word.MALFORMED_WEIGHTS


@pytest.mark.parametrize("dtype", ["BOOL", "I64", "U8", "F16", "BF16", "F8_E4M3"])
def test_types_that_have_no_mean_are_refused_by_name(dtype):
    assert refused(file_of({"a": entry(dtype)}, bytes(4))) is Word.WRONG_DTYPE


def test_a_long_header_is_refused_before_it_is_parsed():
    header = file_of({"a": entry()}, bytes(4))
    assert refused(header, max_header_bytes=20) is Word.TOO_LARGE
    assert decode(header, max_header_bytes=200)


def test_too_many_tensors_are_refused():
    header = {f"t{number}": entry(shape=[0], offsets=[0, 0]) for number in range(32_769)}
    assert refused(file_of(header)) is Word.TOO_LARGE


def test_tensors_may_lie_in_any_order():
    data = file_of({"a": entry(offsets=[4, 8]), "b": entry()}, np.array([2, 1], "<f4").tobytes())
    arrays, _ = decode(data)
    assert arrays == {"a": np.float32(1), "b": np.float32(2)}
    assert list(arrays) == ["a", "b"]
    assert [place.spec.name for place in read_header(data).placements] == ["b", "a"]


def test_arrays_are_read_only_views_and_aligned():
    data = encode({"narrow": np.ones(3, np.float32), "wide": np.ones(2)}, {"note": "x" * 3})
    arrays, _ = decode(bytearray(data))
    assert all(not array.flags.owndata and not array.flags.writeable for array in arrays.values())
    assert all((read_header(data).data_begin + place.begin) % 8 == 0 for place in read_header(data).placements[:2])


def test_blocks_are_bounded_and_do_not_copy():
    array = np.arange(1000, dtype=np.float32)
    blocks = list(encode_chunks({"a": array}, block_bytes=256))
    assert max(len(block) for block in blocks[1:]) == 256
    assert np.shares_memory(np.frombuffer(blocks[1], np.float32), array)
    assert b"".join(blocks) == encode({"a": array})


def test_strided_and_big_endian_arrays_are_written_by_value():
    array = np.arange(12, dtype=">f4").reshape(3, 4)
    arrays, _ = decode(encode({"t": array.T, "s": array[::2, ::2]}))
    assert np.array_equal(arrays["t"], array.T)
    assert np.array_equal(arrays["s"], array[::2, ::2])


@pytest.mark.parametrize("dtype", [np.int64, np.float16, np.bool_, np.complex64, object])
def test_arrays_of_other_types_are_not_written(dtype):
    with pytest.raises(Refusal) as caught:
        encode({"a": np.zeros(2, dtype)})
    assert caught.value.word is Word.WRONG_DTYPE


@pytest.mark.parametrize("name", ["__metadata__", "a" * 1025])
def test_names_that_would_not_be_read_are_not_written(name):
    with pytest.raises(Refusal) as caught:
        encode({name: np.zeros(2, np.float32)})
    assert caught.value.word is Word.MALFORMED_WEIGHTS


def test_the_order_of_metadata_does_not_matter():
    manifest = Manifest.of_arrays({"a": np.zeros(2, np.float32)})
    assert header_bytes(manifest, {"x": "1", "y": "2"}) == header_bytes(manifest, {"y": "2", "x": "1"})
    assert len(header_bytes(manifest, {"x": "1"})) % 8 == 0


def spec(name="a", dtype=DType.F32, shape=(2, 3)):
    return TensorSpec(name=name, dtype=dtype, shape=shape)


@pytest.mark.parametrize(
    ("got", "word"),
    [
        ([spec("b")], Word.WRONG_NAMES),
        ([], Word.WRONG_NAMES),
        ([spec(), spec("b")], Word.WRONG_NAMES),
        ([spec(shape=(3, 2))], Word.WRONG_SHAPE),
        ([spec(shape=(6,))], Word.WRONG_SHAPE),
        ([spec(dtype=DType.F64)], Word.WRONG_DTYPE),
    ],
)
def test_a_difference_in_the_tensors_is_named(got, word):
    with pytest.raises(Refusal) as caught:
        compare_manifest(Manifest.of([spec()]), Manifest.of(got))
    assert caught.value.word is word


def test_a_manifest_counts_and_makes_the_delta():
    manifest = Manifest.of([spec("b", DType.F64), spec("a"), spec("scalar", shape=())])
    assert [tensor.name for tensor in manifest.tensors] == ["a", "b", "scalar"]
    assert (manifest.elements, manifest.total_bytes) == (13, 24 + 48 + 4)
    assert [place.spec.name for place in manifest.placements] == ["b", "a", "scalar"]
    assert manifest.as_delta().total_bytes == 13 * 4
    compare_manifest(manifest, Manifest.of(reversed(manifest.tensors)))


def test_a_manifest_refuses_disorder():
    with pytest.raises(ValueError, match="in order"):
        Manifest(tensors=(spec("b"), spec("a")))
    with pytest.raises(ValueError, match="unique"):
        Manifest.of([spec(), spec()])
