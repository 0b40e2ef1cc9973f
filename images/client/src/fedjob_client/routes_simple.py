"""What people talk to with curl: health, the simple training, predictions; snake_case JSON, any content type."""

import asyncio
import json
from functools import partial
from typing import Any, Final

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedjob_client.cuda.driver import cuda_available
from fedjob_client.errors import ClientError
from fedjob_client.problems import first_problem, has_token
from fedjob_client.routes_v1 import backend_of, service_of
from fedjob_client.service import Loaded, Service
from fedjob_client.simple import Line, SimpleTrainAnswer, SimpleTrainRequest, predict_simple, train_simple
from fedjob_client.trainer import Array, one_line
from fedjob_protocol import __version__, routes
from fedjob_protocol.errors import Refusal, Word

MAX_SAMPLES: Final = 10_000
PREDICT_SECONDS: Final = 60.0
"""How long a prediction waits for the end of a training."""

router = APIRouter(tags=["simple"])


class PredictRequest(BaseModel):
    """Body of ``POST /predict``: ``inputs``, or ``samples`` of the client's own held-out examples."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    inputs: Any = None
    """One entry per prediction: a number, or a list of features."""
    samples: int | None = Field(default=None, ge=1, le=MAX_SAMPLES)
    """Predict this many held-out examples; the answer has their ``labels``. Wants the job's token if there is one."""


class PredictAnswer(BaseModel):
    """Answer of ``POST /predict``."""

    outputs: list[Any]
    """Values, or classes."""
    round: int | None
    """The round that committed the model; ``null`` where it is not known, and without a job."""
    probabilities: list[list[float]] | None = None
    """Of each class; classification only."""
    labels: list[Any] | None = None
    """The true outputs of ``samples``."""


def _body(model: type[BaseModel], example: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI description of a body that is read whatever its content type says."""
    content = {"application/json": {"schema": model.model_json_schema(), "example": example}}
    return {"requestBody": {"required": False, "content": content}}


@router.get(routes.HEALTH_PATH)
def health(request: Request) -> dict[str, Any]:
    """Whether the program is alive, and what it is."""
    # No coroutine, so that it runs in a thread: the first question to a GPU's driver takes a moment.
    service = service_of(request)
    config = service.loaded.config if service.loaded is not None else None
    return {
        "status": "ok",
        "cuda_available": cuda_available(),
        "backend": backend_of(service),
        "index": config.index if config else service.settings.index,
        "job": config.job_name if config else None,
        "version": __version__,
    }


@router.get(routes.READY_PATH)
async def ready() -> dict[str, str]:
    """Whether the program can be given work: it serves only once trainer and data are loaded."""
    return {"status": "ready"}


@router.post(
    "/train",
    response_model_exclude_none=True,
    openapi_extra=_body(SimpleTrainRequest, {"epochs": 50, "learning_rate": 0.01}),
)
async def simple_train(request: Request) -> SimpleTrainAnswer:
    """Train on synthetic data; a client of a job trains for its job only."""
    service = service_of(request)
    if service.loaded is not None:
        raise Refusal(Word.NOT_FOUND, f"this client works for job {service.loaded.config.job_name}: no simple training")
    order = _parse(SimpleTrainRequest, await request.body())
    lab: Lab = request.app.state.lab
    return await lab.train(service, order)


@router.post(
    "/predict",
    response_model=PredictAnswer,
    response_model_exclude_none=False,
    openapi_extra=_body(PredictRequest, {"inputs": [1.0, 2.0]}),
)
async def predict(request: Request) -> Response:
    """Predict with the job's newest model that this client has seen, or with the last simple training's."""
    service = service_of(request)
    order = _parse(PredictRequest, await request.body())
    if (order.inputs is None) == (order.samples is None):
        raise Refusal(Word.BAD_REQUEST, 'give {"inputs": [...]} or {"samples": 10}, one of them')
    if service.loaded is None:
        lab: Lab = request.app.state.lab
        return _answer(*lab.predict(order), round_number=None, labels=None)
    if order.samples is not None and not has_token(service.access.token, _token(request)):
        raise Refusal(Word.BAD_TOKEN, f"held-out examples want the job's token in the header {routes.TOKEN_HEADER}")
    return await _predict_for_job(service, service.loaded, order)


class Lab:
    """The state of the simple forms: the last line that was trained."""

    def __init__(self) -> None:
        self._line: Line | None = None
        self._is_training = False

    async def train(self, service: Service, order: SimpleTrainRequest) -> SimpleTrainAnswer:
        """Train in the worker's thread, one at a time.

        Raises:
            Refusal: ``training-in-progress``, ``unavailable`` if the GPU fails, or as `train_simple`.
        """
        if self._is_training:
            raise Refusal(Word.TRAINING_IN_PROGRESS, "this client is training; ask again when it is done")
        self._is_training = True
        settings = service.settings
        try:
            answer = await service.worker.run(
                partial(train_simple, order, index=settings.index, device=settings.device)
            )
        except ClientError as error:
            raise Refusal(Word.UNAVAILABLE, f"{error.reason}: {error}") from error
        finally:
            self._is_training = False
        self._line = Line(w=answer.w, b=answer.b, model=answer.model)
        return answer

    def predict(self, order: PredictRequest) -> tuple[Array, Array | None]:
        """Predict with the last line.

        Raises:
            Refusal: Nothing was trained yet, or the inputs cannot be used.
        """
        if order.inputs is None:
            raise Refusal(Word.BAD_REQUEST, 'samples are of a job\'s data; without a job give {"inputs": [...]}')
        if self._line is None:
            raise Refusal(Word.UNAVAILABLE, "nothing was trained yet: POST /train first")
        return predict_simple(self._line, _numbers(order.inputs))


async def _predict_for_job(service: Service, loaded: Loaded, order: PredictRequest) -> Response:
    model = service.models.current
    if model is None:
        raise Refusal(Word.UNAVAILABLE, "this client has seen no model yet; ask again after the first round")
    if not callable(getattr(loaded.trainer, "predict", None)):
        raise Refusal(Word.NOT_FOUND, f"trainer {type(loaded.trainer).__name__} has no method predict")
    inputs = None if order.inputs is None else _numbers(order.inputs)

    def work() -> tuple[Array, Any]:
        if inputs is not None:
            return np.asarray(loaded.trainer.predict(model.params, inputs)), None
        test = loaded.held_out()
        rows = slice(0, order.samples)
        return np.asarray(loaded.trainer.predict(model.params, test.x[rows])), test.y[rows].tolist()

    try:
        async with asyncio.timeout(PREDICT_SECONDS):
            outputs, labels = await service.worker.run(work)
    except TimeoutError:
        raise Refusal(Word.UNAVAILABLE, "this client is training; ask again when it is done") from None
    except Refusal:
        raise
    except ClientError as error:
        raise Refusal(Word.BAD_REQUEST, str(error)) from error
    except Exception as error:
        raise Refusal(Word.BAD_REQUEST, f"the model cannot predict these inputs: {one_line(error)}") from error
    return _answer(*_as_classes(outputs), round_number=model.round, labels=labels)


def _as_classes(outputs: Array) -> tuple[Array, Array | None]:
    """Classes and probabilities of a matrix whose rows are distributions; anything else as it is."""
    is_matrix = outputs.ndim == 2 and outputs.shape[1] > 1 and outputs.dtype.kind == "f"
    if is_matrix and (outputs >= 0).all() and np.allclose(outputs.sum(axis=1), 1, atol=1e-3):
        return outputs.argmax(axis=1), outputs
    return outputs, None


def _answer(
    outputs: Array, probabilities: Array | None, *, round_number: int | None, labels: list[Any] | None
) -> Response:
    if outputs.dtype.kind not in "biuf" or not np.isfinite(outputs).all():
        raise Refusal(Word.BAD_REQUEST, "the model's outputs for these inputs are not finite numbers")
    answer: dict[str, Any] = {"outputs": outputs.tolist(), "round": round_number}
    if probabilities is not None:
        answer["probabilities"] = probabilities.tolist()
    if labels is not None:
        answer["labels"] = labels
    return JSONResponse(answer)


def _parse(model: type[Any], raw: bytes) -> Any:
    """Read a body; curl calls it a form unless it is told otherwise, so the content type is not looked at."""
    try:
        value = json.loads(raw, parse_constant=_no_constant) if raw.strip() else {}
    except (ValueError, RecursionError) as error:
        raise Refusal(Word.BAD_REQUEST, f"the body is no JSON: {str(error)[:200]}") from None
    try:
        return model.model_validate(value)
    except ValidationError as problem:
        raise Refusal(Word.BAD_REQUEST, first_problem(problem.errors(), ", ".join(model.model_fields))) from None


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no number in JSON")


def _numbers(inputs: Any) -> Array:
    """A list of numbers, or of lists of them.

    Raises:
        Refusal: ``bad-request``: it is something else.
    """
    if not isinstance(inputs, list) or not inputs:
        raise Refusal(Word.BAD_REQUEST, "inputs: a list with at least one entry is needed")
    try:
        array = np.asarray(inputs, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise Refusal(Word.BAD_REQUEST, "inputs: numbers are needed, or lists of numbers of the same length") from None
    if not np.isfinite(array).all():
        raise Refusal(Word.BAD_REQUEST, "inputs: all numbers have to be finite")
    return array


def _token(request: Request) -> bytes | None:
    token = request.headers.get(routes.TOKEN_HEADER)
    return None if token is None else token.encode("latin-1")
