"""``fedjob rounds`` and ``fedjob model show``: what a run left in its folder."""

import hashlib
import json
from pathlib import Path
from typing import BinaryIO

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from fedjob.failure import EXIT_USAGE, Failure
from fedjob.folder import RunFolder
from fedjob.progress import say
from fedjob_operator.adapters.local import JobFile, leader_folder
from fedjob_operator.api.v1alpha1 import FederatedJob
from fedjob_protocol.errors import Refusal
from fedjob_protocol.layout import PARENT_KEY, ROUND_LOG_NAME, STATE_KEY, state_name
from fedjob_protocol.messages import RoundRecord
from fedjob_protocol.weights import LENGTH_BYTES, Header, header_end, parse_header

BLOCK_BYTES = 1 << 20
MAX_NAMED = 10
"""Most clients of one verdict that a row names."""


def load_job(folder: RunFolder) -> FederatedJob:
    """Read the job of a run.

    Raises:
        Failure: The folder holds none, or it cannot be read.
    """
    try:
        return JobFile(folder.job_file).load()
    except FileNotFoundError:
        raise Failure(
            f"{folder.path} holds no run; name the folder that `fedjob run` printed", exit_code=EXIT_USAGE
        ) from None
    except (OSError, ValueError) as error:
        raise Failure(f"{folder.job_file} cannot be read: {str(error).splitlines()[0]}") from error


def newest_model(folder: RunFolder) -> tuple[FederatedJob, Path]:
    """Return the job and the file of its newest model.

    Raises:
        Failure: There is no model yet, or its file is gone.
    """
    job = load_job(folder)
    model = job.status.model
    if model is None or model.path is None:
        raise Failure(f"{folder.path} has no model yet: phase {job.status.phase}; run it first")
    path = folder.path / leader_folder(job) / model.path
    if not path.is_file():
        raise Failure(f"{path} is gone; the status says that round {model.round} is committed")
    return job, path


def rounds_in_folder(path: Path) -> list[RoundRecord]:
    """Read the round log of a run.

    Raises:
        Failure: The folder holds no run, or its log cannot be read.
    """
    folder = RunFolder(path)
    return read_log(folder.path / leader_folder(load_job(folder)) / ROUND_LOG_NAME)


def show_rounds(records: list[RoundRecord], *, as_json: bool) -> None:
    """Print rounds as a table or as JSON lines."""
    if as_json:
        for record in records:
            say(record.model_dump_json(by_alias=True))
        return
    names = sorted({name for record in records for name in record.metrics or {}})
    table = Table(box=None, pad_edge=False, header_style="bold")
    judged = ["judged"] if any(record.judgements for record in records) else []
    for column in ("round", "clients", "examples", *names, "seconds", "refused", "failed", *judged, "digest"):
        table.add_column(column, justify="left" if column in ("clients", "judged", "digest") else "right")
    for record in records:
        table.add_row(*_row(record, names, has_judged=bool(judged)))
    Console(width=max(120, Console().width)).print(table)


def _row(record: RoundRecord, names: list[str], *, has_judged: bool) -> list[str]:
    metrics = record.metrics or {}
    return [
        str(record.round) if record.base is None else f"{record.round} (from {record.base.round})",
        ",".join(str(item.client) for item in sorted(record.contributors, key=lambda item: item.client)),
        str(record.examples),
        *(f"{metrics[name]:.4f}" if name in metrics else "-" for name in names),
        f"{record.duration_seconds:.3f}",
        str(len(record.refused)),
        str(len(record.failed)),
        *([_judged(record)] if has_judged else []),
        record.digest.removeprefix("sha256:")[:12],
    ]


def _judged(record: RoundRecord) -> str:
    """Whose updates the strategy did not take as they came: by verdict, at most `MAX_NAMED` each."""
    verdicts: dict[str, list[int]] = {}
    for judgement in record.judgements:
        verdicts.setdefault(judgement.verdict, []).append(judgement.client)
    parts = []
    for verdict, clients in sorted(verdicts.items()):
        more = "" if len(clients) <= MAX_NAMED else f" and {len(clients) - MAX_NAMED} more"
        parts.append(f"{verdict} {','.join(map(str, clients[:MAX_NAMED]))}{more}")
    return "; ".join(parts) or "-"


def read_log(path: Path) -> list[RoundRecord]:
    """Read complete lines; a line that a crash cut short is the next round's business, not an error."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Failure(f"{path}: {error.strerror or error}") from error
    try:
        return [RoundRecord.model_validate_json(line) for line in lines[:-1]]
    except ValidationError as error:
        raise Failure(f"{path} is damaged: {error.error_count()} problems in a line") from error


def show_model(path: Path, *, as_json: bool) -> None:
    """Print round, digest and tensors of the newest model; the digest is computed from the file.

    Raises:
        Failure: There is no model, or the file is not what the status says.
    """
    job, file = newest_model(RunFolder(path))
    model = job.status.model
    assert model is not None
    try:
        with file.open("rb") as stream:
            header = _header(stream, file.stat().st_size)
            stream.seek(0)
            digest = _digest(stream)
    except (OSError, Refusal) as error:
        raise Failure(f"{file}: {error}") from error
    if digest != model.digest:
        raise Failure(f"{file} is damaged: its digest is {digest}, the status says {model.digest}")
    tensors = [{"name": t.name, "dtype": t.dtype, "shape": list(t.shape)} for t in header.manifest.tensors]
    if as_json:
        document = {
            "round": model.round,
            "digest": digest,
            "path": str(file),
            "metadata": dict(header.metadata),
            "tensors": tensors,
        }
        say(json.dumps(document))
        return
    say(f"file: {file}")
    say(f"round: {model.round}")
    say(f"digest: {digest} (computed from the file)")
    say(f"parent: {header.metadata.get(PARENT_KEY, '-')}")
    if STATE_KEY in header.metadata:
        say(f"state: {header.metadata[STATE_KEY]} (what the strategy remembers: {Path(state_name(model.round)).name})")
    for tensor in header.manifest.tensors:
        say(f"  {tensor.name}  {tensor.dtype}  {'x'.join(map(str, tensor.shape)) or 'scalar'}")


def _header(stream: BinaryIO, total_bytes: int) -> Header:
    prefix = stream.read(LENGTH_BYTES)
    end = header_end(prefix, total_bytes)
    return parse_header(prefix + stream.read(end - LENGTH_BYTES), total_bytes)


def _digest(stream: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := stream.read(BLOCK_BYTES):
        digest.update(block)
    return f"sha256:{digest.hexdigest()}"
