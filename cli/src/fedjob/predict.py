"""``fedjob predict``: asks a client program that serves the run's newest model."""

import asyncio
import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from fedjob.child import Program
from fedjob.export import choose_round
from fedjob.failure import EXIT_USAGE, Failure
from fedjob.folder import RunFolder
from fedjob.inputs import image_size, read_images, read_inputs
from fedjob.kubectl import Kubectl
from fedjob.models import ask_cluster
from fedjob.progress import say
from fedjob.run import MANIFEST_FOLDER_ANNOTATION
from fedjob.show import newest_model
from fedjob_operator.adapters.local import leader_folder, predictor_config
from fedjob_operator.api.v1alpha1 import FederatedJob
from fedjob_protocol.config import CONFIG_VARIABLE
from fedjob_protocol.layout import checkpoint_name
from fedjob_protocol.messages import Base

ANSWER_SECONDS = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a model is to predict: inputs from a file, or images, or held-out examples of the job's own."""

    inputs: Path | None = None
    """A file as `fedjob.inputs.read_inputs` takes it."""
    images: tuple[Path, ...] = ()
    image_size: str | None = None
    is_inverted: bool = False
    samples: int = 8
    """How many held-out examples, where there is neither."""


def rows_of(asked: Asked, job: FederatedJob) -> list[Any] | None:
    """The inputs that are asked about; ``None`` for held-out examples.

    Raises:
        Failure: They cannot be read.
    """
    if asked.inputs is not None and asked.images:
        raise Failure("give --inputs or --image, not both", exit_code=EXIT_USAGE)
    if asked.images:
        size = image_size(asked.image_size, job.spec.data.name if job.spec.data else None)
        return read_images(asked.images, size, is_inverted=asked.is_inverted)
    return None if asked.inputs is None else read_inputs(asked.inputs)


def predict(path: Path, asked: Asked, *, which: str, as_json: bool) -> None:
    """Predict with a model of a run, and print.

    Args:
        path: Folder of the run.
        asked: What to predict.
        which: ``final``, ``best`` or the number of a round whose model is kept.
        as_json: Print the answer as it came.

    Raises:
        Failure: There is no model, the inputs cannot be read, or they do not fit the model.
    """
    run = RunFolder(path)
    job, _ = newest_model(run)
    if exclude := job.spec.model.exclude:
        patterns = ", ".join(exclude)
        note = f"note: spec.model.exclude: {patterns} stayed at the clients and are untrained here"
        say(f"{note}; /predict of a client has its own", stream=sys.stderr)
    number = choose_round(job, which)
    rows = rows_of(asked, job)
    body: dict[str, Any] = {"samples": asked.samples} if rows is None else {"inputs": rows}
    folder = job.metadata.annotations.get(MANIFEST_FOLDER_ANNOTATION, ".")
    file, base = _model(run, job, number)
    config = predictor_config(job, model=base, model_file=str(file.resolve()), trainer_path=folder)
    environment = {**os.environ, CONFIG_VARIABLE: config.model_dump_json(by_alias=True, exclude_none=True)}
    with (
        tempfile.TemporaryDirectory(prefix="fedjob-") as scratch,
        Program(
            "fedjob_client",
            ["--host", "127.0.0.1", "--port", "0"],
            environment=environment,
            log=Path(scratch) / "client.log",
            folder=Path(folder),
        ) as client,
    ):
        answer = asyncio.run(_ask(client.url() + "/predict", body))
    show_answer(answer, as_json=as_json)


def predict_on_cluster(kubectl: Kubectl, name: str, asked: Asked, *, as_json: bool) -> None:
    """Predict with the model that a job on a cluster serves, and print.

    Raises:
        Failure: Nobody serves it, or the inputs do not fit the model.
    """
    rows = rows_of(asked, kubectl.job(name))
    if rows is None:
        raise Failure("give --inputs or --image: held-out examples are for runs of this machine", exit_code=EXIT_USAGE)
    show_answer(ask_cluster(kubectl, name, rows), as_json=as_json)


def _model(run: RunFolder, job: FederatedJob, number: int) -> tuple[Path, Base]:
    """File and digest of a round's model.

    Raises:
        Failure: It is not kept.
    """
    status = job.status
    known = {row.number: row.digest for row in status.recent_rounds}
    known |= {item.round: item.digest for item in (status.best, status.model) if item}
    file = run.path / leader_folder(job) / checkpoint_name(number)
    if number not in known or not file.is_file():
        raise Failure(f"{run.path} does not keep the model of round {number}; try --checkpoint best or final")
    return file, Base(round=number, digest=known[number])


async def _ask(url: str, body: dict[str, Any]) -> dict[str, Any]:
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.post(url, json=body) as response:
            answer: dict[str, Any] = await response.json(content_type=None)
            if response.status >= 400:
                raise Failure(str(answer.get("detail", answer)))
            return answer
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise Failure(f"no answer to predict: {type(error).__name__}: {error}") from error


def show_answer(answer: dict[str, Any], *, as_json: bool) -> None:
    """Print what ``/predict`` answered."""
    if as_json:
        say(json.dumps(answer))
        return
    outputs, labels = answer["outputs"], answer.get("labels")
    say(f"model of round {answer.get('round')}")
    for number, output in enumerate(outputs):
        line = f"  {number}: {_text(output)}"
        if labels is not None:
            line += f"  (true: {_text(labels[number])})"
        say(line)
    if labels is not None and all(isinstance(value, int) for value in [*outputs, *labels]):
        right = sum(output == label for output, label in zip(outputs, labels, strict=True))
        say(f"{right} of {len(labels)} right")


def _text(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else json.dumps(value)
