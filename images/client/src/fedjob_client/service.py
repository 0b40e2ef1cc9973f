"""A client process put together: what the routes serve, made at the start and closed at the end."""

import asyncio
import logging
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

from fedjob_client.access import Access
from fedjob_client.data.dataset import Dataset, Split
from fedjob_client.errors import ClientError, ModelError, SettingsError
from fedjob_client.evaluations import Evaluations
from fedjob_client.model_cache import LoadedModel, ModelCache, load_in_time, read_model_file
from fedjob_client.models.builtin import BuiltinTrainer
from fedjob_client.personal import Folder, Memory, Personal, Store
from fedjob_client.recorder import SILENT, Recorder
from fedjob_client.settings import Settings
from fedjob_client.tasks import Tasks
from fedjob_client.trainer import ClientContext, Trainer, load_trainer, make_trainer
from fedjob_client.training import announced_examples
from fedjob_client.transfer import Transfer, TransferError, open_session
from fedjob_client.work import ModelSource
from fedjob_client.worker import Worker
from fedjob_protocol.config import ClientConfig, Role
from fedjob_protocol.errors import Refusal, Word

_log = logging.getLogger(__name__)

SERVED_SECONDS: Final = 300.0
"""How long a server tries to fetch its model; then it ends, and is started again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What a job's client has in memory before it serves."""

    config: ClientConfig
    context: ClientContext
    trainer: Trainer
    model: LoadedModel | None
    """The job's model file, if it has one."""

    def held_out(self) -> Split:
        """The held-out examples of the client's own data.

        Raises:
            DataError: The job names no data that this program can read.
        """
        dataset = getattr(self.trainer, "dataset", None)
        return (dataset if isinstance(dataset, Dataset) else self.context.load_data()).test


def load_job(
    config: ClientConfig, *, threads: int = 1, state_dir: str | None = None, token: str | None = None
) -> Loaded:
    """Load a job's trainer, data and model.

    Args:
        config: The job.
        threads: How many threads the trainer may compute with.
        state_dir: Folder for layers that stay at this client; ``None``: they live as long as the process.
        token: The job's, for a server's model.

    Raises:
        ClientError: One of them cannot be used; the job's status will show why.
    """
    context = ClientContext(
        index=config.index,
        name=config.name,
        group=config.group,
        seed=config.seed,
        model=config.model,
        data=config.data,
        device=config.device,
        role=config.role,
        threads=threads,
    )
    if config.trainer is None:
        trainer = make_trainer(BuiltinTrainer.from_context, context)
    else:
        trainer = make_trainer(load_trainer(config.trainer, config.trainer_path), context)
    if config.model.exclude:
        trainer = Personal(trainer, config.model.exclude, seed=config.seed, store=_store(config, state_dir))
    if config.role is Role.TRAINER:
        announced_examples(trainer)
    if config.model_file is not None:
        model: LoadedModel | None = read_model_file(config.model_file, config.model_digest)
    elif config.role is Role.SERVER:
        model = asyncio.run(_served_model(config, token))
    else:
        model = None
    return Loaded(config=config, context=context, trainer=trainer, model=model)


async def _served_model(config: ClientConfig, token: str | None) -> LoadedModel:
    """Fetch the model that a server answers with.

    Raises:
        SettingsError: None is named.
        ModelError: It cannot be fetched.
    """
    if config.model_url is None or config.model_digest is None:
        raise SettingsError("a server needs modelUrl and modelDigest, or modelFile")
    source = ModelSource(url=config.model_url, digest=config.model_digest, max_bytes=config.max_model_bytes)
    async with open_session(token) as session:
        models = ModelCache(Transfer(session, job_uid=config.job_uid))
        try:
            return await load_in_time(
                models, source, round_number=None, seconds=SERVED_SECONDS, key=f"{config.job_uid}/{config.name}"
            )
        except TransferError as error:
            raise ModelError(f"the model to serve cannot be fetched: {error.message}") from error


def _store(config: ClientConfig, state_dir: str | None) -> Store:
    """Where a client keeps its own layers: of its own, whatever else uses the folder. An evaluator trains none."""
    if state_dir is None or config.role is not Role.TRAINER:
        return Memory()
    return Folder(Path(state_dir) / config.job_uid / f"client-{config.index}")


class Service:
    """The running parts of a client.

    Args:
        settings: The process.
        loaded: Its job, or ``None`` for the simple forms.
        session: The HTTP session; closed by whoever made it.
        access: Who may call.
        boot_id: Identity of this run of the program; absent means a fresh one.
        recorder: Who counts.
    """

    def __init__(
        self,
        settings: Settings,
        loaded: Loaded | None,
        session: aiohttp.ClientSession,
        *,
        access: Access | None = None,
        boot_id: str | None = None,
        recorder: Recorder = SILENT,
    ) -> None:
        self.settings = settings
        self.access = access or Access(token=settings.token)
        self.boot_id = boot_id or uuid.uuid4().hex
        """Identity of this run of the program."""
        self._recorder = recorder
        self._taking = asyncio.Lock()
        self.worker = Worker()
        self.transfer = Transfer(session, job_uid="none", root=settings.server_url, recorder=recorder)
        self.loaded: Loaded | None = None
        self.tasks: Tasks | None = None
        self.evaluations: Evaluations | None = None
        self.models = ModelCache(self.transfer)
        if loaded is not None:
            self._begin(loaded)

    def _begin(self, loaded: Loaded) -> None:
        """Work for a job from now on."""
        self.loaded = loaded
        self.transfer.job_uid = loaded.config.job_uid
        self.models = ModelCache(self.transfer, loaded.model)
        self.tasks = Tasks(
            client=loaded.config.index,
            trainer=loaded.trainer,
            worker=self.worker,
            transfer=self.transfer,
            models=self.models,
            initial_model=loaded.model,
            recorder=self._recorder,
        )
        self.evaluations = Evaluations(
            trainer=loaded.trainer, worker=self.worker, models=self.models, recorder=self._recorder
        )

    async def take_job(self, config: ClientConfig) -> None:
        """Work for the job that a client which registered itself is told; the same again changes nothing.

        Raises:
            Refusal: ``forbidden``: this client did not register. ``bad-request``: trainer or data cannot be used.
        """
        if self.settings.server_url is None or self.access.token is None:
            raise Refusal(Word.FORBIDDEN, "only a client that registered itself is told its job this way")
        if config.trainer_path is not None or config.model_file is not None:
            raise Refusal(Word.FORBIDDEN, "a client outside is told no paths of its trainer or model")
        async with self._taking:
            if self.loaded is not None and self.loaded.config == config:
                return
            try:
                loaded = await asyncio.to_thread(load_job, config)
            except ClientError as error:
                _log.error("job %s cannot be taken: %s: %s", config.job_name, error.reason, error)
                raise Refusal(Word.BAD_REQUEST, f"{error.reason}: {error}") from error
            await self.close()
            self._begin(loaded)
            _tell(config, loaded)

    async def close(self) -> None:
        """Stop tasks and evaluations, and let go whoever waits for a result; may be called twice."""
        if self.tasks is not None:
            await self.tasks.close()
        if self.evaluations is not None:
            await self.evaluations.close()
        self.worker.stop_waiting()


def _tell(config: ClientConfig, loaded: Loaded) -> None:
    """Say what this client was told."""
    examples = announced_examples(loaded.trainer)
    _log.info(
        "job %s: client %d (%s), model %s, data %s, %s training examples",
        config.job_name,
        config.index,
        config.group,
        config.model.name,
        config.data.name,
        "an unknown number of" if examples is None else examples,
    )
