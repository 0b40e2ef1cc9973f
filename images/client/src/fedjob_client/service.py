"""A client process put together: what the routes serve, made at the start and closed at the end."""

import uuid
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from fedjob_client.data.dataset import Dataset, Split
from fedjob_client.evaluations import Evaluations
from fedjob_client.model_cache import LoadedModel, ModelCache, read_model_file
from fedjob_client.models.builtin import BuiltinTrainer
from fedjob_client.personal import Folder, Memory, Personal, Store
from fedjob_client.recorder import SILENT, Recorder
from fedjob_client.settings import Settings
from fedjob_client.tasks import Tasks
from fedjob_client.trainer import ClientContext, Trainer, load_trainer, make_trainer
from fedjob_client.training import announced_examples
from fedjob_client.transfer import Transfer
from fedjob_client.worker import Worker
from fedjob_protocol.config import ClientConfig, Role


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


def load_job(config: ClientConfig, *, threads: int = 1, state_dir: str | None = None) -> Loaded:
    """Load a job's trainer, data and model.

    Args:
        config: The job.
        threads: How many threads the trainer may compute with.
        state_dir: Folder for layers that stay at this client; ``None``: they live as long as the process.

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
    model = read_model_file(config.model_file, config.model_digest) if config.model_file is not None else None
    return Loaded(config=config, context=context, trainer=trainer, model=model)


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
        boot_id: Identity of this run of the program; absent means a fresh one.
        recorder: Who counts.
    """

    def __init__(
        self,
        settings: Settings,
        loaded: Loaded | None,
        session: aiohttp.ClientSession,
        *,
        boot_id: str | None = None,
        recorder: Recorder = SILENT,
    ) -> None:
        self.settings = settings
        self.boot_id = boot_id or uuid.uuid4().hex
        """Identity of this run of the program."""
        self.loaded = loaded
        self.worker = Worker()
        self.transfer = Transfer(
            session, job_uid=loaded.config.job_uid if loaded is not None else "none", recorder=recorder
        )
        self.models = ModelCache(self.transfer, None if loaded is None else loaded.model)
        self.tasks: Tasks | None = None
        self.evaluations: Evaluations | None = None
        if loaded is not None:
            trainer = loaded.trainer
            self.tasks = Tasks(
                client=loaded.config.index,
                trainer=trainer,
                worker=self.worker,
                transfer=self.transfer,
                models=self.models,
                initial_model=loaded.model,
                recorder=recorder,
            )
            self.evaluations = Evaluations(trainer=trainer, worker=self.worker, models=self.models, recorder=recorder)

    async def close(self) -> None:
        """Stop tasks and evaluations, and let go whoever waits for a result; may be called twice."""
        if self.tasks is not None:
            await self.tasks.close()
        if self.evaluations is not None:
            await self.evaluations.close()
        self.worker.stop_waiting()
