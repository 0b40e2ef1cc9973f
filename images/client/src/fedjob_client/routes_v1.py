"""The job's side of the client: ``/v1``, for the operator and ``fedjob run``. Parses, delegates, answers."""

import logging
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel

from fedjob_client.cuda.choice import simple_backend
from fedjob_client.info import fingerprint
from fedjob_client.models.builtin import BuiltinTrainer
from fedjob_client.service import Loaded, Service
from fedjob_client.training import announced_examples, trainer_backend
from fedjob_protocol import PROTOCOL_VERSION, __version__, routes
from fedjob_protocol.config import ClientConfig, Role
from fedjob_protocol.errors import Refusal, Word, quote
from fedjob_protocol.reasons import Reason
from fedjob_protocol.registration import TurnedAway
from fedjob_protocol.tasks import ClientInfo, EvaluateTask, EvaluationView, InitTask, TaskView, TrainTask, WarmInitTask

_log = logging.getLogger(__name__)

MAX_WAIT_SECONDS: Final = 60.0

router = APIRouter(tags=["job"])

RoundParameter = Annotated[int, Path(ge=0, le=1_000_000_000)]


@router.post(routes.TRAIN_PATH, response_model=TaskView)
async def train(round_number: RoundParameter, task: TrainTask, request: Request) -> Response:
    """Train and upload; the same task again reads it, a new destination uploads again."""
    service = service_of(request)
    _trainers_job(service, task.job_uid)
    if round_number <= task.base.round:
        raise Refusal(Word.WRONG_BASE, f"round {round_number} cannot start from the model of round {task.base.round}")
    assert service.tasks is not None
    return _answer(service.tasks.post(round_number, task))


@router.post(routes.INIT_PATH, response_model=TaskView)
async def init(task: WarmInitTask | InitTask, request: Request) -> Response:
    """Make the initial model, or fetch the other job's that this one begins with, and upload it as round 0."""
    service = service_of(request)
    _trainers_job(service, task.job_uid)
    assert service.tasks is not None
    return _answer(service.tasks.post(0, task))


@router.get(routes.ROUND_PATH, response_model=TaskView)
async def read_task(round_number: RoundParameter, request: Request) -> Response:
    """Where a round's task is."""
    tasks = service_of(request).tasks
    if tasks is None:
        raise _no_job()
    return _answer(tasks.view(round_number))


@router.delete(routes.ROUND_PATH, response_model=TaskView)
async def cancel(round_number: RoundParameter, request: Request) -> Response:
    """Stop working on a round; with the headers of a term and attempt that are over it is refused."""
    tasks = service_of(request).tasks
    if tasks is None:
        raise _no_job()
    return _answer(tasks.cancel(round_number, _order(request)))


@router.post(routes.EVALUATE_PATH, response_model=EvaluationView)
async def evaluate(
    task: EvaluateTask, request: Request, wait: Annotated[float, Query(ge=0, le=MAX_WAIT_SECONDS)] = 0.0
) -> Response:
    """Evaluate a committed model; the same task again reads the result, waiting up to ``wait`` seconds for it."""
    service = service_of(request)
    _job(service, task.job_uid)
    assert service.evaluations is not None
    return _answer(await service.evaluations.post(task, wait_seconds=wait))


@router.get(routes.INFO_PATH, response_model=ClientInfo)
async def info(request: Request) -> Response:
    """Who this client is, and what it holds."""
    service = service_of(request)
    loaded = service.loaded
    config = None if loaded is None else loaded.config
    index = service.settings.index
    return _answer(
        ClientInfo(
            protocol=PROTOCOL_VERSION,
            version=__version__,
            job_uid=config.job_uid if config else None,
            role=config.role if config else Role.TRAINER,
            index=config.index if config else index,
            name=config.name if config else f"client-{index}",
            group=config.group if config else "clients",
            boot_id=service.boot_id,
            backend=backend_of(service),
            fingerprint=fingerprint(),
            **_examples(loaded),
        )
    )


@router.put(routes.JOB_PATH, response_model=ClientInfo)
async def take_job(config: ClientConfig, request: Request) -> Response:
    """Tell a client that registered itself which job it works for, and which index it has; the same again is fine."""
    await service_of(request).take_job(config)
    return await info(request)


@router.post(routes.TURNED_AWAY_PATH, response_model=ClientInfo)
async def turned_away(notice: TurnedAway, request: Request) -> Response:
    """Tell a client that registered itself that a job is over, or goes on without it; it says so in its log."""
    if notice.reason == Reason.LATE_JOINER:
        _log.warning("turned away: %s: %s", notice.reason, quote(notice.message))
    else:
        _log.info("the job is over: %s: %s", quote(notice.reason), quote(notice.message))
    return await info(request)


def service_of(request: Request) -> Service:
    """The service behind a request."""
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


def backend_of(service: Service) -> Literal["cpu", "gpu"]:
    """Where the trainer computes: ``cpu``, unless it says ``gpu``; without a job, where the simple forms do."""
    if service.loaded is None:
        return simple_backend(service.settings.device)
    return trainer_backend(service.loaded.trainer)


def _examples(loaded: Loaded | None) -> dict[str, Any]:
    if loaded is None:
        return {}
    held_out = getattr(loaded.trainer, "num_test_examples", None)
    examples = announced_examples(loaded.trainer) if loaded.config.role is Role.TRAINER else None
    return {
        "examples": examples,
        "test_examples": int(held_out) if held_out is not None else None,
        "labels": _labels(loaded),
    }


def _labels(loaded: Loaded) -> tuple[int, ...] | None:
    """Told only where one data set is divided: of data of its own a client tells no more than how many they are."""
    is_part = loaded.config.role is Role.TRAINER and loaded.config.data.partition is not None
    return loaded.trainer.label_counts if is_part and isinstance(loaded.trainer, BuiltinTrainer) else None


def _job(service: Service, job_uid: str) -> Loaded:
    if service.loaded is None:
        raise _no_job()
    if job_uid != service.loaded.config.job_uid:
        raise Refusal(Word.WRONG_JOB, f"this client belongs to job {service.loaded.config.job_uid}, not to {job_uid}")
    return service.loaded


def _trainers_job(service: Service, job_uid: str) -> None:
    loaded = _job(service, job_uid)
    if loaded.config.role is not Role.TRAINER:
        raise Refusal(Word.FORBIDDEN, f"{loaded.config.name} does not train: its role is {loaded.config.role}")


def _no_job() -> Refusal:
    return Refusal(Word.WRONG_JOB, "this client has no job: it was started without FEDJOB_CONFIG")


def _order(request: Request) -> tuple[int, int] | None:
    """Term and attempt of who asks, if it says so."""
    texts = [request.headers.get(name) for name in (routes.TERM_HEADER, routes.ATTEMPT_HEADER)]
    if all(text is None for text in texts):
        return None
    numbers = [int(text) for text in texts if text is not None and text.isascii() and text.isdigit() and len(text) < 19]
    if len(numbers) != len(texts):
        raise Refusal(
            Word.BAD_REQUEST, f"{routes.TERM_HEADER} and {routes.ATTEMPT_HEADER} go together and are whole numbers"
        )
    return numbers[0], numbers[1]


def _answer(message: BaseModel) -> Response:
    return Response(message.model_dump_json(by_alias=True), media_type="application/json")
