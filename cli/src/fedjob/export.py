"""``fedjob model pull``: a checkpoint in another format, with a card that says where it comes from."""

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import numpy as np

from fedjob.failure import EXIT_USAGE, Failure
from fedjob_operator.api.v1alpha1 import FederatedJob, dump
from fedjob_protocol.digests import sha256_of
from fedjob_protocol.errors import Refusal
from fedjob_protocol.messages import RoundRecord
from fedjob_protocol.weights import decode


class Format(StrEnum):
    """What a model is written as."""

    SAFETENSORS = "safetensors"
    """The checkpoint as it is: its SHA-256 is its digest."""
    NPZ = "npz"
    PT = "pt"
    """A dict of tensors, for ``torch.load(…, weights_only=True)``."""


CARD_SUFFIX: Final = ".json"
"""Of the card, after the whole name of the model's file."""


def choose_round(job: FederatedJob, which: str) -> int:
    """Return the round of a checkpoint by ``best``, ``final`` or its number.

    Raises:
        Failure: There is no such model.
    """
    status = job.status
    name = job.metadata.name
    if status.model is None:
        raise Failure(f"job {name} has no model yet: phase {status.phase}")
    if which == "final":
        return status.model.round
    if which == "best":
        if status.best is None:
            raise Failure(f"job {name} has no best model: it has no objective, or nothing was evaluated; use final")
        return status.best.round
    if not (which.isascii() and which.isdigit() and len(which) < 10):
        raise Failure(f"{which!r} is neither best nor final nor the number of a round", exit_code=EXIT_USAGE)
    return int(which)


def write_model(path: Path, data: bytes, kind: Format, *, force: bool) -> None:
    """Write a checkpoint in a format.

    Args:
        path: The file.
        data: The checkpoint, safetensors.
        kind: The format.
        force: Whether a file that is there may be replaced.

    Raises:
        Failure: It is there already, cannot be written, or the format needs what is not installed.
    """
    if path.exists() and not force:
        raise Failure(f"{path} exists; give --force to replace it, or --output another name", exit_code=EXIT_USAGE)
    fresh = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind is Format.SAFETENSORS:
            fresh.write_bytes(data)
        elif kind is Format.NPZ:
            with fresh.open("wb") as file:
                np.savez(file, allow_pickle=False, **_arrays(data))
        else:
            _write_torch(fresh, _arrays(data))
        fresh.replace(path)
    except OSError as error:
        raise Failure(f"{path}: {error.strerror or error}") from error
    finally:
        fresh.unlink(missing_ok=True)


def card(job: FederatedJob, round_number: int, data: bytes, records: Sequence[RoundRecord]) -> dict[str, Any]:
    """Return what a model is: job, seed, rounds, metrics, tensors, and the chain of digests that leads to it."""
    arrays = _arrays(data)
    status = job.status
    record = next((item for item in records if item.round == round_number), None)
    return {
        "job": job.metadata.name,
        "uid": job.metadata.uid,
        "seed": job.spec.seed,
        "model": dump(job.spec.model),
        "strategy": job.spec.strategy.name,
        "round": round_number,
        "rounds": {"committed": max(status.rounds.committed, 0), "total": status.rounds.total},
        "phase": status.phase,
        "digest": sha256_of(data),
        "isBest": status.best is not None and status.best.round == round_number,
        "metrics": dict(record.metrics or {}) if record else {},
        "examples": record.examples if record else None,
        "tensors": {name: {"dtype": str(array.dtype), "shape": list(array.shape)} for name, array in arrays.items()},
        "chain": [_link(item) for item in records if item.round <= round_number],
    }


def write_card(path: Path, content: Mapping[str, Any]) -> Path:
    """Write the card beside a model, and return its path.

    Raises:
        Failure: It cannot be written.
    """
    beside = path.with_name(path.name + CARD_SUFFIX)
    try:
        beside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise Failure(f"{beside}: {error.strerror or error}") from error
    return beside


def _link(record: RoundRecord) -> dict[str, Any]:
    link: dict[str, Any] = {"round": record.round, "digest": record.digest, "parent": record.parent}
    return link | ({"base": record.base.digest} if record.base else {})


def _arrays(data: bytes) -> Mapping[str, Any]:
    try:
        return decode(data)[0]
    except Refusal as refusal:
        raise Failure(f"the checkpoint cannot be read: {refusal.detail}") from refusal


def _write_torch(path: Path, arrays: Mapping[str, Any]) -> None:
    try:
        import torch  # noqa: PLC0415 - it is large, and only this needs it
    except ImportError:
        raise Failure(
            "--format pt needs PyTorch, which is not installed here: install torch, or use safetensors or npz",
            exit_code=EXIT_USAGE,
        ) from None
    torch.save({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}, path)
