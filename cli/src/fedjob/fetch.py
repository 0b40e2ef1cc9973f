"""``fedjob data fetch``: downloads a published data set, and keeps only what is exactly what was published."""

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import aiohttp

from fedjob.failure import EXIT_USAGE, Failure
from fedjob.progress import say

BLOCK_BYTES: Final = 1 << 20
SILENCE_SECONDS: Final = 60.0
"""A server that says nothing for so long is given up."""
TRIES: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedFile:
    """One file as it was published."""

    name: str
    size: int
    """Bytes."""
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedData:
    """A data set as it was published."""

    base: str
    """URL of the folder with the files."""
    files: tuple[PublishedFile, ...]


PUBLISHED: Final[Mapping[str, PublishedData]] = MappingProxyType(
    {
        "cifar10": PublishedData(
            base="https://www.cs.toronto.edu/~kriz",
            files=(
                PublishedFile(
                    name="cifar-10-binary.tar.gz",
                    size=170_052_171,
                    sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                ),
            ),
        ),
        "mnist": PublishedData(
            base="https://storage.googleapis.com/cvdf-datasets/mnist",
            files=(
                PublishedFile(
                    name="train-images-idx3-ubyte.gz",
                    size=9_912_422,
                    sha256="440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                ),
                PublishedFile(
                    name="train-labels-idx1-ubyte.gz",
                    size=28_881,
                    sha256="3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                ),
                PublishedFile(
                    name="t10k-images-idx3-ubyte.gz",
                    size=1_648_877,
                    sha256="8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                ),
                PublishedFile(
                    name="t10k-labels-idx1-ubyte.gz",
                    size=4_542,
                    sha256="f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
                ),
            ),
        ),
    }
)
"""What can be fetched; the digests are those of the published files."""


class _Transfer(Exception):  # noqa: N818 - why a download is tried again
    """A download did not come through."""


def fetch(name: str, folder: Path, *, base: str | None = None, published: PublishedData | None = None) -> None:
    """Download a data set; files that are there and right are left as they are.

    Args:
        name: Key of `PUBLISHED`.
        folder: Where the files go; made if it is not there.
        base: URL of a mirror's folder; the digests stay those of the published files.
        published: What to fetch instead of what `PUBLISHED` says.

    Raises:
        Failure: A file cannot be had, is not what was published, or cannot be written.
    """
    data = published or PUBLISHED[name]
    root = (base or data.base).rstrip("/")
    if not root.startswith(("http://", "https://")):
        raise Failure(f"--from {root}: a URL that begins with http:// or https:// is needed", exit_code=EXIT_USAGE)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        asyncio.run(_fetch_all(data.files, root, folder))
    except OSError as error:
        raise Failure(f"{folder}: {error.strerror or error}") from error
    say(f"use it with: data: {{name: {name}, path: {folder.resolve()}}}")


async def _fetch_all(files: tuple[PublishedFile, ...], root: str, folder: Path) -> None:
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=SILENCE_SECONDS, sock_read=SILENCE_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session:
        for file in files:
            target = folder / file.name
            if target.is_file() and target.stat().st_size == file.size and _digest(target) == file.sha256:
                say(f"{target}: is there already")
                continue
            await _fetch(session, f"{root}/{file.name}", target, file)
            say(f"{target}: {file.size} bytes, sha256 {file.sha256[:12]}… as published")


async def _fetch(session: aiohttp.ClientSession, url: str, target: Path, file: PublishedFile) -> None:
    """Download beside the target and put it there only when it is right."""
    beside = target.with_name(f"{target.name}.part")
    for number in range(1, TRIES + 1):
        try:
            seen = await _download(session, url, beside, file.size)
            break
        except _Transfer as error:
            _forget(beside)
            if number == TRIES:
                raise Failure(f"{url}: {error}; tried {TRIES} times") from error
    if seen != file.sha256:
        _forget(beside)
        raise Failure(f"{url}: is not what was published: its sha256 is {seen}, {file.sha256} is expected")
    beside.replace(target)


async def _download(session: aiohttp.ClientSession, url: str, beside: Path, size: int) -> str:
    """Write what comes to a file; return its digest.

    Raises:
        Failure: The server says no, or sends more than was published: trying again would not help.
        _Transfer: It did not come through.
    """
    digest, received = hashlib.sha256(), 0
    try:
        async with session.get(url) as response:
            if response.status >= 500:
                raise _Transfer(f"answered {response.status}")
            if response.status != 200:
                raise Failure(f"{url}: answered {response.status} {response.reason}; --from names another server")
            with beside.open("wb") as stream:
                async for block in response.content.iter_chunked(BLOCK_BYTES):
                    received += len(block)
                    if received > size:
                        break
                    digest.update(block)
                    stream.write(block)
    except (aiohttp.ClientError, TimeoutError) as error:
        raise _Transfer(f"{type(error).__name__}: {error}".rstrip(": ")) from error
    if received > size:
        _forget(beside)
        raise Failure(f"{url}: is not what was published: it has more than {size} bytes")
    if received < size:
        raise _Transfer(f"ended after {received} of {size} bytes")
    return digest.hexdigest()


def _forget(path: Path) -> None:
    path.unlink(missing_ok=True)


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
