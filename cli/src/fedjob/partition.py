"""``fedjob partition``: how a job's data are divided among its clients, before anything is trained."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from fedjob.failure import EXIT_USAGE, Failure
from fedjob.manifest import ManifestError, load_manifest, render_problems
from fedjob.progress import say
from fedjob_operator.adapters.local import client_config
from fedjob_operator.api.resolve import layout
from fedjob_operator.api.v1alpha1 import FederatedJob, FederatedJobStatus
from fedjob_operator.core.observed import PodRole
from fedjob_protocol.survey import ClientShare, Survey, SurveyedClient, SurveyRequest

READING_SECONDS = 600.0
MAX_COLUMNS = 20
"""Classes up to which the table has a column for each."""
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")


def show_partition(file: Path, overrides: Sequence[str], *, plot: Path | None, as_json: bool) -> None:
    """Print what each client has, and draw it where that is asked for.

    Raises:
        Failure: The manifest is wrong, the data cannot be read or divided, or the picture cannot be drawn.
    """
    try:
        job = load_manifest(file, overrides)
    except ManifestError as error:
        raise Failure(render_problems(error.problems), exit_code=EXIT_USAGE) from error
    request, strangers = survey_request(job)
    if not request.clients:
        raise Failure(f"{job.metadata.name}: every group has a trainer of its own, which reads its own data")
    survey = _survey(request, file.resolve().parent)
    if plot is not None:
        _draw(survey, plot, job.metadata.name)
    if as_json:
        say(survey.model_dump_json(by_alias=True))
        return
    for name in strangers:
        say(f"note: group {name} has a trainer of its own, which reads its own data")
    _print(survey)
    if plot is not None:
        say(f"wrote {plot}")


def survey_request(job: FederatedJob) -> tuple[SurveyRequest, list[str]]:
    """What to ask for a job, and the groups that cannot be asked for."""
    status = FederatedJobStatus(layout=layout(job.spec))
    metadata = job.metadata.model_copy(update={"uid": "partition"})
    accepted = job.model_copy(update={"status": status, "metadata": metadata})
    own = {group.name for group in job.spec.client_groups if group.trainer is not None}
    clients = []
    for entry in status.layout:
        for index in range(entry.first, entry.first + entry.count) if entry.group not in own else ():
            config = client_config(accepted, role=PodRole.CLIENT, index=index)
            clients.append(SurveyedClient(index=index, name=config.name, data=config.data))
    return SurveyRequest(seed=job.spec.seed, clients=tuple(clients)), sorted(own)


def _survey(request: SurveyRequest, folder: Path) -> Survey:
    """Ask the client program, which alone knows data sets; relative paths begin at the manifest's folder."""
    command = [sys.executable, "-P", "-m", "fedjob_client.data.survey"]
    try:
        done = subprocess.run(  # noqa: S603 - our own program
            command,
            input=request.model_dump_json(by_alias=True),
            capture_output=True,
            text=True,
            timeout=READING_SECONDS,
            cwd=folder,
            env={**ONE_THREAD, **os.environ},
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Failure(f"the data were not read within {READING_SECONDS:g} s") from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise Failure(lines[-1] if lines else f"reading the data ended with exit code {done.returncode}")
    try:
        return Survey.model_validate_json(done.stdout)
    except ValidationError as error:
        raise Failure(f"reading the data answered something unexpected: {done.stdout[:200]!r}") from error


def _draw(survey: Survey, file: Path, title: str) -> None:
    try:
        from fedjob.plot import draw  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        raise Failure("--plot needs Pillow; install it with: pip install 'fedjob[plot]'") from error
    draw(survey, file, title=title)


def _print(survey: Survey) -> None:
    shares = survey.clients
    classes = max((len(share.labels) for share in shares if share.labels is not None), default=0)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("client")
    table.add_column("examples", justify="right")
    has_columns = 0 < classes <= MAX_COLUMNS
    for label in range(classes) if has_columns else ():
        table.add_column(str(label), justify="right")
    if classes > MAX_COLUMNS:
        table.add_column("classes", justify="right")
    for share in shares:
        table.add_row(share.name, str(share.examples), *_label_cells(share, classes, has_columns=has_columns))
    Console(width=max(120, Console().width)).print(table)
    sizes = [share.examples for share in shares]
    words = f"{len(shares)} clients, {sum(sizes)} examples: {min(sizes)} to {max(sizes)}, median {median(sizes):g}"
    distance = label_distance(shares)
    say(words if distance is None else f"{words}; label skew {distance:.2f} (0: alike, 1: nothing in common)")


def _label_cells(share: ClientShare, classes: int, *, has_columns: bool) -> list[str]:
    labels = share.labels or ()
    if has_columns:
        return [str(count) if count else "·" for count in (*labels, *(0,) * (classes - len(labels)))]
    return [f"{sum(count > 0 for count in labels)} of {classes}"] if classes else []


def label_distance(shares: Sequence[ClientShare]) -> float | None:
    """Mean total variation distance between the labels of a client and those of all, weighted by examples.

    Half the sum of the absolute differences of the shares of each class: 0 where every client has the same mixture.
    """
    counted = [share.labels for share in shares if share.labels is not None]
    if len(counted) < len(shares):
        return None
    classes = max(map(len, counted))
    rows = [[*labels, *(0,) * (classes - len(labels))] for labels in counted]
    totals = [sum(column) for column in zip(*rows, strict=True)]
    everything = sum(totals)
    apart = sum(
        abs(count - total * sum(row) / everything) for row in rows for count, total in zip(row, totals, strict=True)
    )
    return apart / 2 / everything if everything else None


__all__ = ["label_distance", "show_partition", "survey_request"]
