"""Digests: the notation, and the same value however the bytes are cut."""

import hashlib

import xxhash
from hypothesis import given
from hypothesis import strategies as st

from fedjob_protocol.digests import Sha256, Xxh3, sha256_of, xxh3_of


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_blocks_do_not_change_a_digest(blocks):
    whole = b"".join(blocks)
    xxh3, sha256 = Xxh3(), Sha256()
    for block in blocks:
        xxh3.update(memoryview(block))
        sha256.update(bytearray(block))
    assert xxh3.digest() == xxh3_of(whole) == f"xxh3-128:{xxhash.xxh3_128_hexdigest(whole)}"
    assert sha256.digest() == sha256_of(whole) == sha256_of(blocks) == f"sha256:{hashlib.sha256(whole).hexdigest()}"


def test_known_values():
    assert xxh3_of(b"") == "xxh3-128:99aa06d3014798d86001c324468d497f"
    assert sha256_of(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
