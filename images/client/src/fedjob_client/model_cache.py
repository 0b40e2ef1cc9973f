"""The last model that this client saw: trained from, evaluated, and served by ``/predict``."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fedjob_client.errors import DataError
from fedjob_client.machine import backoff_seconds
from fedjob_client.trainer import Params
from fedjob_client.transfer import Transfer, TransferError
from fedjob_client.work import ModelSource
from fedjob_protocol.digests import sha256_of
from fedjob_protocol.errors import Refusal
from fedjob_protocol.layout import ROUND_KEY
from fedjob_protocol.weights import decode


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model in memory; its arrays are read-only."""

    digest: str
    round: int | None
    """The round that committed it, as far as it is known."""
    params: Params
    metadata: Mapping[str, str] = field(default_factory=dict)


class ModelCache:
    """Keeps one model, so that one that is known already is not fetched again.

    Args:
        transfer: Fetches models.
        current: A model to begin with.
    """

    def __init__(self, transfer: Transfer, current: LoadedModel | None = None) -> None:
        self._transfer = transfer
        self._current = current

    @property
    def current(self) -> LoadedModel | None:
        """The last model."""
        return self._current

    async def load(self, source: ModelSource, *, round_number: int | None, seconds: float) -> LoadedModel:
        """Return a model, fetched unless it is the last one.

        Raises:
            TransferError: It cannot be fetched, or is no model.
        """
        if self._current is not None and self._current.digest == source.digest:
            return self._current
        data = await self._transfer.fetch(source, seconds=seconds)
        try:
            params, metadata = decode(data)
        except Refusal as refusal:
            raise TransferError(f"{source.url}: {refusal.detail}", retryable=False, word=refusal.word) from refusal
        known = _round_of(metadata) if round_number is None else round_number
        self._current = LoadedModel(digest=source.digest, round=known, params=dict(params), metadata=metadata)
        return self._current


async def load_in_time(
    models: ModelCache, source: ModelSource, *, round_number: int | None, seconds: float, key: str
) -> LoadedModel:
    """Return a model, fetched again and again until it is there.

    Args:
        models: Where it is kept.
        source: Where it is.
        round_number: The round that committed it, as far as it is known.
        seconds: How long that may take, tries included.
        key: Spreads the tries of several programs.

    Raises:
        TransferError: The time is over, or another try would fail likewise.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    failures = 0
    while True:
        try:
            return await models.load(source, round_number=round_number, seconds=deadline - loop.time())
        except TransferError as error:
            failures += 1
            delay = backoff_seconds(failures, key)
            if not error.retryable or loop.time() + delay >= deadline:
                raise
            await asyncio.sleep(delay)


def read_model_file(path: str, digest: str | None) -> LoadedModel:
    """Read a checkpoint.

    Args:
        path: The file.
        digest: Its SHA-256, if it is known.

    Raises:
        DataError: It cannot be read, is another one, or is no model.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"modelFile {path}: {error.strerror or error}") from error
    seen = sha256_of(data)
    if digest is not None and seen != digest:
        raise DataError(f"modelFile {path}: has the digest {seen}, {digest} is expected")
    try:
        params, metadata = decode(data)
    except Refusal as refusal:
        raise DataError(f"modelFile {path}: {refusal.detail}") from refusal
    return LoadedModel(digest=seen, round=_round_of(metadata), params=dict(params), metadata=metadata)


def _round_of(metadata: Mapping[str, str]) -> int | None:
    number = metadata.get(ROUND_KEY, "")
    return int(number) if number.isascii() and number.isdigit() and len(number) <= 9 else None
