"""The configuration document that a client process is started with."""

from fedjob_operator.api.v1alpha1 import ClientGroup, DataOverride, DataSpec, FederatedJob, Partition
from fedjob_operator.core.layout import client_indices, group_of
from fedjob_operator.core.observed import PodRole
from fedjob_operator.core.tasks import client_name
from fedjob_protocol.config import ClientConfig, DataConfig, Device, ModelConfig, PartitionConfig, PartitionScheme, Role
from fedjob_protocol.messages import Base

EVALUATOR_NAME = "evaluator"
SERVER_NAME = "server"


def client_config(
    job: FederatedJob,
    *,
    role: PodRole,
    index: int,
    trainer_path: str | None = None,
    model_file: str | None = None,
    model_digest: str | None = None,
) -> ClientConfig:
    """Return what one client, or the evaluator, is told about its job.

    Args:
        job: An accepted job: its layout is fixed.
        role: Client or evaluator.
        index: The client's index; 0 for the evaluator.
        trainer_path: Folder that a trainer of the user's own is imported from.
        model_file: Checkpoint that the initial model is taken from, or that is served.
        model_digest: Its digest, where it is known.

    Raises:
        pydantic.ValidationError: The spec holds what no client can be told.
    """
    is_evaluator = role is PodRole.EVALUATOR
    group = _group(job, index)
    override = job.spec.evaluation.data if is_evaluator else group.data
    return ClientConfig(
        job_uid=job.metadata.uid,
        job_name=job.metadata.name,
        role=Role.EVALUATOR if is_evaluator else Role.TRAINER,
        index=index,
        name=EVALUATOR_NAME if is_evaluator else client_name(job, index),
        group=EVALUATOR_NAME if is_evaluator else group.name,
        seed=job.spec.seed,
        model=ModelConfig(
            name=job.spec.model.name, parameters=dict(job.spec.model.parameters), exclude=job.spec.model.exclude
        ),
        data=_data(job, _effective_data(job.spec.data, override), None if is_evaluator else _part(job, group, index)),
        trainer=group.trainer,
        trainer_path=trainer_path if group.trainer else None,
        device=Device(group.device),
        model_file=model_file,
        model_digest=model_digest,
    )


def predictor_config(job: FederatedJob, *, model: Base, model_file: str, trainer_path: str | None) -> ClientConfig:
    """Return the configuration of a process that only answers ``/predict`` with a committed model."""
    return client_config(
        job,
        role=PodRole.EVALUATOR,
        index=0,
        trainer_path=trainer_path,
        model_file=model_file,
        model_digest=model.digest,
    )


def server_config(job: FederatedJob, *, model: Base, model_url: str) -> ClientConfig:
    """Return the configuration of a server of a complete job's model."""
    config = client_config(job, role=PodRole.EVALUATOR, index=0, model_digest=model.digest)
    update = {"role": Role.SERVER, "name": SERVER_NAME, "group": SERVER_NAME, "model_url": model_url}
    return config.model_copy(update={**update, "max_model_bytes": job.spec.model.max_bytes})


def _group(job: FederatedJob, index: int) -> ClientGroup:
    name = group_of(job.status.layout, index)
    return next(group for group in job.spec.client_groups if group.name == name)


def _effective_data(data: DataSpec | None, override: DataOverride | None) -> DataSpec:
    """Apply a group's override: with a name of its own nothing of the job's data is left."""
    if override is None:
        return data or DataSpec(name="own")
    given = {name: getattr(override, name) for name in override.model_fields_set if getattr(override, name) is not None}
    if override.name is not None or data is None:
        return DataSpec(**{"name": "own", **given})
    return data.model_copy(update=given)


def _part(job: FederatedJob, group: ClientGroup, index: int) -> tuple[int, int]:
    """A client's part and the number of parts: of the job's data among all, of a group's own data within the group."""
    if group.data is None or group.data.name is None:
        return index, len(client_indices(job.status.layout))
    entry = next(entry for entry in job.status.layout if entry.group == group.name)
    return index - entry.first, entry.count


def _data(job: FederatedJob, data: DataSpec, part: tuple[int, int] | None) -> DataConfig:
    """The evaluator has no part: it holds the whole held-out data."""
    return DataConfig(
        name=data.name,
        path=data.path,
        parameters=dict(data.parameters),
        partition=None if part is None or data.partition is None else _partition(job, data.partition, *part),
        max_train_samples=data.max_train_samples,
        max_test_samples=data.max_test_samples,
    )


def _partition(job: FederatedJob, partition: Partition, index: int, count: int) -> PartitionConfig:
    return PartitionConfig(
        scheme=PartitionScheme(partition.scheme),
        index=index,
        count=count,
        seed=job.spec.seed,
        **{name: value for name in ("alpha", "shards_per_client") if (value := getattr(partition, name)) is not None},
    )
