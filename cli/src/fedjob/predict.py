"""``fedjob predict``: asks a client program that serves the run's newest model."""

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import aiohttp

from fedjob.child import Program
from fedjob.failure import EXIT_USAGE, Failure
from fedjob.folder import RunFolder
from fedjob.progress import say
from fedjob.run import MANIFEST_FOLDER_ANNOTATION
from fedjob.show import newest_model
from fedjob_operator.adapters.local import predictor_config
from fedjob_protocol.config import CONFIG_VARIABLE
from fedjob_protocol.messages import Base

MAX_INPUT_BYTES = 64 << 20
ANSWER_SECONDS = 120.0


def predict(path: Path, *, inputs: Path | None, samples: int, as_json: bool) -> None:
    """Predict and print.

    Args:
        path: Folder of the run.
        inputs: JSON file with a list of inputs, ``-`` for standard input; absent means held-out examples.
        samples: How many held-out examples.
        as_json: Print the answer as it came.

    Raises:
        Failure: There is no model, the inputs cannot be read, or they do not fit the model.
    """
    body: dict[str, Any] = {"samples": samples} if inputs is None else {"inputs": _read_inputs(inputs)}
    job, file = newest_model(RunFolder(path))
    model = job.status.model
    assert model is not None
    folder = job.metadata.annotations.get(MANIFEST_FOLDER_ANNOTATION, ".")
    base = Base(round=model.round, digest=model.digest)
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
    if as_json:
        say(json.dumps(answer))
        return
    _show(answer, round_number=model.round)


def _read_inputs(path: Path) -> object:
    try:
        raw = sys.stdin.buffer.read(MAX_INPUT_BYTES + 1) if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise Failure(f"{path}: {error.strerror or error}", exit_code=EXIT_USAGE) from error
    if len(raw) > MAX_INPUT_BYTES:
        raise Failure(f"{path} has more than {MAX_INPUT_BYTES} bytes; predict in parts", exit_code=EXIT_USAGE)
    try:
        return json.loads(raw)
    except ValueError as error:
        raise Failure(f"{path} is no JSON: {error}", exit_code=EXIT_USAGE) from error


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


def _show(answer: dict[str, Any], *, round_number: int) -> None:
    outputs, labels = answer["outputs"], answer.get("labels")
    say(f"model of round {round_number}")
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
