"""Digests as they are written on the wire and in the folder of a job: ``<algorithm>:<lower-case hex>``.

xxh3-128 finds damage on the way at memory speed and guards uploads; SHA-256 names checkpoints for good. Imported only
by the programs that touch weights (extra ``arrays``).
"""

import hashlib
from collections.abc import Iterable
from typing import Final, TypeAlias

import xxhash

XXH3_PREFIX: Final = "xxh3-128:"
SHA256_PREFIX: Final = "sha256:"

Block: TypeAlias = bytes | bytearray | memoryview
"""Bytes to digest; a contiguous block."""


class Xxh3:
    """Incremental xxh3-128 of an upload's body; lets other threads run while it works on a large block."""

    __slots__ = ("_hasher",)

    def __init__(self) -> None:
        self._hasher = xxhash.xxh3_128()

    def update(self, block: Block) -> None:
        """Take the next bytes."""
        self._hasher.update(block)

    def digest(self) -> str:
        """``xxh3-128:<32 hex digits>`` of everything so far."""
        return XXH3_PREFIX + str(self._hasher.hexdigest())


class Sha256:
    """Incremental SHA-256 of a checkpoint; lets other threads run while it works on a large block."""

    __slots__ = ("_hasher",)

    def __init__(self) -> None:
        self._hasher = hashlib.sha256(usedforsecurity=False)

    def update(self, block: Block) -> None:
        """Take the next bytes."""
        self._hasher.update(block)

    def digest(self) -> str:
        """``sha256:<64 hex digits>`` of everything so far."""
        return SHA256_PREFIX + self._hasher.hexdigest()


def xxh3_of(data: Block) -> str:
    """``xxh3-128:<32 hex digits>`` of the bytes."""
    return XXH3_PREFIX + str(xxhash.xxh3_128_hexdigest(data))


def sha256_of(blocks: Iterable[Block] | bytes) -> str:
    """``sha256:<64 hex digits>`` of bytes, or of blocks of bytes one after the other."""
    hasher = Sha256()
    if isinstance(blocks, bytes):
        hasher.update(blocks)
    else:
        for block in blocks:
            hasher.update(block)
    return hasher.digest()
